"""The measurements of `theory.py`, one function a row: plain figures out, ready for JSON.

Distances and Gamma are in units of v, the mean squared norm of a burst.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import theory_formulas as formulas
import torch
from theory_runs import (
    INSTANT,
    LOCKSTEP,
    Steady,
    pure_noise,
    rounds,
    setting,
    steady,
    steps_to,
    synthetic,
)

from swarmsgd import graphs
from swarmsgd.core import lattice

Row = dict[str, Any]

DIM = 256
LR = 0.01
POISSON = "geometric:4"
"""Bursts of random length with mean 4: the exchanges of all nodes come in nearly random order."""


def averaging(graph: str, nodes: int, dim: int = 64) -> Row:
    """One exact exchange on a random edge, all edges enumerated."""
    made = graphs.parse(graph, nodes)
    rng = np.random.default_rng(0)
    copies = np.round(rng.standard_normal((nodes, dim)) * 1024).astype(np.float32) / 1024
    slowest = formulas.fiedler(made)[:, None].astype(np.float32)
    measured = formulas.averaged_gamma(made, copies)
    predicted = formulas.averaged_gamma_predicted(made, copies)
    return {
        "graph": graph,
        "nodes": nodes,
        "degree": made.degree(0),
        "lambda_2": made.lambda_2,
        "measured": measured / formulas.gamma_of(copies),
        "predicted": predicted / formulas.gamma_of(copies),
        "relative_error": abs(measured / predicted - 1),
        "bound": formulas.contraction(made),
        "fiedler": formulas.averaged_gamma(made, slowest) / formulas.gamma_of(slowest),
    }


def pairs(nodes: int, mode: str, exchanges: int, *, latency_ms: float, seed: int) -> Row:
    """Squared distance of the models that an exchange averages, on a complete graph.

    A burst takes about 40 ms, an exchange twice `latency_ms`.
    """
    bursts = 12 + max(40, exchanges // nodes)
    world = replace(INSTANT, latency_ms=latency_ms)
    config = setting(nodes, mode=mode, lr=LR, world=world, seed=seed)
    burst = formulas.burst_norm_sq(LR, 4, DIM, 1.0)
    found = steady(config, pure_noise(config), bursts, warm=12 / bursts)
    return {
        "nodes": nodes,
        "mode": mode,
        "share": 2 * latency_ms / (4 * world.step_time_ms),
        "exchanges": found.exchanges,
        "averaged": found.apart_sq.value / burst,
        "error": found.apart_sq.error / burst,
        "predicted": formulas.pair_distance_sq(nodes, 1.0, 1),
        "gamma": found.gamma.value / burst,
        "gamma_error": found.gamma.error / burst,
        "gamma_predicted": formulas.steady_gamma_closed(graphs.complete(nodes), 1.0),
    }


def matched(nodes: int, exchanges: int) -> Row:
    """The same in matching mode, where both ends' bursts land; also before they do."""
    config = setting(nodes, mode="matching", lr=LR, world=LOCKSTEP, seed=nodes)
    burst = formulas.burst_norm_sq(LR, 4, DIM, 1.0)
    found = rounds(config, pure_noise(config), 12 + max(40, 2 * exchanges // nodes), warm=12)
    return {
        "nodes": nodes,
        "mode": "matching",
        "exchanges": found.pairs,
        "averaged": found.averaged.value / burst,
        "error": found.averaged.error / burst,
        "predicted": formulas.pair_distance_sq(nodes, 1.0, 2),
        "before": found.before.value / burst,
        "before_error": found.before.error / burst,
        "before_predicted": formulas.pair_distance_sq_before(nodes, 1.0, 2),
    }


def spread(graph: str, local_steps: int | str, bursts: int, nodes: int, seed: int) -> Row:
    """Gamma in steady state on a graph."""
    made = graphs.parse(graph, nodes, seed)
    config = setting(nodes, graph=graph, local_steps=local_steps, lr=LR, seed=seed)
    burst = formulas.burst_norm_sq(LR, 4, DIM, 1.0)
    found = steady(config, pure_noise(config), bursts, warm=0.4)
    return {
        "graph": graph,
        "local_steps": local_steps,
        "nodes": nodes,
        "degree": int(made.degrees.max()),
        "r_over_lambda_2": float(made.degrees.max()) / made.lambda_2,
        "gamma": found.gamma.value / burst,
        "error": found.gamma.error / burst,
        "predicted": formulas.steady_gamma(made, 1.0),
        "bound": formulas.potential_bound(made, LR, 4, float(DIM)) / burst,
        "averaged": found.apart_sq.value / burst,
        "averaged_error": found.apart_sq.error / burst,
        "averaged_predicted": formulas.pair_distance_sq(nodes, 1.0, 1),
    }


CONDITION = 4.0
FLOOR_LR = 0.05
SLOWEST_LR = 0.002
"""The rate of one node in the race to a target; n nodes have n times it."""


def floor(nodes: int, steps: int) -> Row:
    """Excess loss of the mean model in steady state, at a rate that does not depend on n."""
    config = setting(nodes, condition=CONDITION, lr=FLOOR_LR)
    task = synthetic(config)
    found = steady(config, task, steps // 4, warm=0.15)
    one = formulas.sgd_floor(FLOOR_LR, 1.0, task.curvature_D.double().numpy())
    return {
        "nodes": nodes,
        "excess": found.excess.value,
        "error": found.excess.error,
        "predicted": one / nodes,
    }


def race(nodes: int, seeds: int) -> Row:
    """Local steps a node until the mean model is within twice the floor, at rate n SLOWEST_LR."""
    lr, steps = nodes * SLOWEST_LR, []
    for seed in range(seeds):
        config = setting(nodes, condition=CONDITION, lr=lr, seed=seed)
        task = synthetic(config)
        target = 2 * formulas.sgd_floor(SLOWEST_LR, 1.0, task.curvature_D.double().numpy())
        steps.append(steps_to(config, task, 4000 // nodes, target))
    return {"nodes": nodes, "lr": lr, "steps": steps}


def burst_length(local_steps: int, steps: int, nodes: int = 16) -> Row:
    """Gamma and excess losses against H, with noise alone and with disagreement alone.

    The two Gammas are in units of lr^2 M^2, M^2 the mean squared norm of one gradient at the best
    model.
    """

    def run(steps: int, pure: bool = False, **changes: float) -> Steady:
        config = setting(nodes, local_steps=local_steps, lr=LR, **changes)
        task = pure_noise(config) if pure else synthetic(config)
        return steady(config, task, max(60, steps // local_steps), batches=10, samples=10)

    pure = run(min(steps, 300 * local_steps), pure=True)
    drift = run(min(steps, 300 * local_steps), condition=CONDITION, noise=0.0, heterogeneity=1.0)
    noisy = run(steps, condition=CONDITION)
    curvature_D = np.geomspace(1 / CONDITION, 1, DIM)
    one, drifting = LR**2 * DIM, LR**2 * float(np.square(curvature_D).sum())
    complete = graphs.complete(nodes)
    return {
        "local_steps": local_steps,
        "gamma": pure.gamma.value / one,
        "error": pure.gamma.error / one,
        "predicted": formulas.steady_gamma(complete, local_steps),
        "bound": formulas.potential_bound(complete, 1.0, local_steps, 1.0),
        "drift_gamma": drift.gamma.value / drifting,
        "drift_error": drift.gamma.error / drifting,
        "excess": noisy.excess.value,
        "excess_error": noisy.excess.error,
        "excess_predicted": formulas.sgd_floor(LR, 1.0, curvature_D) / nodes,
        "own_excess": noisy.own_excess.value,
    }


def bits_of(bits: int | None, bursts: int, nodes: int = 16, dim: int = lattice.BLOCK) -> Row:
    """What the code adds: the balance of distances, Gamma and excess losses by bits."""
    burst = formulas.burst_norm_sq(LR, 4, dim, 1.0)
    config = setting(nodes, dim=dim, bits=bits, lr=LR)
    found = steady(config, pure_noise(config), bursts)
    quadratic = setting(nodes, dim=dim, bits=bits, lr=FLOOR_LR, condition=CONDITION)
    task = synthetic(quadratic)
    trained = steady(quadratic, task, 2 * bursts, batches=10, samples=10)
    apart, noise = found.apart_sq.value, found.noise_sq.value
    return {
        "bits": bits,
        "averaged": apart / burst,
        "error": found.apart_sq.error / burst,
        "noise": noise / burst,
        "noise_share": noise / (apart - noise),
        "balance": (apart - 2 * noise) / burst,
        "predicted": formulas.pair_distance_sq(nodes, 1.0, 1),
        "gamma": found.gamma.value / burst,
        "gamma_error": found.gamma.error / burst,
        "gamma_predicted": formulas.coded_gamma(nodes, 1.0, noise / burst),
        "excess": trained.excess.value,
        "excess_error": trained.excess.error,
        "excess_predicted": formulas.sgd_floor(FLOOR_LR, 1.0, task.curvature_D.double().numpy())
        / nodes,
        "own_excess": trained.own_excess.value,
    }


def cliff(bits: int, past: float, blocks: int = 4000, dim: int = 16) -> Row:
    """Blocks that decode wrongly when one coordinate is `past` times the reach away."""
    rng = np.random.default_rng(bits)
    cell = torch.full((blocks, 1), 2.0**-6)
    distance = past * 2.0**-6 * ((1 << bits) - 1) / 2
    x = torch.from_numpy(rng.uniform(-1, 1, (blocks, dim)).astype(np.float32))
    y = x.clone()
    y[:, 0] += float(distance)
    offset = torch.from_numpy(rng.uniform(0, 1, (blocks, 1)).astype(np.float32))
    sent = lattice.encode(x, cell, offset)
    seen = lattice.decode(lattice.colours(sent, bits), y, cell, offset, bits)
    error = lattice.points(sent, cell, offset) - x
    return {
        "bits": bits,
        "past": past,
        "wrong": float((seen != sent).any(-1).double().mean()),
        "predicted": formulas.wrong_share(bits, past),
        "caught": bool((lattice.check(seen) != lattice.check(sent))[(seen != sent).any(-1)].all()),
        "variance": float(error.double().square().mean() / 2.0**-12 * 12),
    }
