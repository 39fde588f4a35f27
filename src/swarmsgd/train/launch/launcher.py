"""A supervisor of the node processes on one host: starts them, passes on what they print, ends
them.

::

    with Launcher([sys.executable, "train.py"], nodes=4) as launcher:
        for event in launcher.events():
            ...

It hosts the store at which the nodes meet, so that the store outlives every node's last call to
it. A node that fails does not take the others along. No process outlives the launcher: a guard
process ends them even if the launcher is killed.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from swarmsgd.checks import number, whole
from swarmsgd.cores import usable_cores
from swarmsgd.errors import ConfigError
from swarmsgd.limits import explain, need_nodes
from swarmsgd.train.launch import hosts as other_hosts
from swarmsgd.train.launch import variables
from swarmsgd.train.launch.beside import ALL_ADDRESSES, host_store, start_guard
from swarmsgd.train.launch.chaos import Chaos
from swarmsgd.train.launch.processes import (
    Interrupts,
    LauncherEvent,
    NodeEnd,
    Note,
    Outcome,
    OutputLine,
    Process,
)
from swarmsgd.train.launch.restarts import CHAOS_SIGNALS, Acts, Restarts
from swarmsgd.transport.addresses import listener as listening_at

if TYPE_CHECKING:
    from torch.distributed import TCPStore

    from swarmsgd.train.meet.tracker import Tracker

_TICK_S = 0.1
GRACE_S = 30.0
"""From SIGTERM to SIGKILL for a node that does not end; as long as Slurm and Kubernetes wait."""


class Launcher:
    """Runs `argv` once for each of `nodes` nodes on this host, which is number `host_index` of
    `hosts`.

    Every node gets RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT,
    TORCHELASTIC_USE_AGENT_STORE (the launcher hosts the store) and, unless set, OMP_NUM_THREADS;
    and the same under our own names (`variables.OWN`), or without `standard_env` under these alone.
    When they are to end early they get SIGTERM, and after `grace_s` SIGKILL. A `master_port` of 0
    takes a free one. Raises ConfigError, with nothing started, for numbers that make no sense and
    for an address or port that cannot be had.
    """

    def __init__(
        self,
        argv: Sequence[str],
        nodes: int,
        *,
        hosts: int = 1,
        host_index: int = 0,
        master_addr: str = "127.0.0.1",
        master_port: int = 0,
        standard_env: bool = True,
        grace_s: float = GRACE_S,
        swarm: str | None = None,
        restarts: int = 0,
        chaos: Chaos | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        number("the grace", grace_s, least=0)
        whole("the number of restarts", restarts, 0)
        variables.check_numbers(nodes, hosts, host_index, master_addr, master_port)
        need_nodes(nodes)
        self.argv = tuple(argv)
        self.nodes = nodes
        self.hosts = hosts
        self.host_index = host_index
        self.master_addr = master_addr
        self.master_port = master_port
        self.interrupted: int | None = None
        """The signal that ended the run early, if one did."""
        self._standard_env = standard_env
        self._grace_s = grace_s
        self._env = dict(os.environ if env is None else env)
        self._running: dict[int, Process] = {}
        self._ends: list[NodeEnd] = []
        self._selector = selectors.DefaultSelector()
        self._store: TCPStore | None = None
        self._tracker: Tracker | None = None
        self._register: other_hosts.LauncherRegister | None = None
        self._beat: other_hosts.LauncherBeat | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._swarm = swarm
        self._restarts = Restarts(restarts)
        self._chaos = None if chaos is None else Acts(chaos)
        self._kill_at: float | None = None
        self._told_late = False

    @property
    def pids(self) -> dict[int, int]:
        """Node -> process id, of the nodes that run now."""
        return {node: process.popen.pid for node, process in self._running.items()}

    @property
    def stopping(self) -> bool:
        """Whether the nodes have been asked to end."""
        return self._kill_at is not None

    @property
    def outcome(self) -> Outcome:
        """How the nodes that have ended did so."""
        return Outcome(tuple(sorted(self._ends, key=lambda end: end.node)), self.interrupted)

    def __enter__(self) -> Launcher:
        hosts_store = self.host_index == 0 and self._swarm is None
        listener = self._listen() if hosts_store else None
        try:
            self._guard = start_guard()
            for local in range(self.nodes):
                self._start_node(local)
            if listener is not None:  # torch is loaded while the nodes load it: they wait meanwhile
                here = listener.getsockname()[0] if self.hosts == 1 else ALL_ADDRESSES
                self._store = host_store(listener, self.master_addr)
                self._host_tracker(self._store, here)
            self._meet_other_hosts()
        except BaseException:
            self.close()
            raise
        finally:
            if listener is not None:
                listener.close()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def events(self, interrupts: Interrupts | None = None) -> Iterator[LauncherEvent | None]:
        """What happens, as it happens, until all nodes have ended; None about ten times a second.

        The first signal that `interrupts` counts sends the nodes SIGTERM, and SIGKILL a few
        seconds later; the second sends SIGKILL at once.
        """
        interrupts = interrupts or Interrupts()
        while self._running or (self._restarts.waiting and not self.stopping):
            yield from self._poll(_TICK_S)
            yield None
            yield from self._obey(interrupts)
            if not self.stopping:
                self._start_again()
                yield from self._act()
            if self._beat is not None and self._beat.problem:
                raise ConfigError(self._beat.problem)
        yield from self._part(interrupts)

    def stop(self) -> None:
        """Ask all nodes to end (SIGTERM); those that have not after `grace_s` are killed."""
        for process in self._running.values():
            process.signal_group(signal.SIGTERM)
            if self._chaos is not None:  # it may be held
                process.signal_group(signal.SIGCONT)
        self._kill_at = time.monotonic() + self._grace_s

    def close(self) -> None:
        """End whatever still runs, at once. May be called twice."""
        for process in self._running.values():
            process.signal_group(signal.SIGKILL)
        for process in list(self._running.values()):
            process.popen.wait()
            self._reap(process)
        if self._beat is not None:
            self._beat.finish(1.0)
        if self._guard is not None:
            assert self._guard.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
            self._guard.wait()
        if self._tracker is not None:
            self._tracker.close()
        self._store = self._register = self._guard = self._beat = self._tracker = None
        self._selector.close()

    def _listen(self) -> socket.socket:
        """A socket for the store, bound here so that a taken port shows before anything starts.

        For one host it listens at `master_addr` only, so nobody outside can reach it by default.
        """
        address = self.master_addr if self.hosts == 1 else ""
        try:
            listener = listening_at(address, self.master_port)
        except OSError as error:
            raise ConfigError(
                f"cannot listen at {self.master_addr}:{self.master_port}: "
                f"{error.strerror or error}. Give an address of this host as --master-addr, and a "
                "free --master-port (0 takes one)"
            ) from None
        self.master_port = listener.getsockname()[1]
        return listener

    def _host_tracker(self, store: TCPStore, address: str) -> None:
        """Where the nodes of a swarm meet; the store tells them where it is."""
        from swarmsgd.train.meet.finding import LAUNCHED
        from swarmsgd.train.meet.key import find_key
        from swarmsgd.train.meet.tracker import Tracker

        self._tracker = Tracker(address, key=find_key(self._env.get(variables.KEY)))
        store.set(LAUNCHED, f" {self._tracker.port}")

    def _start_node(self, local: int, *, again: bool = False) -> None:
        node = self.host_index * self.nodes + local
        if self._swarm is not None:
            place = variables.of_swarm(self._swarm, local, self.nodes)
        else:
            place = variables.of_node(
                node, self.hosts * self.nodes, local, self.nodes, self.master_addr, self.master_port
            )
        inherited = self._env
        if self._swarm is not None:  # of a launcher around this one, perhaps
            inherited = {n: v for n, v in self._env.items() if not variables.is_place(n)}
        env = {
            "OMP_NUM_THREADS": str(max(1, usable_cores() // self.nodes)),
            **inherited,
            **place,
            "PYTHONUNBUFFERED": "1",
        }
        if again:
            env[variables.AGAIN] = "1"
        if not self._standard_env:
            env = {name: value for name, value in env.items() if name not in variables.OWN}
        try:
            process = Process(node, self.argv, env)
        except OSError as error:
            why = explain(error) or error.strerror
            raise ConfigError(f"cannot start {self.argv[0]}: {why}") from None
        self._running[node] = process
        self._tell_guard(f"+{process.popen.pid}\n")
        for name, stream in process.streams.items():
            self._selector.register(stream.file, selectors.EVENT_READ, (process, name))

    def _start_again(self) -> None:
        for node in self._restarts.due(time.monotonic()):
            self._forget_end(node)
            self._start_node(node - self.host_index * self.nodes, again=True)

    def _act(self) -> Iterator[Note]:
        """Do what was ordered to fail."""
        first = self.host_index * self.nodes
        for act in [] if self._chaos is None else self._chaos.due(time.monotonic()):
            node = first + act.node
            process = self._running.get(node)
            if act.what == "start":
                if process is not None:
                    if not self._restarts.once_dead(node):
                        continue  # it runs
                elif node in {end.node for end in self.outcome.failed}:
                    self._restarts.cancel(node)
                    self._forget_end(node)
                    self._start_node(act.node, again=True)
                else:
                    continue  # it has done its work
            elif process is None:
                continue
            else:
                process.signal_group(CHAOS_SIGNALS[act.what])
                if act.what == "kill":
                    self._restarts.ordered.add(node)
            if act.told:
                yield Note(f"chaos: node {node} {act.told}", node)

    def _forget_end(self, node: int) -> None:
        """It runs again: how it ended does not count."""
        self._ends = [end for end in self._ends if end.node != node]

    def _meet_other_hosts(self) -> None:
        if self.hosts == 1:
            return
        shape = f"{self.hosts} hosts with {self.nodes} nodes each"
        if self._store is not None:
            self._register = other_hosts.LauncherRegister(self._store, shape, self.hosts)
        else:
            address = (self.master_addr, self.master_port)
            self._beat = other_hosts.LauncherBeat(address, shape, self.host_index)
            self._beat.start()

    def _tell_guard(self, line: str) -> None:
        assert self._guard is not None and self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # somebody killed the guard: go on without
            self._guard.stdin.write(line.encode())
            self._guard.stdin.flush()

    def _poll(self, timeout_s: float) -> Iterator[LauncherEvent]:
        for key, _ in self._selector.select(timeout_s):
            process, name = key.data
            lines, closed = process.streams[name].read()
            yield from self._printed(process, name, lines)
            if closed:
                self._selector.unregister(key.fileobj)
        for process in list(self._running.values()):
            if process.popen.poll() is not None:
                yield from self._reap(process)

    def _printed(self, process: Process, name: str, lines: list[str]) -> Iterator[OutputLine]:
        for text in lines:
            if name == "stderr":
                process.tail.append(text)
            yield OutputLine(process.node, name, text)

    def _reap(self, process: Process) -> list[LauncherEvent]:
        """The last events of a node that has ended; ends what it left behind in its group."""
        process.signal_group(signal.SIGKILL)
        self._tell_guard(f"-{process.popen.pid}\n")
        del self._running[process.node]
        events: list[LauncherEvent] = []
        for name, stream in process.streams.items():
            with contextlib.suppress(KeyError):
                self._selector.unregister(stream.file)
                lines, _ = stream.read(at_end=True)
                events += self._printed(process, name, lines)
            stream.file.close()
        end = process.end()
        self._ends.append(end)
        if self._tracker is not None:  # nobody needs to wait for it
            self._tracker.died(end.node)
        done = not self._running and any(not each.failed for each in self._ends)
        again = self._restarts.ended(end, time.monotonic(), over=done or self.stopping)
        return [*events, end, *again]

    def _obey(self, interrupts: Interrupts) -> Iterator[Note]:
        if interrupts.first is not None and self.interrupted is None:
            self.interrupted = interrupts.first
            self.stop()
        late = self._kill_at is not None and time.monotonic() >= self._kill_at
        if late and self._running and not self._told_late:
            self._told_late = True
            nodes = ", ".join(map(str, sorted(self._running)))
            yield Note(
                f"node {nodes} had not ended {self._grace_s:g} s after SIGTERM: killed. "
                "`swarmsgd launch --grace` gives more time"
            )
        if late or interrupts.count > 1:
            for process in self._running.values():
                process.signal_group(signal.SIGKILL)

    def _part(self, interrupts: Interrupts) -> Iterator[LauncherEvent | None]:
        """The end of a run over several hosts: who hosts the store stays for the others."""
        if self._beat is not None:
            self._beat.finish()
        if self._register is None or interrupts.first is not None:
            return
        said: set[int] = set()
        while interrupts.first is None:
            left, given_up = self._register.look()
            for host in sorted(given_up):
                yield Note(
                    f"host {host} has not been heard of for {other_hosts.LAUNCHER_SILENT_S:.0f} s: "
                    "not waiting for it any longer"
                )
            if not left:
                return
            if left != said:
                said = left
                names = ", ".join(map(str, sorted(left)))
                yield Note(f"staying for the store until host {names} is done; Ctrl-C ends this")
            yield None
            time.sleep(_TICK_S)
        self.interrupted = interrupts.first
