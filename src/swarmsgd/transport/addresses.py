"""Which address of this machine the other nodes reach."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from typing import NamedTuple

from swarmsgd.errors import ConfigError
from swarmsgd.transport.interfaces import addresses_of_machine, outer_addresses

VARIABLE = "SWARMSGD_ADDRESS"
"""Names the address, or the interface that has it, where the choice here is not the right one."""
_OFF_THIS_MACHINE = "192.0.2.1"  # reserved for documentation (RFC 5737): routed, never reached


class Reached(NamedTuple):
    """Where the others reach this machine, and why there."""

    address: str
    why: str


def route_address(host: str, port: int) -> str:
    """The address at which others reach this machine: see `reached_at`."""
    return reached_at(host, port).address


def reached_at(host: str, port: int) -> Reached:
    """What SWARMSGD_ADDRESS says, or else the address of the interface that routes to `host`, where
    all nodes meet.

    Nothing is sent. A loopback host gives a loopback address, with one exception: a host *name*
    that only this machine's own files map to loopback (as Debian does with its own name) means
    nothing to the other machines, so the address of the default route is taken, or else the first
    of an interface to the outside, if there is one. Raises ConfigError.
    """
    if given := os.environ.get(VARIABLE):
        return Reached(own_address(given, VARIABLE), f"{VARIABLE} says so")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise ConfigError(
            f"cannot resolve {host!r}: {error.strerror or error}. Pass the address of the machine "
            "that hosts the store as MASTER_ADDR"
        ) from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)  # all nodes must choose one family
    address = next((a for entry in found if (a := _source(entry[0], entry[4]))), None)
    if address is None:
        raise ConfigError(
            f"no interface of this machine routes to {host}:{port}. Check the network, or pass "
            "an address that this machine can reach as MASTER_ADDR"
        )
    if not is_loopback(address) or _means_this_machine(host):
        return Reached(address, f"it routes to {host}")
    here = f"here {host} is {address}, which is nothing to others"
    if default := _source(socket.AF_INET, (_OFF_THIS_MACHINE, 9)):
        return Reached(default, f"it has the default route: {here}")
    for interface, outer in outer_addresses():
        return Reached(outer, f"{interface} leads outside: {here}")
    return Reached(address, f"{here}, but there is no other")


def own_address(given: str, name: str) -> str:
    """An address of this machine by itself, a host's name or an interface's. Raises ConfigError,
    calling it `name`, for one that nothing can listen at here.
    """
    machine = addresses_of_machine()
    if given in machine:
        return machine[given][0]
    with contextlib.suppress(OSError):
        for family, *_, place in socket.getaddrinfo(given, 0, type=socket.SOCK_DGRAM):
            with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.bind(place)
                return str(place[0])
    has = [f"{address} ({name})" for name, all_ in machine.items() for address in all_]
    raise ConfigError(
        f"{name} is {given!r}, wanted an address or interface of this machine, which has "
        f"{', '.join(has) or 'none that is known'}: nodes listen there themselves"
    )


def loopback() -> str:
    """127.0.0.1, or what stands for it on a machine with IPv6 alone, or none of both."""
    for address in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError), listener(address, 0):
            return address
    outer = outer_addresses()
    return outer[0][1] if outer else "127.0.0.1"


def listener(address: str, port: int) -> socket.socket:
    """A TCP socket that listens at an address or a name, "" for all of both families. Raises
    OSError.
    """
    both = not address and socket.has_dualstack_ipv6()
    family, place = (socket.AF_INET6 if both else socket.AF_INET), (address, port)
    if address:
        family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    try:
        return socket.create_server(place, family=family, backlog=4096, dualstack_ipv6=both)
    except OSError as error:  # whose text has the address in it
        number = error.errno or 0
        raise OSError(number, os.strerror(number)) from None


def _source(family: int, remote: tuple[object, ...]) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(remote)
            return probe.getsockname()[0]
    except OSError:
        return None


def is_ipv4(host: str) -> bool:
    """Whether it is such an address, and no name."""
    try:
        return ipaddress.ip_address(host).version == 4
    except ValueError:
        return False


def is_loopback(address: str) -> bool:
    """Whether nobody outside this machine reaches it."""
    return ipaddress.ip_address(address).is_loopback


def is_loopback_name(host: str) -> bool:
    """Whether an address or a name means this machine on every machine."""
    try:
        return is_loopback(host)
    except ValueError:
        return host.startswith("localhost")


def _means_this_machine(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.startswith("localhost")
    return True
