"""How changes get into the live vector x, and x into its copy: the part that knows where x lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from swarmsgd.core.segments import Segments
from swarmsgd.core.wire_code import ApplyAndPublish, ApplyPending, Vector

if TYPE_CHECKING:
    from swarmsgd.core.replica import ExchangedVector


class Way(Protocol):
    """How changes get into x, and x into c. Every call is made under the node's lock.

    `apply` and `publish` are for the training thread and wait for nothing, `settle` and `read` for
    where it may wait; `make_room` and `land` are for the exchange side.
    """

    def landing(self) -> bool:
        """Whether a publish has begun that `land` is to end."""
        ...

    def apply(self, vector: ExchangedVector) -> bool:
        """x += p; p = 0. False if that cannot be now."""
        ...

    def publish(self, vector: ExchangedVector) -> None:
        """Begin c = x + p, and add as much of p to x as can be added now; `land` ends it. Where
        nothing has to be waited for, all is done here.

        Raises ModelError, with nothing published, if c would have diverged and that can be known
        now.
        """
        ...

    def land(self, vector: ExchangedVector) -> bool:
        """End a publish. False if x has not arrived yet: ask again. Raises ModelError, with c as it
        was, if it has diverged.
        """
        ...

    def make_room(self, vector: ExchangedVector) -> None:
        """Before an exchange adds to p: see to it that the training thread can take it."""
        ...

    def settle(self, vector: ExchangedVector) -> None:
        """Wait until all that has begun is over and x += p; p = 0 is done."""
        ...

    def read(self, vector: ExchangedVector) -> Vector:
        """x + p in memory of its own, with x left as it is. Waits as `settle` does."""
        ...


class Direct:
    """The `Way` for x in host memory: one pass each, over a table of where x lies."""

    def __init__(
        self, live: Segments, apply_pending: ApplyPending, apply_and_publish: ApplyAndPublish
    ) -> None:
        self._live = live
        self._apply_pending = apply_pending
        self._apply_and_publish = apply_and_publish

    def landing(self) -> bool:
        """Never."""
        return False

    def apply(self, vector: ExchangedVector) -> bool:
        """x += p; p = 0."""
        live = self._live
        live.pull()
        self._apply_pending(live.addresses, live.starts, vector.pending)
        live.push()
        vector.has_pending = False
        return True

    def publish(self, vector: ExchangedVector) -> None:
        """x += p; p = 0; c = x."""
        vector.keep_offered()
        v, live = vector, self._live
        live.pull()
        published = self._apply_and_publish(
            live.addresses, live.starts, v.pending, v.copy, v.burst_max
        )
        if vector.has_pending:
            live.push()
            vector.has_pending = False
        if not published:
            raise vector.diverged(self.read(vector))

    def land(self, vector: ExchangedVector) -> bool:
        """There is never anything to land."""
        return True

    def make_room(self, vector: ExchangedVector) -> None:
        """There is always room."""

    def settle(self, vector: ExchangedVector) -> None:
        """x += p; p = 0."""
        self.apply(vector)

    def read(self, vector: ExchangedVector) -> Vector:
        """x + p."""
        found = np.empty_like(vector.copy)
        self._live.read(found)
        found += vector.pending
        return found
