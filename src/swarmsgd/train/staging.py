"""Between the live vector x and what the host keeps for exchanges: at once if x is in host memory,
else staged, on the time of the device that x is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from swarmsgd.codec import kernels, publishing, vectors
from swarmsgd.core.arena import Arena
from swarmsgd.core.code import Vector
from swarmsgd.core.lattice import blocks_of
from swarmsgd.errors import ModelError
from swarmsgd.train.transfers import OVER, Event, Transfers, transfers_for


@dataclass(slots=True)
class Host:
    """What a node keeps in host memory, float32 [D]; whoever touches it holds the node's lock."""

    copy: Vector
    """c, what partners average with."""
    pending: Vector
    """p, changes of c that x has not received."""
    snapshot: Vector
    """What was offered, once c has changed since: see `keep_offered`."""
    burst_max: npt.NDArray[np.float32]
    """The largest |change| of the last burst that was published, one value a block."""
    offer_is_copy: bool = False
    has_pending: bool = False

    @classmethod
    def of(cls, live: torch.Tensor, pending: Vector) -> Host:
        """For a node that begins with x = c = live. Every page is touched here."""
        copy = vectors.empty(live.numel())
        np.copyto(copy, live.detach().to("cpu").numpy())
        burst_max = np.zeros(blocks_of(copy.size), np.float32)
        return cls(copy, pending, vectors.zeros(copy.size), burst_max)

    def keep_offered(self) -> None:
        """Before c changes: what is offered stays at hand for its reply."""
        if self.offer_is_copy:
            np.copyto(self.snapshot, self.copy)
            self.offer_is_copy = False


class Way(Protocol):
    """How changes get into x, and x into c. Every call is made under the node's lock.

    `apply` and `publish` are for the training thread and wait for nothing, `settle` for where it
    may wait; `make_room` and `land` are for the exchange thread.
    """

    error: ModelError | None
    """Why a publish that had begun ended without one."""

    @property
    def landing(self) -> bool:
        """Whether a publish has begun that `land` is to end."""
        ...

    def pending(self) -> Vector:
        """The vector that p is at first: zeros."""
        ...

    def apply(self, host: Host) -> bool:
        """x += p; p = 0. False if that cannot be now."""
        ...

    def publish(self, host: Host) -> None:
        """c = x + p: at once, or to be ended by `land`, and as much of x += p; p = 0 as can be now.

        Raises ModelError, with nothing published, if parameters were moved, or if c would not be
        finite and that can be known now.
        """
        ...

    def land(self, host: Host, /) -> bool:
        """End a publish. False if x has not arrived yet: ask again."""
        ...

    def make_room(self) -> None:
        """Before an exchange adds to p: see to it that the training thread can take it."""
        ...

    def settle(self, host: Host) -> None:
        """Wait until all that has begun is over and x += p; p = 0 is done."""
        ...


class Direct:
    """For x in host memory: one compiled pass each."""

    landing = False

    def __init__(self, arena: Arena) -> None:
        self.error: ModelError | None = None
        self._arena = arena
        self._live = arena.live.numpy()

    def pending(self) -> Vector:
        """Zeros; the pages are there, and not met in the first exchange."""
        return vectors.zeros(self._live.size)

    def apply(self, host: Host) -> bool:
        """x += p; p = 0."""
        kernels.apply_pending(self._live, host.pending)
        host.has_pending = False
        return True

    def publish(self, host: Host) -> None:
        """x += p; p = 0; c = x."""
        self._arena.check()
        host.keep_offered()
        finite = kernels.apply_and_publish(self._live, host.pending, host.copy, host.burst_max)
        host.has_pending = False
        if not finite:
            raise _not_finite(self._arena, self._arena.live)

    def land(self, host: Host, /) -> bool:
        """There is never anything to land."""
        return True

    def make_room(self) -> None:
        """There is always room."""

    def settle(self, host: Host) -> None:
        """x += p; p = 0."""
        self.apply(host)


class Staged:
    """For x on a device: takes p there, and x back, on the device's own time.

    Two vectors in host memory take turns: one is p; the other, the *spare*, is empty (zeros), being
    sent, or being filled with x. Taking p is to exchange the two, so the training thread passes
    over no vector.

    From the moment a publish begins until it has landed, p is not taken: what is in it then is just
    what exchanges added to c and x, as it was read, has not. So c = x + p changes c by the local
    progress and no more. Whenever something is pending and nothing is landing, the spare is empty.
    """

    def __init__(self, arena: Arena, transfers: Transfers) -> None:
        self.error: ModelError | None = None
        self._arena = arena
        self._transfers = transfers
        self._given = transfers.host_vector()
        self._spare = transfers.host_vector()
        self._empty = True
        self._sent: Event = OVER
        self._added: Event = OVER
        self._arrived: Event | None = None

    @property
    def landing(self) -> bool:
        """Whether x is on its way from the device."""
        return self._arrived is not None

    def pending(self) -> Vector:
        """Zeros."""
        return self._given.numpy()

    def apply(self, host: Host) -> bool:
        """x += p on the device, p = 0; not while an earlier p is under way, or a publish."""
        if not (self._empty and self._added.query()):
            return False
        self._given, self._spare = self._spare, self._given
        host.pending = self._given.numpy()
        host.has_pending = False
        self._empty = False
        self._sent, self._added = self._transfers.add(self._spare)
        return True

    def publish(self, host: Host) -> None:
        """Have x read, behind p if that can be taken now; else p stays pending, and counts so."""
        self._arena.check()
        if host.has_pending:
            self.apply(host)
        self._arrived = self._transfers.fetch(self._spare)
        self._empty = False

    def land(self, host: Host) -> bool:
        """c = x + p, if x has arrived; if that is not finite, c stays, and `error` says so."""
        if self._arrived is None:
            return True
        if not self._arrived.query():
            return False
        host.keep_offered()
        fresh = self._spare.numpy()
        if not publishing.land(fresh, host.pending, host.copy, host.burst_max):
            fresh += host.pending
            self.error = _not_finite(self._arena, self._spare)
            fresh.fill(0)
            host.burst_max.fill(0)
        self._arrived = None
        self._empty = True
        return True

    def make_room(self) -> None:
        """Empty the spare. Waits for the transfer of a p just taken, which waits for nothing."""
        if self.landing or self._empty:
            return
        self._sent.synchronize()
        self._spare.numpy().fill(0)
        self._empty = True

    def settle(self, host: Host) -> None:
        """Land what was published, x += p; p = 0, and wait for the device."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self.land(host)
        self.make_room()
        self._added.synchronize()
        if host.has_pending:
            self.apply(host)
            self._added.synchronize()


def way_for(arena: Arena) -> Way:
    """By where the model is."""
    if arena.live.device.type == "cpu":
        return Direct(arena)
    return Staged(arena, transfers_for(arena.live))


def _not_finite(arena: Arena, vector: torch.Tensor) -> ModelError:
    return ModelError(
        f"the model is no longer finite: {arena.first_bad(vector)}. It was not sent to any "
        "peer. A lower learning rate or a warm-up usually helps"
    )
