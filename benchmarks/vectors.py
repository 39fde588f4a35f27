"""What a second vector in an exchange costs: an offer, an answer and a mix, and the publish before
them, with the model alone and with one optimizer state beside it; one process, one thread,
interleaved.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time

import numpy as np
from bench import keep, table

from swarmsgd.codec import host_way, make_code, vectors
from swarmsgd.core.messages import Draft, ExchangeId, Kind, parse_message
from swarmsgd.core.replica import ExchangedVector, Replica
from swarmsgd.core.segments import Segments

EXCHANGE = ExchangeId(0, 0, 1)


def replica(seed: int, count: int, dim: int, bits: int | None) -> Replica:
    """`count` vectors, each a little apart from those of another seed."""
    made: list[ExchangedVector] = []
    for index in range(count):
        start = np.random.default_rng(index).standard_normal(dim, np.float32)
        start += np.float32(0.01) * np.random.default_rng([seed, index]).standard_normal(dim)
        live, copy = vectors.empty(dim), vectors.empty(dim)
        live[:] = copy[:] = start
        pending, snapshot = vectors.zeros(dim), vectors.zeros(dim)
        made.append(
            ExchangedVector(
                f"vector {index}",
                make_code(dim, bits),
                host_way(Segments.row(live)),
                copy=copy,
                pending=pending,
                snapshot=snapshot,
            )
        )
    return Replica(made, threading.Lock())


class Pair:
    """Two replicas that exchange; the buffers of messages are used again, as a transport's are."""

    def __init__(self, count: int, dim: int, bits: int | None) -> None:
        self.count = count
        self.i, self.j = (replica(seed, count, dim, bits) for seed in (1, 2))
        self._pool = [np.zeros(count * (5 * dim + 4096), np.uint8) for _ in range(2)]
        self.bytes = 0

    def exchange(self, seed: int) -> float:
        """One, after a publish of either end; seconds."""
        drafts = [Draft(self.count, lambda size, pool=pool: pool[:size]) for pool in self._pool]
        begin = time.perf_counter()
        for end in (self.i, self.j):
            end.try_publish()
        self.i.offer(seed, drafts[0])
        offer = drafts[0].finish(Kind.OFFER, 1, 0, 0, EXCHANGE)
        self.j.answer(parse_message(offer).sections, seed + 1, drafts[1])
        reply = drafts[1].finish(Kind.REPLY, 1, 1, 0, EXCHANGE)
        self.i.mix(parse_message(reply).sections)
        took = time.perf_counter() - begin
        self.bytes = len(offer)
        return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=11_700_000)
    parser.add_argument("--bits", nargs="+", default=["none", "8", "4"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--keep", action="store_true", help="write the record")
    options = parser.parse_args()
    rows = [["bits", "one, ms", "two, ms", "time ratio", "bytes ratio"]]
    figures: dict[str, dict[str, float]] = {}
    for text in options.bits:
        bits = None if text == "none" else int(text)
        pairs = [Pair(count, options.size, bits) for count in (1, 2)]
        times: list[list[float]] = [[], []]
        for number in range(options.repeats + 2):
            for pair, found in zip(pairs, times, strict=True):
                found.append(pair.exchange(2 * number))
        one, two = (statistics.median(found[2:]) for found in times)  # the first meet every page
        grown = pairs[1].bytes / pairs[0].bytes
        figures[text] = {"one_s": one, "two_s": two, "time": two / one, "bytes": grown}
        row = [text, f"{1e3 * one:.1f}", f"{1e3 * two:.1f}", f"{two / one:.2f}", f"{grown:.2f}"]
        rows.append(row)
    print(table(rows))
    if options.keep:
        keep("vectors", figures)


if __name__ == "__main__":
    main()
