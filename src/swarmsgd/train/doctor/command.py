"""`swarmsgd doctor`: look at everything, print what was found, say what to do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from swarmsgd.errors import ConfigError
from swarmsgd.observe.console import bytes_text
from swarmsgd.train.doctor import machine, network
from swarmsgd.train.doctor.finding import Check, Finding, findings
from swarmsgd.train.doctor.links import LISTENER, End, LinkQuality, any_number, listen, measure
from swarmsgd.train.launch.variables import KEY
from swarmsgd.train.meet.key import find_key
from swarmsgd.transport import addresses

CLOCK_S = 1.0
SLOW = 1.25e6
"""Bytes a second (10 Mbit/s)."""


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """What it is asked to look at."""

    parameters: int = 25_000_000
    nodes: int = 1
    key: Path | None = None
    address: str | None = None
    other: str | None = None
    """HOST:PORT of a doctor that listens."""

    def run(self) -> int:
        """Print what is found; 1 if anything is to be done, else 0."""
        bad = 0
        for what, check in self._checks():
            for finding in findings(what, check):
                print(finding, flush=True)
                bad += finding.bad
        print(f"\n{bad} thing{'s' * (bad != 1)} to do, see above" if bad else "\nnothing to do")
        return 1 if bad else 0

    def listen(self) -> int:
        """Wait for other doctors until Ctrl-C."""
        address = addresses.loopback() if self.address is None else self._own()
        if self.address is None and (outer := addresses.outer_addresses()):
            address = outer[0][1]
        key = find_key(self.key)
        end = End(address, key, LISTENER)
        more = "" if key is None else " --key FILE (the same)"
        print(
            f"listening. On the other machine: swarmsgd doctor --with {at(end)}{more}", flush=True
        )
        print("(at another address of this machine: --address; Ctrl-C ends this)", flush=True)
        try:
            with contextlib.suppress(KeyboardInterrupt):
                listen(end)
        finally:
            end.transport.close()
        return 0

    def _own(self) -> str:
        assert self.address is not None
        return addresses.own_address(self.address, "--address")

    def _checks(self) -> Iterator[tuple[str, Check]]:
        yield "versions", machine.versions
        yield "cores", lambda: machine.cores(self.nodes)
        yield "memory", lambda: machine.memory(self.parameters, self.nodes)
        yield "limits", lambda: machine.bounds(self.nodes)
        yield "disk", lambda: machine.disks(Path.cwd())
        yield "kernels", machine.kernels
        yield "own name", network.own_name
        yield "variables", network.place_variables
        yield "address", lambda: network.address_finding(self._meeting())
        yield "ports", lambda: network.ports(self._address())
        given = self.key or os.environ.get(KEY)
        yield "key", lambda: network.key_file(find_key(self.key), given)
        if self.other is not None:
            yield "link", self._link

    def _meeting(self) -> tuple[str, int] | None:
        """Where the way to others leads."""
        if self.other is not None:
            return place_of(self.other)
        try:
            return network.meeting_place()
        except ConfigError:  # told with the variables
            return None

    def _address(self) -> str:
        if self.address is not None:
            return self._own()
        meeting = self._meeting()
        return addresses.loopback() if meeting is None else addresses.route_address(*meeting)

    def _link(self) -> Iterator[Finding]:
        assert self.other is not None
        host, port = place_of(self.other)
        key, address = find_key(self.key), self._address()
        end, back = End(address, key, any_number()), End(address, key, any_number())
        try:
            found = measure(end, f"tcp://{f'[{host}]' if ':' in host else host}:{port}", back)
        finally:
            end.transport.close()
            back.transport.close()
        yield from self._of_link(found, address)

    def _of_link(self, link: LinkQuality, address: str) -> Iterator[Finding]:
        mine = machine.own_version()
        if link.peer != mine:
            text = f"{link.peer} there, {mine} here"
            yield Finding("versions", text, "have the same swarmsgd on all hosts", bad=True)
        size = self.parameters  # 8 bits a parameter
        slower = min(link.there, link.back)
        text = (
            f"{1e3 * link.round_trip_s:.2f} ms there and back; {bytes_text(link.there)}/s there, "
            f"{bytes_text(link.back)}/s back: {size:,} parameters in 8 bits take "
            f"{size / slower:.2f} s each way"
        )
        move = "slow: fewer --bits, or a larger --local-steps" if slower < SLOW else ""
        yield Finding("link", text, move)
        if link.dialled_back:
            move = f"let {address} be reached at any port, or name another by --address"
            text = f"the other end cannot dial this one: {link.dialled_back}"
            yield Finding("way back", text, move, bad=True)
        else:
            yield Finding("way back", f"the other end reaches this one at {address}")
        move = "set them (NTP): records of the two do not fit together" if (
            abs(link.clock_s) > CLOCK_S
        ) else ""  # fmt: skip
        yield Finding("clocks", f"the other one is {link.clock_s:+.3f} s off", move)


def place_of(text: str) -> tuple[str, int]:
    """Of HOST:PORT. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ConfigError(
            f"--with is {text!r}, wanted HOST:PORT as `swarmsgd doctor --listen` prints it"
        )
    return host, int(port)


def at(end: End) -> str:
    """HOST:PORT of an end."""
    return end.transport.endpoint.removeprefix("tcp://")
