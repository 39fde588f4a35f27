"""Hosts on one machine: network namespaces on a bridge, each behind a link of a wanted rate. Needs
root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from types import TracebackType
from typing import Self


def available() -> str:
    """ "" if namespaces can be made here, else why not."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [tool for tool in ("ip", "tc") if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)}"
    probe = f"swp{os.getpid()}"
    made = subprocess.run(
        ["ip", "netns", "add", probe], capture_output=True, text=True, check=False
    )
    if made.returncode:
        return f"ip netns add fails: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], check=False)
    return ""


class Hosts:
    """`count` namespaces 10.77.0.1, 10.77.0.2, ... on one bridge, in a namespace of its own.

    `rate` (as `tc` writes it: "100mbit") limits each host's link both ways, by a token bucket
    filter; None leaves it unlimited. With `halves` the second half of the hosts is on a bridge of
    its own, and `cut` parts it from the first. All is removed at the end of the `with` block.
    """

    def __init__(self, count: int, rate: str | None = None, *, halves: bool = False) -> None:
        tag = f"sw{os.getpid()}"
        self._switch = f"{tag}s"
        self.names = [f"{tag}h{i}" for i in range(count)]
        self.addresses = [f"10.77.0.{i + 1}" for i in range(count)]
        self._rate = rate
        self._halves = halves

    def prefix(self, host: int) -> list[str]:
        """What to put before a command so that it runs on `host`."""
        return ["ip", "netns", "exec", self.names[host]]

    def __enter__(self) -> Self:
        try:
            self._make()
        except BaseException:
            self._remove()
            raise
        return self

    def _make(self) -> None:
        switch = self._switch
        _run("ip netns add", switch)
        for bridge in ("br0", "br1") if self._halves else ("br0",):
            _run(f"ip -n {switch} link add {bridge} type bridge")
            _run(f"ip -n {switch} link set {bridge} up")
        if self._halves:
            _run(f"ip -n {switch} link add half0 type veth peer name half1")
            _run(f"ip -n {switch} link set half0 master br0 up")
            _run(f"ip -n {switch} link set half1 master br1 up")
        for index, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            port = f"port{index}"
            bridge = "br1" if self._halves and 2 * index >= len(self.names) else "br0"
            _run("ip netns add", name)
            _run(f"ip -n {switch} link add {port} type veth peer name eth0 netns {name}")
            _run(f"ip -n {switch} link set {port} master {bridge} up")
            _run(f"ip -n {name} address add {address}/24 dev eth0")
            _run(f"ip -n {name} link set eth0 up")
            _run(f"ip -n {name} link set lo up")
            if self._rate:
                shape = f"root tbf rate {self._rate} burst 256kb latency 100ms"
                _run(f"tc -n {switch} qdisc add dev {port} {shape}")
                _run(f"tc -n {name} qdisc add dev eth0 {shape}")

    def cut(self, *, apart: bool) -> None:
        """Part the halves, without a word to anybody, or join them again."""
        _run(f"ip -n {self._switch} link set half0 {'down' if apart else 'up'}")

    def _remove(self) -> None:
        for name in (*self.names, self._switch):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()


def _run(command: str, *more: str) -> None:
    words = [*command.split(), *more]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(words)}: {result.stderr.strip()}")
