"""`swarmsgd train`: a task of the package, trained by real processes.

`run` is the parent, `trainee` one node, `makers` how nodes keep together (SwarmSGD or DDP),
`config` what is asked for, `devices` where a node trains, `summary` what came of it.
"""
