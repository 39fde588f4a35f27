"""What rotating blocks before they are coded costs in time and saves in noise, by bits and by how
the differences of models are distributed.

    python benchmarks/rotation.py [--keep]

Noise: the expected squared error of what came in over the squared distance of the two models, both
as exchanges report them, summed over those of a few nodes that go on moving in between. At 50 % an
exchange would undo itself. Time: `swarmsgd bench codec`, in copies of the vector.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from bench import keep, table

from swarmsgd.codec import kernels, make_code
from swarmsgd.codec.bench import bench
from swarmsgd.core.lattice import BLOCK
from swarmsgd.core.segments import Segments

Burst = Callable[[np.random.Generator, int], np.ndarray]
ROW = 256
"""Coordinates of an embedding row."""


def gaussian(rng: np.random.Generator, dim: int) -> np.ndarray:
    return rng.standard_normal(dim, np.float32)


def heavy_tailed(rng: np.random.Generator, dim: int) -> np.ndarray:
    return rng.standard_t(2, dim).astype(np.float32)


def sparse(rng: np.random.Generator, dim: int) -> np.ndarray:
    return gaussian(rng, dim) * (rng.random(dim) < 0.01)


def rows(rng: np.random.Generator, dim: int) -> np.ndarray:
    """2 % of the rows of an embedding, some of them much more than others."""
    count = dim // ROW
    size = (rng.random(count) < 0.02) * np.exp(rng.standard_normal(count))
    return (gaussian(rng, dim).reshape(count, ROW) * size[:, None].astype(np.float32)).reshape(dim)


BURSTS: dict[str, Burst] = {
    "Gaussian": gaussian,
    "Student t, 2 d.o.f.": heavy_tailed,
    "1 % nonzero": sparse,
    "embedding rows": rows,
}


class Node:
    """A model, its code and its burst: no threads, no network."""

    def __init__(self, model: np.ndarray, bits: int, rotation: bool) -> None:
        self.copy = model.copy()
        self.pending = np.zeros_like(model)
        self.code = make_code(model.size, bits, rotation=rotation)

    def train(self, change: np.ndarray) -> None:
        burst_max = np.zeros(-(-change.size // BLOCK), np.float32)
        live = self.copy + np.float32(1e-3) * change
        x = Segments.row(live)
        pending = np.zeros_like(live)
        if not kernels.apply_and_publish(x.addresses, x.starts, pending, self.copy, burst_max):
            raise SystemExit("a model is no longer finite")
        self.code.published(burst_max)


class Room:
    """An allocator that keeps what it gave."""

    bytes: np.ndarray

    def __call__(self, size: int) -> np.ndarray:
        self.bytes = np.empty(size, np.uint8)
        return self.bytes


def noise(
    bits: int, rotation: bool, burst: Burst, options: argparse.Namespace
) -> tuple[float, ...]:
    """Noise over squared distance, and the share of blocks that were left out."""
    rng = np.random.default_rng(0)
    dim = options.blocks * BLOCK
    model = rng.standard_normal(dim, np.float32)
    nodes = [Node(model, bits, rotation) for _ in range(4)]
    noise_sq = distance_sq = left_out = blocks = 0.0
    for step in range(options.exchanges):
        i, j = (nodes[int(node)] for node in rng.permutation(len(nodes))[:2])
        i.train(burst(rng, dim))
        offer, reply = Room(), Room()
        i.code.offer(i.copy, step, offer)
        at_j = j.code.answer(offer.bytes, j.copy, j.pending, step, reply)
        at_i = i.code.mix(reply.bytes, i.copy, i.copy, i.pending)
        if step >= options.exchanges // 3:  # by then the nodes know their distances
            noise_sq += at_i.noise_sq + at_j.noise_sq
            distance_sq += at_i.distance_sq + at_j.distance_sq
            left_out += at_j.left_out
            blocks += at_j.blocks
    return noise_sq / distance_sq, left_out / blocks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bits", nargs="+", type=int, default=[3, 4, 5, 6, 8])
    parser.add_argument("--blocks", type=int, default=32, help="of 4,096 parameters, for the noise")
    parser.add_argument("--exchanges", type=int, default=150)
    parser.add_argument("--size", type=int, default=11_700_000, help="parameters, for the time")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    kernels.prepare()
    figures: dict[str, dict[str, float]] = {}
    lines: list[list[object]] = [
        ["bits", "rotation", *BURSTS, "left out", "offer", "answer", "mix"]
    ]
    for bits in options.bits:
        for rotation in False, True:
            found = {name: noise(bits, rotation, burst, options) for name, burst in BURSTS.items()}
            took = bench(options.size, bits, options.repeats, rotation=rotation)
            row = {f"noise, {name}": ratio for name, (ratio, _) in found.items()}
            row["left_out_most"] = max(share for _, share in found.values())
            row |= {name: took[name] for name in ("offer", "answer", "mix", "copy_s", "bytes")}
            name = f"{bits} bits, {'rotated' if rotation else 'plain'}"
            figures[name] = row
            print(name, row, flush=True)
            lines.append(
                [
                    bits,
                    "on" if rotation else "off",
                    *(f"{100 * ratio:.2g} %" for ratio, _ in found.values()),
                    f"{100 * row['left_out_most']:.1f} %",
                    *(f"{row[step]:.2f}" for step in ("offer", "answer", "mix")),
                ]
            )
    print(table(lines))
    if options.keep:
        print("kept in", keep("rotation", figures))


if __name__ == "__main__":
    main()
