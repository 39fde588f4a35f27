"""What a node's exchange machine is told, and what it asks of its driver: values, nothing else.

`ExchangeId` names an exchange, `peer` is a node id.
"""

from __future__ import annotations

from typing import NamedTuple

from swarmsgd.core.messages import ExchangeId

# Events: what happened.


class BurstEnded(NamedTuple):
    """A burst ended and was published: ask somebody."""


class Unsent(NamedTuple):
    """The offer could not leave: the partner cannot have mixed."""

    peer: int
    exchange: ExchangeId


class Offered(NamedTuple):
    """An offer came in."""

    peer: int
    exchange: ExchangeId


class Replied(NamedTuple):
    """A reply came in."""

    peer: int
    exchange: ExchangeId


class Refused(NamedTuple):
    """The partner says it mixed nothing."""

    peer: int
    exchange: ExchangeId


class Spoiled(NamedTuple):
    """What Answer or Mix named could not be mixed: its bytes were wrong."""

    exchange: ExchangeId


class Gone(NamedTuple):
    """The link to `peer` is closed. If it `left` it said so, behind its last reply."""

    peer: int
    left: bool = False


class Done(NamedTuple):
    """`peer` starts no exchange any more in this phase (see `matching`)."""

    peer: int
    phase: int


class Tick(NamedTuple):
    """Time has passed."""


Event = BurstEnded | Unsent | Offered | Replied | Refused | Spoiled | Gone | Done | Tick

# Effects: what the driver shall do, in this order.


class SendOffer(NamedTuple):
    """Encode the copy, keep what was sent, send it."""

    peer: int
    exchange: ExchangeId


class Answer(NamedTuple):
    """Decode the kept offer, mix, send the reply."""

    peer: int
    exchange: ExchangeId


class Mix(NamedTuple):
    """Decode the kept reply, mix."""

    peer: int
    exchange: ExchangeId


class Refuse(NamedTuple):
    """Tell `peer` that nothing was mixed; forget the kept offer."""

    peer: int
    exchange: ExchangeId
    reason: str


class Discard(NamedTuple):
    """Forget the kept message; nobody waits for it."""

    peer: int
    exchange: ExchangeId


class Release(NamedTuple):
    """The node is free for the next exchange."""


class Announce(NamedTuple):
    """Tell all peers that this node starts no exchange any more in this phase."""

    phase: int


Effect = SendOffer | Answer | Mix | Refuse | Discard | Release | Announce
