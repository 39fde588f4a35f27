"""The errors of this package, split by whose fault they are.

::

    SwarmError
    ├── ConfigError    you: a setting, a flag, a file that cannot be used   (also a ValueError)
    ├── DataError      you: a data set that is missing or broken
    ├── ModelError     you: the model cannot be exchanged (NaN, moved, unsupported dtype)
    ├── PeerError      they: a peer is gone, silent, or does not match this run
    │   └── LinkClosed     the link to one peer is closed; the others go on
    └── ProtocolError  a message that does not parse, or an event that cannot happen

Every text says what happened, what was got, what was wanted, and the next move.
"""

from __future__ import annotations


class SwarmError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(SwarmError, ValueError):
    """A setting cannot be used; nothing was started."""


class DataError(SwarmError):
    """A data set is missing, truncated or of the wrong kind."""


class ModelError(SwarmError):
    """The model cannot be exchanged: non-finite values, a moved parameter, an unsupported dtype."""


class PeerError(SwarmError):
    """A peer is gone, silent, or runs something that does not match this run."""


class LinkClosed(PeerError):
    """The link to one peer is closed; links to other peers are not affected."""


class ProtocolError(SwarmError):
    """A message that does not parse, or an event the protocol does not allow."""
