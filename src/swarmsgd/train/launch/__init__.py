"""Processes of a run: starting, watching and ending them, on one host or several."""
