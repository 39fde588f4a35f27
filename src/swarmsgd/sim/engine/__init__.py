"""Virtual time: the agenda, the world, the network, and the models that local steps move."""
