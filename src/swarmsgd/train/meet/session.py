"""What is known of one run at its meeting place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Client = bytes
"""Names a connection."""
Said = dict[str, Any]


@dataclass(slots=True)
class Member:
    """A node that is in a run."""

    id: int
    incarnation: int
    client: Client
    heard: float
    endpoint: str = ""
    """Where others dial it; told when it is live."""
    live: bool = False
    away_since: float | None = None
    means: int = 0
    """Of the run's means, how many it took part in or was not there for."""
    silent: bool = False

    @property
    def there(self) -> bool:
        """Whether others wait for it."""
        return self.live and not self.silent

    def entry(self) -> list[Any]:
        """It, as others are told."""
        return [self.id, self.incarnation, self.endpoint]


@dataclass(slots=True)
class Room:
    """Where nodes meet once."""

    who: str | list[int]
    """all (of a fixed list), live, or some nodes."""
    begins: bool
    values: dict[int, Any] = field(default_factory=dict)
    asked: dict[int, tuple[Client, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Session:
    """One run."""

    token: str
    size: int | None
    """How many nodes it has; None for an open swarm."""
    begun: bool = False
    facts: Any = None
    """What who comes later must have alike."""
    members: dict[int, Member] = field(default_factory=dict)
    incarnations: dict[int, int] = field(default_factory=dict)
    next_id: int = 0
    rooms: dict[str, Room] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    """Nodes of a fixed list that ended before the run began."""
    to_blame: list[int] = field(default_factory=list)
    """Those of them for which the others gave up."""
    left: set[int] = field(default_factory=set)
    """Nodes of a fixed list that left in order, once all have gone."""
    founder: int | None = None
    arrivals: list[tuple[Client, Said]] = field(default_factory=list)
    """Who waits for an open swarm to begin."""
    serial: int = 0
    means: int = 0
    mean_of: list[int] = field(default_factory=list)
    """Who took part in the last of them; empty if that was told to another store."""

    @property
    def awaits(self) -> bool:
        """Whether nodes of a fixed list were never here."""
        return self.size is not None and len(self.incarnations) < self.size

    def live(self) -> list[Member]:
        return [m for _, m in sorted(self.members.items()) if m.live]

    def wanted(self, room: Room) -> set[int]:
        """Who must be in the room."""
        if room.who == "all":
            return set(range(self.size or 0))
        there = {m.id for m in self.members.values() if m.there}
        return there if room.who == "live" else there.intersection(room.who)
