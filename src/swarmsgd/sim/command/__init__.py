"""`swarmsgd simulate`: one run in virtual time."""
