"""Which samples a node of a script reads: `node_sampler` for a fixed list of nodes, `open_sampler`
for one that changes. Both go through one permutation an epoch that all draw alike (`walk`).
"""
