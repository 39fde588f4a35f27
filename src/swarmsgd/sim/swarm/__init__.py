"""SwarmSGD in virtual time: the real node's core, driven by an agenda."""
