"""`swarmsgd compare`: several algorithms in one simulated world."""
