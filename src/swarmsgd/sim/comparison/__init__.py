"""`swarmsgd compare`: several algorithms in one simulated world, as a `recipe` says; `compare` runs
them.
"""
