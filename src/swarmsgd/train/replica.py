"""The vectors of one node and the one lock over them: live, copy, pending, and what was offered.

The training thread only ever *tries* the lock and comes back at its next step; the exchange side
holds it for a kernel's length. All vectors are made and touched here, once, in host memory; where
the live one is, and how it is reached, is the business of `staging`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from swarmsgd.core.arena import Arena
from swarmsgd.core.code import Allocate, Bytes, Code, Mixed
from swarmsgd.errors import ModelError
from swarmsgd.train.staging import Host, Way, way_for


class Replica:
    """One named vector of one node: x (live), c (copy) and p (pending), float32 [D].

    What was offered is needed again when the reply comes. As long as the copy has not changed
    since, it is the copy itself; before the first change, `Host.keep_offered` takes a snapshot.
    """

    def __init__(self, arena: Arena, code: Code, way: Way | None = None) -> None:
        self._code = code
        self._way = way or way_for(arena)
        self._host = Host.of(arena.live, self._way.pending())
        self.lock = threading.Lock()

    @property
    def dim(self) -> int:
        """D."""
        return self._host.copy.size

    @property
    def has_pending(self) -> bool:
        """Whether an exchange has added to p since the training thread took it."""
        return self._host.has_pending

    @has_pending.setter
    def has_pending(self, value: bool) -> None:
        self._host.has_pending = value

    @property
    def error(self) -> ModelError | None:
        """What was wrong with a model that `try_publish` took and `land` could not publish."""
        return self._way.error

    # The training thread's side.

    def try_apply(self) -> bool:
        """x += p; p = 0, if the lock is free now and no transfer in the way; whether it was."""
        return self._try(self._way.apply)

    def try_publish(self) -> bool:
        """x += p; p = 0; c = x, if the lock is free now; whether it was. `land` is to follow.

        Raises ModelError, with nothing published, if x is not finite or parameters were moved. If x
        has to come from a device first, it is `error` that says later that it was not finite.
        """
        return self._try(self._publish)

    def _publish(self, host: Host) -> bool:
        self._way.publish(host)
        return True

    def _try(self, act: Callable[[Host], bool]) -> bool:
        if not self.lock.acquire(blocking=False):
            return False
        try:
            return act(self._host)
        finally:
            self.lock.release()

    def settle(self) -> None:
        """x += p; p = 0, waiting for the lock and the device: for where the training thread may
        wait.
        """
        with self.lock:
            self._way.settle(self._host)

    # The exchange side.

    @property
    def landing(self) -> bool:
        """Whether a published model is still on its way to c."""
        return self._way.landing

    def land(self) -> bool:
        """End what `try_publish` began: c = x + p. False if x is not there yet. Never waits."""
        if not self.landing:
            return True
        with self.lock:
            return self._way.land(self._host)

    def offer(self, seed: int, allocate: Allocate) -> Bytes:
        """Encode the published copy; what was offered is remembered for `mix`."""
        host = self._host
        self._code.published(host.burst_max)
        with self.lock:
            host.offer_is_copy = True  # the offer before, if it is still out, is lost
            return self._code.offer(host.copy, seed, allocate)

    def answer(self, offer: Bytes, seed: int, allocate: Allocate) -> tuple[Bytes, Mixed]:
        """Decode an offer, encode the reply, change copy and pending."""
        host = self._host
        with self.lock:
            self._way.make_room()
            host.keep_offered()
            result = self._code.answer(offer, host.copy, host.pending, seed, allocate)
            host.has_pending = True
        return result

    def mix(self, reply: Bytes) -> Mixed:
        """Decode the reply to what was offered, change copy and pending."""
        host = self._host
        with self.lock:
            self._way.make_room()
            offered = host.copy if host.offer_is_copy else host.snapshot
            host.offer_is_copy = False
            host.has_pending = True
            return self._code.mix(reply, offered, host.copy, host.pending)

    def copy_now(self) -> npt.NDArray[np.float32]:
        """A snapshot of the communication copy c, for records and tests."""
        with self.lock:
            return self._host.copy.copy()
