"""Which address of this machine the other nodes reach."""

from __future__ import annotations

import ipaddress
import socket

from swarmsgd.errors import ConfigError

_OFF_THIS_MACHINE = "192.0.2.1"  # reserved for documentation (RFC 5737): routed, never reached


def route_address(host: str, port: int) -> str:
    """The address of this machine's interface that routes to `host`: where others can reach us.

    Nothing is sent. A loopback host gives a loopback address, with one exception: a host *name*
    that only this machine's own files map to loopback (as Debian does with its own name) means
    nothing to the other machines, so the address of the default route is taken, if there is one.
    Raises ConfigError.
    """
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
    if is_loopback(address) and not _means_this_machine(host):
        return _source(socket.AF_INET, (_OFF_THIS_MACHINE, 9)) or address
    return address


def _source(family: int, remote: tuple[object, ...]) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(remote)
            return probe.getsockname()[0]
    except OSError:
        return None


def is_loopback(address: str) -> bool:
    """Whether nobody outside this machine reaches it."""
    return ipaddress.ip_address(address).is_loopback


def _means_this_machine(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.startswith("localhost")
    return True
