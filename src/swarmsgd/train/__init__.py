"""Real runs, on the wall clock: `node` is one node, `meet` what nodes do together, `launch` starts
their processes, `command` is `swarmsgd train`.
"""
