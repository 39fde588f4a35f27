"""Where the nodes of a run meet: the store is a `tracker`, which keeps in its `register` who is in
which run (a `session`); a node finds it (`finding`), has a `line` to it, and arrives by
`rendezvous`. `collective` is the common start, `mean` the mean over a `tree` of those that live.
"""
