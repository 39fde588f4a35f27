"""What the doctor looks at of the way to other machines, from one: its name, its address, the
variables that tell where all meet, the key.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from swarmsgd.errors import ConfigError
from swarmsgd.train.doctor.finding import Finding
from swarmsgd.train.launch import variables
from swarmsgd.train.meet.place import Place
from swarmsgd.transport import addresses
from swarmsgd.transport.interfaces import addresses_of_machine
from swarmsgd.transport.keys import SwarmKey

SLOW_NAMES_S = 1.0
NAMES_S = 6.0
"""How long a name is waited for."""
ANSWER_S = 5.0

T = TypeVar("T")


def own_name() -> Finding:
    """Whether this machine's own name means anything to it."""
    name = socket.gethostname()
    begin = time.monotonic()
    found = _in_time(lambda: socket.getaddrinfo(name, None)[0][4][0], NAMES_S)
    seconds = time.monotonic() - begin
    hosts = f"put `127.0.1.1 {name}` into /etc/hosts"
    if found is None:
        text = f"{name!r} means nothing here"
        return Finding("own name", text, f"other software wants it: {hosts}")
    if seconds > SLOW_NAMES_S:
        text = f"{name!r} took {seconds:.1f} s to resolve"
        return Finding("own name", text, f"names are slow here, which delays starts: {hosts}")
    return Finding("own name", f"{name} is {found}")


def address_finding(meeting: tuple[str, int] | None) -> Finding:
    """Where others reach this machine, and why there."""
    machine = addresses_of_machine()
    has = ", ".join(
        f"{address} ({name})"
        for name, all_ in machine.items()
        for address in all_
        if not addresses.is_loopback(address)
    )
    if meeting is None and not os.environ.get(addresses.VARIABLE):
        found = f"127.0.0.1 in a run on this machine alone; for others it has {has or 'none'}"
        return Finding("address", found)
    address, why = addresses.reached_at(*(meeting or ("127.0.0.1", 9)))
    found = f"others reach this machine at {address} ({why}); it has {has or 'none that is known'}"
    if addresses.is_loopback(address) and meeting and not addresses.is_loopback_name(meeting[0]):
        return Finding("address", found, "nobody outside does: give --address", bad=True)
    return Finding("address", found)


def meeting_place() -> tuple[str, int] | None:
    """Where the environment says that all meet. Raises ConfigError."""
    place = Place.find(os.environ)
    return None if place is None else (place.host, place.port)


def place_variables() -> Iterator[Finding]:
    """What tells a node its place, and whether somebody answers there."""
    names = [*variables.OWN, *variables.OWN.values()]
    ours = [n for n in os.environ if n.startswith("SWARMSGD_") and n != "SWARMSGD_DATA"]
    there = sorted({n for n in names if n in os.environ} | set(ours))
    listed = ", ".join(f"{name}={os.environ[name]}" for name in there)
    if not there:
        yield Finding("variables", "none is set: `swarmsgd launch` and torchrun set them")
        return
    try:
        place = Place.find(os.environ)
    except ConfigError as error:
        move = "mend or unset them: a script would stop at join()"
        yield Finding("variables", f"{listed}: {error}", move, bad=True)
        return
    yield Finding("variables", listed)
    if place is None:
        return
    at = f"{place.host}:{place.port}"
    try:
        socket.create_connection((place.host, place.port), ANSWER_S).close()
        yield Finding("meeting place", f"{at} answers")
    except OSError as error:
        text = f"{at} does not answer ({error.strerror or error})"
        if place.hosted or place.open:
            move = "whoever set these variables is to host it: is that up? Else unset them"
            yield Finding("meeting place", text, move, bad=True)
        else:
            yield Finding("meeting place", text, "right before node 0 is up, wrong afterwards")


def ports(address: str) -> Finding:
    """Whether one can be had at this address, and be reached there from here."""
    with addresses.listener(address, 0) as listening:
        port = listening.getsockname()[1]
        try:
            socket.create_connection((address, port), ANSWER_S).close()
        except OSError as error:
            text = f"{address} cannot be reached even from here: {error.strerror or error}"
            down = error.errno == errno.ENETUNREACH and addresses.is_loopback(address)
            move = "the interface is down: `ip link set lo up`" if down else "a firewall, perhaps"
            return Finding("ports", text, move, bad=True)
    found = f"one can be had at {address}, for instance {port}"
    return Finding("ports", f"{found}; firewalls must let nodes connect to any port of each other")


def key_file(key: SwarmKey | None, given: str | Path | None) -> Finding:
    """Which key it is; all hosts must have the same."""
    if key is None:
        text = "none: links are open to whoever reaches this network"
        return Finding("key", text, "`swarmsgd keygen swarm.key`, unless it is all yours")
    return Finding("key", f"{key.fingerprint} in {given}; must be the same on all hosts")


def _in_time(call: Callable[[], T], seconds: float) -> T | None:
    """What `call` returns, unless it raises OSError or takes too long."""
    found: list[T] = []

    def run() -> None:
        with contextlib.suppress(OSError):
            found.append(call())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else None
