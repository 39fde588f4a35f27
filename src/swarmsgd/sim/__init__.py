"""The simulator: the same node machine, code and messages in virtual time; honest baselines.

`engine` is the world: time, network, models. `swarm` has SwarmSGD in it, `baselines` the other
algorithms. `command` makes a run of them (`swarmsgd simulate`), `comparison` several (`swarmsgd
compare`).
"""
