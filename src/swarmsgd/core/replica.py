"""The vectors of one node that are exchanged: the model first, then optimizer state by name.

Each has a live vector x (the user's, wherever its parts lie), a copy c, a pending p and a code with
cells of its own. An exchange mixes all of them or none. This is the whole story from "a step was
made" to "mixed", but for whom to ask (`core.node`) and how bytes travel:

* the training thread adds p to x at each step boundary and, at a burst's end, publishes c = x. It
  only ever *tries* the lock, and comes back at its next step;
* the exchange side offers c, answers offers and mixes replies, under the lock.

A code returns a change, added to c and p: whatever x has become meanwhile, both ends change by
exact opposites, so the sum of all copies stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from swarmsgd.core import arithmetic
from swarmsgd.core.lattice import blocks_of
from swarmsgd.core.live_vector import Way
from swarmsgd.core.messages import Draft, Section
from swarmsgd.core.outliers import Outliers
from swarmsgd.core.wire_code import (
    Allocate,
    Bytes,
    Code,
    Figures,
    Mixed,
    Vector,
)
from swarmsgd.errors import ModelError, ProtocolError

Alter = Callable[[Vector], None]
"""Alters a change [D] in place before it is applied: a clip, a weight, an outer step. It must be
odd, f(-change) = -f(change), and the same on all nodes, or the sum of models drifts."""


class Lock(Protocol):
    """As `threading.Lock`; the driver's, since the core has no threads."""

    def acquire(self, blocking: bool = ...) -> bool:
        """Whether it was taken."""
        ...

    def release(self) -> None:
        """Give it back."""
        ...

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: Any, error: Any, traceback: Any, /) -> Any: ...


def _somewhere(_vector: Vector) -> str:
    return "it holds NaN or Inf"


class ExchangedVector:
    """One named vector of one node: c (copy) and p (pending), float32 [D] each, and by its `way` x.

    What was offered is needed again when the reply comes. As long as the copy has not changed
    since, it is the copy itself; before the first change it is kept, in `snapshot` if that was made
    beforehand.
    """

    __slots__ = (
        "_describe",
        "alter",
        "bits",
        "burst_max",
        "code",
        "copy",
        "has_pending",
        "name",
        "offered",
        "outliers",
        "pending",
        "snapshot",
        "way",
    )

    def __init__(
        self,
        name: str,
        code: Code,
        way: Way,
        *,
        copy: Vector,
        pending: Vector,
        snapshot: Vector | None = None,
        describe: Callable[[Vector], str] = _somewhere,
    ) -> None:
        self.name = name
        self.code = code
        self.bits = code.bits
        self.copy = copy
        self.pending = pending
        self.snapshot = snapshot
        self.offered: Vector | None = None
        self.has_pending = False
        """Whether an exchange has added to p since the training thread took it."""
        self.burst_max: Figures = np.zeros(blocks_of(copy.size), np.float32)
        """The largest |change| of the last burst that was published, one value a block."""
        self.alter: Alter | None = None
        self.outliers: Outliers | None = None
        self.way = way
        self._describe = describe

    def diverged(self, vector: Vector) -> ModelError:
        """The error for values that are NaN or beyond `lattice.PUBLISHED`, and where."""
        return ModelError(
            f"the {self.name} has diverged: {self._describe(vector)}. It was not sent to "
            "any peer. A lower learning rate or a warm-up usually helps"
        )

    def keep_offered(self) -> None:
        """Before c changes: what is offered stays at hand for its reply."""
        if self.offered is self.copy:
            if self.snapshot is None:
                self.offered = self.copy.copy()
            else:
                np.copyto(self.snapshot, self.copy)
                self.offered = self.snapshot

    def offer(self, seed: int, allocate: Allocate) -> None:
        """Encode the published copy; what was offered is remembered for `mix`."""
        self.code.published(self.burst_max)
        self.offered = self.copy  # the offer before, if it is still out, is lost
        self.code.offer(self.copy, seed, allocate)

    def answer(self, offer: Bytes, seed: int, allocate: Allocate) -> Mixed:
        """Decode an offer, encode the reply, change copy and pending."""
        self.way.make_room(self)
        self.keep_offered()
        self.has_pending = True
        if self.alter is None and self.outliers is None:
            return self.code.answer(offer, self.copy, self.pending, seed, allocate)
        change, learned = np.zeros_like(self.copy), self.code.learned()
        mixed = self.code.answer(offer, self.copy.copy(), change, seed, allocate)
        self._apply(change, mixed, learned)
        return mixed

    def mix(self, reply: Bytes) -> Mixed:
        """Decode the reply to what was offered, change copy and pending."""
        self.way.make_room(self)
        offered, self.offered = self.offered, None
        assert offered is not None
        self.has_pending = True
        if self.alter is None and self.outliers is None:
            return self.code.mix(reply, offered, self.copy, self.pending)
        change, mixed, learned = np.zeros_like(self.copy), None, self.code.learned()
        try:
            mixed = self.code.mix(reply, offered, self.copy.copy(), change)
            return mixed
        finally:  # sound blocks are mixed even if another one is damaged
            self._apply(change, mixed, learned)

    def _apply(self, change: Vector, mixed: Mixed | None, learned: Figures | None) -> None:
        """Raises ProtocolError, with nothing applied or `learned`, for an outlier."""
        if self.outliers is not None and mixed is not None:
            try:
                self.outliers.check(mixed.distance_sq)
            except ProtocolError:
                if learned is not None:  # or all that follows were coded in such wide cells
                    self.code.learn(learned)
                raise
        if self.alter is not None:
            self.alter(change)
        arithmetic.mix(self.copy, self.pending, change)


