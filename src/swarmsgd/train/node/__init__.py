"""One node of a real run.

`join` puts it together; `fit` looks at what it is given. `swarm` has the hook after a step, and
what a user calls; `worker` is the exchange thread. `watch` looks whether what is exchanged is what
is trained. `staging` and `transfers` are for a model on a device, `state` for optimizer state that
is exchanged, `result` for the state dict of a mean.
"""
