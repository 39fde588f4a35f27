"""The vectors of one node and the one lock over them: live, copy, pending, and what was offered.

The training thread only ever *tries* the lock and comes back at its next step; the exchange side
holds it for a kernel's length. All vectors are made and touched here, once.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from swarmsgd.codec import kernels
from swarmsgd.core.arena import Arena
from swarmsgd.core.code import Allocate, Bytes, Code, Mixed
from swarmsgd.core.lattice import blocks_of
from swarmsgd.errors import ConfigError, ModelError


class Replica:
    """One named vector of one node: x (live), c (copy) and p (pending), float32 [D].

    What was offered is needed again when the reply comes. As long as the copy has not changed
    since, it is the copy itself; before the first change, `_keep_offered` takes a snapshot.
    """

    def __init__(self, arena: Arena, code: Code) -> None:
        if arena.live.device.type != "cpu":
            raise ConfigError(
                f"the model is on {arena.live.device}; this version exchanges models in host "
                "memory only: join with the model on the CPU"
            )
        self._arena = arena
        self._live = arena.live.numpy()
        self._code = code
        self._copy = self._live.copy()
        self._pending = np.zeros_like(self._live)
        self._snapshot = np.zeros_like(self._live)
        self._snapshot.fill(0)  # zeros() alone leaves the pages to be met in the first exchange
        self._pending.fill(0)
        self._offer_is_copy = False
        self._burst_max = np.zeros(blocks_of(arena.dim), np.float32)
        self.lock = threading.Lock()
        self.has_pending = False

    @property
    def dim(self) -> int:
        """D."""
        return self._arena.dim

    # The training thread's side.

    def try_apply(self) -> bool:
        """x += p; p = 0, if the lock is free now; whether it was."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            kernels.apply_pending(self._live, self._pending)
            self.has_pending = False
        finally:
            self.lock.release()
        return True

    def try_publish(self) -> bool:
        """x += p; p = 0; c = x, if the lock is free now; whether it was.

        Raises ModelError, with nothing published, if x is not finite or parameters were moved.
        """
        if not self.lock.acquire(blocking=False):
            return False
        try:
            self._arena.check()
            self._keep_offered()
            finite = kernels.apply_and_publish(
                self._live, self._pending, self._copy, self._burst_max
            )
            self.has_pending = False
        finally:
            self.lock.release()
        if not finite:
            raise ModelError(
                f"the model is no longer finite: {self._arena.first_bad()}. It was not sent to any "
                "peer. A lower learning rate or a warm-up usually helps"
            )
        return True

    def settle(self) -> None:
        """x += p; p = 0, waiting for the lock: for the end, when nobody exchanges any more."""
        with self.lock:
            kernels.apply_pending(self._live, self._pending)
            self.has_pending = False

    # The exchange side.

    def offer(self, seed: int, allocate: Allocate) -> Bytes:
        """Encode the published copy; what was offered is remembered for `mix`."""
        self._code.published(self._burst_max)
        with self.lock:
            self._offer_is_copy = True  # the offer before, if it is still out, is lost
            return self._code.offer(self._copy, seed, allocate)

    def answer(self, offer: Bytes, seed: int, allocate: Allocate) -> tuple[Bytes, Mixed]:
        """Decode an offer, encode the reply, change copy and pending."""
        with self.lock:
            self._keep_offered()
            result = self._code.answer(offer, self._copy, self._pending, seed, allocate)
            self.has_pending = True
        return result

    def mix(self, reply: Bytes) -> Mixed:
        """Decode the reply to what was offered, change copy and pending."""
        with self.lock:
            offered = self._copy if self._offer_is_copy else self._snapshot
            self._offer_is_copy = False
            self.has_pending = True
            return self._code.mix(reply, offered, self._copy, self._pending)

    def _keep_offered(self) -> None:
        """Before the copy changes, under the lock: what is offered stays at hand for its reply."""
        if self._offer_is_copy:
            np.copyto(self._snapshot, self._copy)
            self._offer_is_copy = False

    def copy_now(self) -> npt.NDArray[np.float32]:
        """A snapshot of the communication copy c, for records and tests."""
        with self.lock:
            return self._copy.copy()
