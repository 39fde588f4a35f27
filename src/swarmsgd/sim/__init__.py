"""The simulator: the same node machine, code and messages in virtual time; honest baselines."""
