"""A node's checkpoint: what it holds, where it lies, and how a new run takes it up.

`tree` and `container` are the format, `folder` the place. `save` and `load` are what a user calls,
`resumed` is what `join` takes up, `mean` makes one model of all nodes' files, `export` writes it.
"""
