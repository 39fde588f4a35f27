"""`swarmsgd doctor`: what of a machine, or of the way between two, would stand in the way of a run."""
