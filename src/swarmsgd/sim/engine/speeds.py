"""How long local steps take in virtual time."""

from __future__ import annotations

import numpy as np

from swarmsgd.seeds import stream
from swarmsgd.sim.engine.world import Slowness, World


class Speeds:
    """Step times of `num_nodes` nodes: a function of (world, seed), each node's drawn in turn."""

    def __init__(self, world: World, num_nodes: int, seed: int) -> None:
        rng = stream("speeds", seed)
        spread = rng.lognormal(0.0, world.speed_spread, num_nodes)
        self.base_s_N = world.step_time_ms / 1000 * spread
        self._jitter = world.step_jitter
        self._seed = seed
        self._rngs: dict[int, np.random.Generator] = {}
        self._slowness = Slowness(world.slowdowns)

    def begin_life(self, node: int, life: int) -> None:
        """Begin a new life: it draws its jitter from the start of a stream of its own."""
        self._rngs[node] = stream("jitter", self._seed, node, life)

    def step_s(self, node: int, now: float) -> float:
        """Seconds of the step that `node` begins at `now`; draws its jitter."""
        seconds = float(self.base_s_N[node]) * self._slowness.at(node, now)
        if self._jitter:
            rng = self._rngs.get(node)
            if rng is None:
                rng = self._rngs[node] = stream("jitter", self._seed, node)
            seconds *= rng.lognormal(0.0, self._jitter)
        return seconds

    def round_s(self, starts_N: np.ndarray) -> np.ndarray:
        """[N] seconds of the steps that all nodes begin at `starts_N`."""
        return np.array([self.step_s(node, now) for node, now in enumerate(starts_N.tolist())])
