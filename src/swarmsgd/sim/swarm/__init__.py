"""SwarmSGD in virtual time: `virtual_node` is one node, the real one's core on an agenda, and
`nodes` is all of them.
"""
