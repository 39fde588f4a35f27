"""What a node's line to the meeting place brings: news of others, or the end of a question."""

from __future__ import annotations

from typing import NamedTuple

from swarmsgd.errors import PeerError


class LineLost(PeerError):
    """The meeting place cannot be reached now."""


class RunHasBegun(Exception):
    """The run goes on, and knows this node as one that comes back: see `Line.welcome`."""


class News(NamedTuple):
    """A node is live, or gone; or arrives, and wants those that it cannot dial to dial it."""

    what: str
    """joined, gone or arriving."""
    node: int
    incarnation: int
    text: str
    """Where it listens; or how it went: left, lost or silent."""
