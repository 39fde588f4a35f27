"""Bytes between neighbours, one link each.

`base` is what a transport must do; another one implements that, passes
`swarmsgd.testing.check_transport`, and is made in `swarmsgd.train.meet.rendezvous`. `zmq` is the
one of real runs, over one socket (`port`) and a pool of buffers (`pool`).
"""
