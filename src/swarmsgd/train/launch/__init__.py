"""Processes of a run: starting, watching and ending them, on one host or several.

`local` is `swarmsgd launch`, over `launcher` and the `processes` it watches; `hosts` is what
launchers of several hosts tell each other, `guard` ends what a killed launcher left.
"""
