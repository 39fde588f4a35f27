"""`swarmsgd doctor`: what of a machine, or of the way between two, would stand in a run's way."""
