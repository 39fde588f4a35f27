"""Where the nodes of a run meet: the store, the common start, the mean, who is alive."""
