"""How long the codes take on this machine, next to a plain copy of the vector."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from swarmsgd.codec import make_code, rotates
from swarmsgd.codec.vectors import zeros
from swarmsgd.core.wire_code import Bytes
from swarmsgd.seeds import fixed


def bench(
    size: int, bits: int | None, repeats: int = 15, *, rotation: bool | None = None
) -> dict[str, float]:
    """Medians over `repeats` exchanges of a pair of models of `size` parameters.

    Keys: `copy_s`, `offer_s`, `answer_s`, `mix_s`, in seconds of this thread's processor time; the
    last three in copies as `offer`, `answer` and `mix`; `bytes` of a payload a parameter;
    `rotation`, whether blocks were rotated. They are measured in turn, so that what else the
    machine does hits all of them alike.
    """
    rng = fixed()
    start_i = rng.standard_normal(size, np.float32)
    start_j = start_i + np.float32(0.01) * rng.standard_normal(size, np.float32)
    i, j, target, pending_i, pending_j = (zeros(size) for _ in range(5))
    code_i, code_j = (make_code(size, bits, rotation=rotation) for _ in range(2))
    room_i, room_j = _Room(size), _Room(size)
    times: dict[str, list[float]] = {"copy": [], "offer": [], "answer": [], "mix": []}

    steps: dict[str, Callable[[], object]] = {
        "copy": lambda: np.copyto(target, i),
        "offer": lambda: code_i.offer(i, seed, room_i),
        "answer": lambda: code_j.answer(room_i.last, j, pending_j, seed, room_j),
        "mix": lambda: code_i.mix(room_j.last, i, i, pending_i),
    }
    for seed in range(repeats + 1):
        i[:], j[:] = start_i, start_j
        for name, step in steps.items():
            begun = time.thread_time()
            step()
            if seed > 0:  # the first offer goes as float32, and every page is met
                times[name].append(time.thread_time() - begun)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    return {
        **{f"{name}_s": median for name, median in medians.items()},
        **{name: medians[name] / medians["copy"] for name in ("offer", "answer", "mix")},
        "bytes": room_i.last.size / size,
        "rotation": rotates(bits, rotation),
    }


class _Room:
    """An allocator that hands out the same memory each time."""

    def __init__(self, size: int) -> None:
        self._bytes = np.zeros(5 * size + 4096, np.uint8)
        self.last = self._bytes

    def __call__(self, size: int) -> Bytes:
        self.last = self._bytes[:size]
        return self.last
