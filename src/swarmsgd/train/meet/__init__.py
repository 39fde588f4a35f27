"""Where the nodes of a run meet: `rendezvous` is the store and who is who in it; `collective` the
common start, and who is alive; `mean` the mean.
"""
