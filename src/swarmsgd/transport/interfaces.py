"""The addresses that this machine has, as far as the system tells (Linux)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path

try:
    import fcntl
except ImportError:  # not Unix
    fcntl = None

SIOCGIFADDR = 0x8915
"""Linux: the IPv4 address of an interface, by name."""
INNER = ("docker", "br-", "veth", "virbr", "cni", "flannel", "cali", "tun", "tap")
"""Prefixes of interfaces that lead to what runs on this machine, or through a tunnel."""


def addresses_of_machine() -> dict[str, list[str]]:
    """Interface -> its addresses that are good beyond this link, IPv4 first; {} where unknown."""
    if fcntl is None:
        return {}
    found: dict[str, list[str]] = {}
    for _, name in socket.if_nameindex():
        if (address := _ipv4(name)) is not None:
            found.setdefault(name, []).append(address)
    for name, address in _ipv6():
        found.setdefault(name, []).append(address)
    return found


def outer_addresses() -> list[tuple[str, str]]:
    """(interface, address) of those at which other machines may reach this one."""
    return [
        (name, address)
        for name, addresses in addresses_of_machine().items()
        for address in addresses
        if not name.startswith(INNER) and not ipaddress.ip_address(address).is_loopback
    ]


def _ipv4(name: str) -> str | None:
    assert fcntl is not None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            got = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:  # it has none, or this is not Linux
            return None
    return socket.inet_ntoa(got[20:24])


def _ipv6(listing: Path = Path("/proc/net/if_inet6")) -> list[tuple[str, str]]:
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return []
    found = [
        (line.split()[5], ipaddress.IPv6Address(bytes.fromhex(line.split()[0]))) for line in lines
    ]
    return [(name, str(address)) for name, address in found if not address.is_link_local]
