"""One node of a real run.

`join` puts it together; `join_checks` looks at what it is given, `arrival` takes over what a run
that goes on has. `swarm` has the hook after a step, and what a user calls; `worker` is the exchange
thread. `watch` looks whether what is exchanged is what is trained. `staging` and `transfers` are
for a model on a device, `state` for optimizer state that is exchanged, `result` for the state dict
of a mean.
"""
