"""Where the nodes of a run meet: `rendezvous` is the store and who is who in it; `collective` the
common start, the mean, and who is alive.
"""
