"""Bytes between neighbours, one link each.

`base` is what a transport must do; another one implements that, passes
`swarmsgd.testing.check_transport`, and is made in `swarmsgd.train.node.join`. `gloo` is the one of
real runs, built of `meeting` (how two ends find each other), `group` and `sockets` (Gloo), `link`
(queues and threads) and `pool` (buffers).
"""
