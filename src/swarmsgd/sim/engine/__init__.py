"""Virtual time: the agenda, the world, the network, and the models that local steps move.

`world` says how fast nodes and links are and what goes wrong, `speeds` and `network` act on it,
`agenda` orders what happens. `fleet` holds the models, `optimizer_states` what the optimizers
remember, `learners` (`module_learner`, `quadratic_learner`) makes local steps, `ledger` counts.
"""