class Replica:
    """The exchanged vectors of one node, and the one lock over them."""

    __slots__ = ("error", "lock", "vectors")

    def __init__(self, vectors: Sequence[ExchangedVector], lock: Lock) -> None:
        self.vectors = tuple(vectors)
        self.error: ModelError | None = None
        """What was wrong with a model that `try_publish` took and `land` could not publish."""
        self.lock = lock

    @property
    def has_pending(self) -> bool:
        """Whether an exchange has added to any p since the training thread took it."""
        if len(self.vectors) == 1:  # asked at every step
            return self.vectors[0].has_pending
        return any(vector.has_pending for vector in self.vectors)

    # The training thread's side.

    def try_apply(self) -> bool:
        """x += p; p = 0, if the lock is free now and no transfer in the way; whether it was."""
        if not self.lock.acquire(False):
            return False
        try:
            done = True
            for vector in self.vectors:
                if vector.has_pending:
                    done &= vector.way.apply(vector)
            return done
        finally:
            self.lock.release()

    def try_publish(self) -> bool:
        """x += p; p = 0; c = x, if the lock is free now; whether it was. `land` is to follow.

        Raises ModelError, with nothing published, if x has diverged. If x has to come from a
        device first, it is `error` that says later that it had.
        """
        if not self.lock.acquire(False):
            return False
        try:
            for vector in self.vectors:
                vector.way.publish(vector)
            return True
        finally:
            self.lock.release()

    def settle(self) -> None:
        """x += p; p = 0, waiting for the lock and the device: for where the training thread may
        wait.
        """
        with self.lock:
            for vector in self.vectors:
                vector.way.settle(vector)

    def read(self, index: int = 0) -> Vector:
        """x + p of one vector, with x left as it is; may wait as `settle` does."""
        with self.lock:
            return self.vectors[index].way.read(self.vectors[index])

    # The exchange side.

    @property
    def landing(self) -> bool:
        """Whether a published vector is still on its way to its copy."""
        return any(vector.way.landing() for vector in self.vectors)

    def land(self) -> bool:
        """End what `try_publish` began: c = x + p. False if x is not there yet. Never waits."""
        done = True
        for vector in self.vectors:
            if vector.way.landing():
                with self.lock:
                    try:
                        done &= vector.way.land(vector)
                    except ModelError as error:
                        self.error = error
        return done

    def offer(self, seed: int, draft: Draft) -> None:
        """Write a section for each vector to `draft`. Vector number i has the seed `seed` + i 2^32,
        so that no two have the same offsets.
        """
        with self.lock:
            for index, vector in enumerate(self.vectors):
                vector.offer(seed | index << 32, draft.allocator(index, vector.bits))

    def answer(self, offer: Sequence[Section], seed: int, draft: Draft) -> Mixed:
        """Mix an offer's sections, one for each vector, and write those of the reply.

        Raises ProtocolError, with nothing mixed, for bytes that no peer of this run sends.
        """
        with self.lock:
            if len(self.vectors) > 1:  # else the code's own check comes before any change
                for vector, section in zip(self.vectors, offer, strict=True):
                    vector.code.check_offer(section.payload)
            seen: list[Mixed] = []
            for index, vector in enumerate(self.vectors):
                allocate = draft.allocator(index, vector.bits)
                payload = offer[index].payload
                seen.append(vector.answer(payload, seed | index << 32, allocate))
        return _together(seen)

    def mix(self, reply: Sequence[Section]) -> Mixed:
        """Mix a reply's sections.

        Raises ProtocolError if one of them is damaged, in the end: what is sound is mixed, as the
        partner has mixed it.
        """
        seen: list[Mixed] = []
        broken: ProtocolError | None = None
        with self.lock:
            for vector, section in zip(self.vectors, reply, strict=True):
                try:
                    seen.append(vector.mix(section.payload))
                except ProtocolError as error:  # the other vectors come first
                    broken = error
        if broken is not None:
            raise broken
        return _together(seen)

    def part(self, index: int, start: int, nbytes: int) -> Bytes:
        """Bytes of one vector's copy c, as they are now: for a node that arrives."""
        with self.lock:
            return self.vectors[index].copy.view(np.uint8)[start : start + nbytes].copy()

    def copy_now(self, index: int = 0) -> Vector:
        """A snapshot of one vector's copy c, for records and tests."""
        with self.lock:
            return self.vectors[index].copy.copy()


def _together(seen: Sequence[Mixed]) -> Mixed:
    """What the vectors of one exchange saw: distance, noise and cell are the model's (the first
    one's), blocks are those of all.
    """
    if len(seen) == 1:
        return seen[0]
    return seen[0]._replace(
        blocks=sum(m.blocks for m in seen),
        left_out=sum(m.left_out for m in seen),
        float32_blocks=sum(m.float32_blocks for m in seen),
    )
