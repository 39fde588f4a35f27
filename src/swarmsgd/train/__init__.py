"""Real runs, on the wall clock: `node` is one node, `meet` what nodes do together, `checkpoint` how
one is kept and goes on, `data` which samples it reads, `launch` starts their processes, `command`
is `swarmsgd train`.
"""
