"""How p gets into x, and x into c: directly if x is in host memory, else by transfers that its
device makes when it comes to them.
"""

from __future__ import annotations

from swarmsgd.codec import host_way, kernels, vectors
from swarmsgd.core.replica import ExchangedVector
from swarmsgd.core.segments import Segments
from swarmsgd.core.wire_code import Code, Vector
from swarmsgd.train.node.transfers import OVER, DeviceEvent, Transfers, transfers_for


def exchanged_vector(name: str, live: Segments, code: Code) -> ExchangedVector:
    """A vector x that lies in `live`, with all that is kept for its exchanges; x = c at first.

    All memory is made and touched here, once.
    """
    transfers = None if live.device.type == "cpu" else transfers_for(live)
    return stage(name, live, code, transfers)


def stage(
    name: str,
    live: Segments,
    code: Code,
    transfers: Transfers | None,
) -> ExchangedVector:
    """As `exchanged_vector`; with `transfers` x is on a device, and is never read directly."""
    copy = vectors.empty(live.dim)
    live.read(copy)
    staged = None if transfers is None else Staged(transfers)
    return ExchangedVector(
        name,
        code,
        staged or host_way(live),
        copy=copy,
        pending=staged.given() if staged else vectors.zeros(copy.size),
        snapshot=vectors.zeros(copy.size),
        describe=live.first_bad,
    )


class Staged:
    """For x on a device: takes p there, and x back, on the device's own time.

    Two vectors in host memory take turns: one is p; the other, the *spare*, is empty (zeros), being
    sent, or being filled with x. Taking p is to exchange the two, so the training thread passes
    over no vector.

    From the moment a publish begins until it has landed, p is not taken. So p then holds exactly
    what exchanges added to c and what is missing in the x that was read: c = x + p changes c by the
    local steps alone. Whenever something is pending and nothing is landing, the spare is empty.
    """

    def __init__(self, transfers: Transfers) -> None:
        self._transfers = transfers
        self._given = transfers.host_vector()
        self._spare = transfers.host_vector()
        self._empty = True
        self._sent: DeviceEvent = OVER
        self._added: DeviceEvent = OVER
        self._arrived: DeviceEvent | None = None

    def landing(self) -> bool:
        """Whether x is on its way from the device."""
        return self._arrived is not None

    def given(self) -> Vector:
        """The vector that p is now; zeros at first."""
        return self._given.numpy()

    def apply(self, vector: ExchangedVector) -> bool:
        """x += p on the device, p = 0; not while an earlier p is under way, or a publish."""
        if not (self._empty and self._added.query()):
            return False
        self._given, self._spare = self._spare, self._given
        vector.pending = self._given.numpy()
        vector.has_pending = False
        self._empty = False
        self._sent, self._added = self._transfers.add(self._spare)
        return True

    def publish(self, vector: ExchangedVector) -> None:
        """Begin to read x, behind p if that can be taken now; if not, p stays pending."""
        if vector.has_pending:
            self.apply(vector)
        self._arrived = self._transfers.fetch(self._spare)
        self._empty = False

    def land(self, vector: ExchangedVector) -> bool:
        """c = x + p, if x has arrived. Raises ModelError, with c as it was, if it has diverged."""
        if self._arrived is None:
            return True
        if not self._arrived.query():
            return False
        vector.keep_offered()
        fresh = self._spare.numpy()
        landed = kernels.land(fresh, vector.pending, vector.copy, vector.burst_max)
        self._arrived = None
        self._empty = True
        if not landed:
            error = vector.diverged(fresh + vector.pending)
            fresh.fill(0)
            vector.burst_max.fill(0)
            raise error
        return True

    def make_room(self, vector: ExchangedVector) -> None:
        """Empty the spare. If it is a p just taken, wait for its transfer, which waits for nothing
        itself.
        """
        if self._arrived is not None or self._empty:
            return
        self._sent.synchronize()
        self._spare.numpy().fill(0)
        self._empty = True

    def settle(self, vector: ExchangedVector) -> None:
        """Land what was published, x += p; p = 0, and wait for the device."""
        self._quiet(vector)
        if vector.has_pending:
            self.apply(vector)
            self._added.synchronize()

    def read(self, vector: ExchangedVector) -> Vector:
        """x + p, when what has begun is over."""
        self._quiet(vector)
        self._transfers.fetch(self._spare).synchronize()
        spare = self._spare.numpy()
        found = spare + vector.pending
        spare.fill(0)
        return found

    def _quiet(self, vector: ExchangedVector) -> None:
        """Land what was published; the spare is empty, and x has every p that was taken."""
        if self._arrived is not None:
            self._arrived.synchronize()
            self.land(vector)
        self.make_room(vector)
        self._added.synchronize()
