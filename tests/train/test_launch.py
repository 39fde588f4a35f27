"""The launcher: every node gets its place, one that fails fails alone, none outlives the run."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import HashStore

from swarmsgd.errors import ConfigError
from swarmsgd.train.launch import hosts
from swarmsgd.train.launch.chaos import Chaos
from swarmsgd.train.launch.launcher import Launcher
from swarmsgd.train.launch.local import describe, launch, print_line
from swarmsgd.train.launch.processes import LineStream, NodeEnd, Note, OutputLine

AWAIT = """
import os, sys, time
def await_file(path):
    while not os.path.exists(path):
        time.sleep(0.01)
"""


@pytest.fixture
def script(tmp_path: Path):
    """Writes a script, returns the command that runs it."""

    def write(text: str, *arguments: str) -> list[str]:
        path = tmp_path / "script.py"
        path.write_text(AWAIT + textwrap.dedent(text))
        return [sys.executable, str(path), *arguments]

    return write


class Alive:
    """A named pipe that processes hold open: at its end of file all of them are dead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(self._reader, True)
        self._buffer = b""

    def read_word(self) -> str:
        while b"\n" not in self._buffer:
            self._buffer += self._read()
        word, self._buffer = self._buffer.split(b"\n", 1)
        return word.decode()

    def await_end(self) -> None:
        while self._read():
            pass

    def _read(self) -> bytes:
        assert select.select([self._reader], [], [], 600.0)[0], "still alive"
        return os.read(self._reader, 4096)

    def close(self) -> None:
        os.close(self._reader)


@pytest.fixture
def alive(tmp_path: Path) -> Iterator[Alive]:
    pipe = Alive(tmp_path / "alive")
    yield pipe
    pipe.close()


def collect(launcher: Launcher) -> list[object]:
    with launcher:
        return [event for event in launcher.events() if event is not None]


def test_every_node_knows_its_place_and_gets_the_arguments_untouched(script) -> None:
    argv = script(
        """
        names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"]
        names += ["TORCHELASTIC_USE_AGENT_STORE", "PYTHONUNBUFFERED", "OMP_NUM_THREADS", "EXTRA"]
        print(*(os.environ[name] for name in names), int(os.environ["MASTER_PORT"]) > 0)
        print(sys.argv[1:], file=sys.stderr)
        """,
        "--lr",
        "0.1",
        "--",
        "-n",
        "a b",
    )
    seen: dict[tuple[int, str], str] = {}
    env = {"EXTRA": "x", "OMP_NUM_THREADS": "7", "RANK": "99"}
    outcome = launch(
        argv, 2, env=env, on_line=lambda n, stream, text: seen.update({(n, stream): text})
    )
    assert outcome.exit_code == 0
    for rank in (0, 1):
        assert seen[rank, "stdout"] == f"{rank} 2 {rank} 2 127.0.0.1 True 1 7 x True"
        assert seen[rank, "stderr"] == "['--lr', '0.1', '--', '-n', 'a b']"


def test_the_standard_variables_can_be_left_unset_and_our_own_are_always_there(script) -> None:
    argv = script(
        """
        from swarmsgd.train.launch.variables import OWN
        print(*(os.environ.get(name, "-") for name in ("RANK", "TORCHELASTIC_RUN_ID")),
              *(os.environ.get(own, "-") for own in list(OWN.values())[:3]), len(OWN))
        """
    )
    inherited = {**os.environ, "RANK": "7", "TORCHELASTIC_RUN_ID": "outer", "SWARMSGD_RANK": "9"}
    for standard, expected in ((True, "0 outer"), (False, "- -")):
        events = collect(Launcher(argv, 1, standard_env=standard, env=inherited))
        lines = [event.text for event in events if isinstance(event, OutputLine)]
        assert lines == [f"{expected} 0 1 127.0.0.1 8"]


def test_threads_are_shared_out_unless_set(script) -> None:
    argv = script("print(os.environ['OMP_NUM_THREADS'])")
    cores = len(os.sched_getaffinity(0))
    env = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    lines = [e for e in collect(Launcher(argv, 3, env=env)) if isinstance(e, OutputLine)]
    assert {line.text for line in lines} == {str(max(1, cores // 3))}


def test_lines_carry_their_node(script, capsys: pytest.CaptureFixture[str]) -> None:
    argv = script("print('out'); print('err', file=sys.stderr)")
    assert launch(argv, 2).exit_code == 0
    out, err = capsys.readouterr()
    assert sorted(out.splitlines()) == ["[node 0] out", "[node 1] out"]
    assert sorted(err.splitlines()) == ["[node 0] err", "[node 1] err"]


def test_the_prefix_is_coloured_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        text = ""

        def isatty(self) -> bool:
            return True

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_line(1, "stdout", "hello")
    assert terminal.text == "\033[32m[node 1]\033[0m hello\n"
    terminal.text = ""
    monkeypatch.setenv("NO_COLOR", "1")
    print_line(1, "stdout", "hello")
    assert terminal.text == "[node 1] hello\n"


def test_what_is_printed_without_a_line_end_or_over_itself_arrives_as_lines(script) -> None:
    argv = script(
        r"""
        sys.stdout.buffer.write(b"10%\r20%\r100%\nwindows\r\n\xff\xc3\xa9 no end")
        """
    )
    lines = [e.text for e in collect(Launcher(argv, 1)) if isinstance(e, OutputLine)]
    assert lines == ["100%", "windows", "\ufffd\u00e9 no end"]


def test_a_line_without_end_is_cut_rather_than_kept_in_memory() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as file, os.fdopen(writer, "wb", buffering=0) as pipe:
        stream = LineStream(file)
        lengths = []
        for _ in range(5):
            pipe.write(b"x" * 30_000)
            lines, closed = stream.read()
            assert not closed
            lengths += [len(line) for line in lines]
    assert lengths == [90_000]


def test_a_failing_node_is_reported_and_takes_nobody_along(
    script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = script(
        """
        if os.environ["RANK"] == "1":
            raise ValueError("this node is broken")
        await_file(sys.argv[1])
        print("finished")
        """,
        str(tmp_path / "go"),
    )
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        (tmp_path / "go").touch()  # only now may the others end

    outcome = launch(argv, 3, say=say)
    assert outcome.exit_code == 1
    assert [(e.node, e.returncode) for e in outcome.nodes] == [(0, 0), (1, 1), (2, 0)]
    assert capsys.readouterr().out.count("finished") == 2
    assert said[0].startswith("node 1 ended with exit code 1 after ")
    assert said[0].endswith(" s: ValueError: this node is broken; the other 2 go on")
    assert said[1] == "1 of 3 nodes failed:"
    assert said[2].endswith(": ValueError: this node is broken")
    assert any("Traceback" in line for line in outcome.failed[0].tail)


def test_a_killed_node_is_reported_by_the_name_of_its_signal(script, tmp_path: Path) -> None:
    argv = script("print('up'); await_file(sys.argv[1])", str(tmp_path / "go"))
    up: set[int] = set()
    ends: list[NodeEnd] = []
    with Launcher(argv, 2) as launcher:
        for event in launcher.events():
            match event:
                case OutputLine(node):
                    up.add(node)
                    if up == {0, 1}:
                        os.kill(launcher.pids[1], signal.SIGKILL)
                case NodeEnd():
                    ends.append(event)
                    (tmp_path / "go").touch()
        assert launcher.pids == {}
    assert [(end.node, end.how) for end in ends] == [(1, "SIGKILL"), (0, "exit code 0")]
    assert launcher.outcome.exit_code == 1


def test_who_was_killed_on_purpose_is_started_again_and_who_has_done_its_work_is_not(
    script, tmp_path: Path
) -> None:
    argv = script(
        """
        lives = [n for n in os.listdir(sys.argv[1]) if n.startswith(f"life-{os.environ['RANK']}")]
        open(f"{sys.argv[1]}/life-{os.environ['RANK']}-{len(lives)}", "w").close()
        print("begun", flush=True)
        if os.environ["RANK"] == "1" and not lives:
            await_file("/never")
        if os.environ["RANK"] == "2":
            await_file(f"{sys.argv[1]}/life-1-1")
        """,
        str(tmp_path),
    )
    chaos = Chaos.read("kill:1@0.4 restart:0,1@0.4", 3)
    with Launcher(argv, 3, chaos=chaos) as launcher:
        events = [event for event in launcher.events() if event is not None]
        assert launcher.outcome.exit_code == 0
    begun = [event.node for event in events if isinstance(event, OutputLine)]
    assert sorted(begun) == [0, 1, 1, 2]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes == ["chaos: node 1 killed", "chaos: node 1 started again"]


def test_what_a_node_left_running_ends_with_it(script, alive: Alive) -> None:
    argv = script(
        """
        import subprocess
        pipe = open(sys.argv[1], "w")
        subprocess.Popen(["sleep", "1000"], stdout=pipe, stderr=pipe)
        """,
        str(alive.path),
    )
    assert launch(argv, 1).exit_code == 0
    alive.await_end()


LAUNCHER = """
import sys
from swarmsgd.train.launch.local import launch
sys.exit(launch(sys.argv[2:], int(sys.argv[1])).exit_code)
"""

STUBBORN = r"""
import signal, subprocess
pipe = open(sys.argv[1], "w")
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: os.write(pipe.fileno(), b"asked\n"))
subprocess.Popen(["sleep", "1000"], stdout=pipe, stderr=pipe)
print("up", file=pipe, flush=True)
while True:
    time.sleep(1000)
"""


def start_launcher(argv: list[str], nodes: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LAUNCHER, str(nodes), *argv]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def end_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = process.communicate(timeout=600)
    return process.returncode, err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_an_interruption_ends_all_nodes(script, alive: Alive, number: int, code: int) -> None:
    process = start_launcher(script(STUBBORN, str(alive.path)), 2)
    assert [alive.read_word(), alive.read_word()] == ["up", "up"]
    process.send_signal(number)
    returncode, err = end_of(process)
    assert returncode == code
    assert err == f"swarmsgd: {signal.Signals(number).name}: all nodes of this host were ended\n"
    alive.await_end()


@pytest.mark.slow
def test_a_second_interruption_ends_nodes_that_ignore_the_first(script, alive: Alive) -> None:
    process = start_launcher(script(STUBBORN, str(alive.path), "stubborn"), 2)
    assert [alive.read_word(), alive.read_word()] == ["up", "up"]
    process.send_signal(signal.SIGINT)
    assert [alive.read_word(), alive.read_word()] == ["asked", "asked"]
    process.send_signal(signal.SIGINT)
    assert end_of(process)[0] == 130
    alive.await_end()


@pytest.mark.slow
def test_signals_that_were_ignored_from_the_start_stay_ignored(script, alive: Alive) -> None:
    """As under nohup, or for a background job of a shell script."""
    argv = script(STUBBORN, str(alive.path))
    command = [sys.executable, "-c", LAUNCHER, "2", *argv]
    ignoring = ["sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh", *command]
    process = subprocess.Popen(ignoring, stderr=subprocess.PIPE, text=True)
    assert [alive.read_word(), alive.read_word()] == ["up", "up"]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        process.send_signal(number)
    returncode, err = end_of(process)
    assert returncode == 143
    assert err == "swarmsgd: SIGTERM: all nodes of this host were ended\n"
    alive.await_end()


def test_nodes_that_do_not_end_in_time_are_killed(script, alive: Alive) -> None:
    with Launcher(script(STUBBORN, str(alive.path), "stubborn"), 1, grace_s=0.2) as launcher:
        alive.read_word()
        launcher.stop()
        events = list(launcher.events())
    assert [event.how for event in events if isinstance(event, NodeEnd)] == ["SIGKILL"]
    (note,) = [event for event in events if isinstance(event, Note)]
    assert note.text.startswith("node 0 had not ended 0.2 s after SIGTERM: killed")
    alive.await_end()


def test_a_node_has_half_a_minute_to_end_in_order_unless_told_otherwise(script) -> None:
    assert Launcher(["true"], 1)._grace_s == 30
    with pytest.raises(ConfigError, match="the grace is -1"):
        Launcher(["true"], 1, grace_s=-1)


@pytest.mark.slow
def test_no_node_outlives_a_launcher_that_is_killed(script, alive: Alive) -> None:
    process = start_launcher(script(STUBBORN, str(alive.path), "stubborn"), 2)
    assert [alive.read_word(), alive.read_word()] == ["up", "up"]
    process.kill()
    process.wait()
    alive.await_end()
    assert process.stderr is not None
    process.stderr.close()


def test_an_error_in_the_reader_of_events_ends_all_nodes(script, alive: Alive) -> None:
    with (
        pytest.raises(RuntimeError, match="mine"),
        Launcher(script(STUBBORN, str(alive.path)), 2) as launcher,
    ):
        assert [alive.read_word(), alive.read_word()] == ["up", "up"]
        for _ in launcher.events():
            raise RuntimeError("mine")
    alive.await_end()


@pytest.mark.slow
def test_nodes_meet_at_the_launchers_store_and_torch_itself_can_use_it(script) -> None:
    argv = script(
        """
        import torch, torch.distributed as dist
        dist.init_process_group("gloo")
        x = torch.ones(1) * (dist.get_rank() + 1)
        dist.all_reduce(x)
        print(int(x))
        if dist.get_rank() == 0:
            dist.destroy_process_group()
            sys.exit(0)  # node 0 goes first: the store stays
        """
    )
    lines = [e.text for e in collect(Launcher(argv, 2)) if isinstance(e, OutputLine)]
    assert [line for line in lines if line == "3"] == ["3", "3"], lines


def test_the_store_of_one_host_listens_on_its_address_only(script, tmp_path: Path) -> None:
    argv = script("await_file(sys.argv[1])", str(tmp_path / "go"))
    with Launcher(argv, 1) as launcher:
        socket.create_connection(("127.0.0.1", launcher.master_port), 600).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", launcher.master_port), 600)


def test_a_taken_port_is_an_error_before_anything_starts(script, tmp_path: Path) -> None:
    argv = script("open(sys.argv[1], 'w')", str(tmp_path / "started"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"cannot listen at 127\.0\.0\.1:{port}: Address already in use\."
        ):
            launch(argv, 2, master_port=port)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"nodes": 0}, "the number of nodes is 0, wanted at least 1"),
        ({"hosts": 0}, "the number of hosts is 0"),
        ({"host_index": 1}, "the host index is 1, wanted 0 to 0"),
        ({"hosts": 2, "host_index": -1, "master_port": 1234}, "the host index is -1"),
        ({"master_port": 65536}, "the master port is 65536"),
        ({"hosts": 2, "master_addr": "10.0.0.1"}, "several hosts need a --master-port"),
        ({"hosts": 2, "master_port": 1234}, "several hosts cannot meet at 127.0.0.1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Launcher(["true"], **{"nodes": 1, **settings})  # type: ignore[arg-type]


def test_an_address_of_another_machine_is_refused(script) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen at 192\.0\.2\.1:0: .*--master-addr"):
        launch(script(""), 1, master_addr="192.0.2.1")


def test_a_command_that_cannot_be_started_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot start .*nothing: No such file"):
        launch([str(tmp_path / "nothing")], 2)


# Several hosts; on one machine they are several launchers.


def free_port() -> int:
    with socket.create_server(("", 0)) as probe:
        return probe.getsockname()[1]


HOST = """
import sys
from swarmsgd.errors import ConfigError
from swarmsgd.train.launch.local import launch
nodes, hosts, index, port = map(int, sys.argv[1:5])
try:
    sys.exit(
        launch(
            sys.argv[5:], nodes, hosts=hosts, host_index=index, master_addr="127.0.0.2",
            master_port=port,
        ).exit_code
    )
except ConfigError as error:
    sys.exit(f"config: {error}")
"""


def start_host(
    argv: list[str], index: int, port: int, *, nodes: int = 1, hosts: int = 2
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOST, *map(str, (nodes, hosts, index, port)), *argv]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_the_first_host_stays_for_the_store_until_the_others_are_done(script, tmp_path) -> None:
    argv = script(
        """
        print(os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["LOCAL_RANK"])
        if os.environ["RANK"] == "1":
            await_file(sys.argv[1])
            from torch.distributed import TCPStore
            host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            TCPStore(host, port, is_master=False).set("late", "call")
            print("reached")
        """,
        str(tmp_path / "go"),
    )
    port = free_port()
    second = start_host(argv, 1, port)  # started first: it waits for host 0
    first = start_host(argv, 0, port)
    assert first.stderr is not None
    assert "staying for the store until host 1 is done" in first.stderr.readline()
    (tmp_path / "go").touch()
    for process, lines in (
        (second, ["[node 1] 1 2 0", "[node 1] reached"]),
        (first, ["[node 0] 0 2 0"]),
    ):
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert out.splitlines() == lines


@pytest.mark.slow
def test_two_launchers_with_one_host_index_are_an_error(script, tmp_path: Path) -> None:
    argv = script("await_file(sys.argv[1])", str(tmp_path / "go"))
    port = free_port()
    first = start_host(argv, 0, port)
    twins = [start_host(argv, 1, port) for _ in range(2)]
    ended = None
    while ended is None:
        ended = next((twin for twin in twins if twin.poll() is not None), None)
        time.sleep(0.02)
    _, err = ended.communicate(timeout=600)
    assert "config: there is a launcher with --host-index 1 in this run already, on " in err
    (tmp_path / "go").touch()
    for process in (first, *(twin for twin in twins if twin is not ended)):
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err


def test_launchers_must_agree_on_the_shape_of_the_run() -> None:
    store = HashStore()
    assert hosts.introduce(store, 0, "2 hosts with 4 nodes each") is None
    problem = hosts.introduce(store, 1, "2 hosts with 2 nodes each")
    assert problem is not None
    assert "given 2 hosts with 2 nodes each, the run has 2 hosts with 4 nodes each" in problem


def test_a_silent_host_is_given_up_and_a_beating_one_is_not() -> None:
    now = 0.0
    store = HashStore()
    register = hosts.LauncherRegister(store, "shape", 4, clock=lambda: now)
    assert register.look() == ({1, 2, 3}, set())
    store.set("swarmsgd/launchers/done/3", "1")
    assert register.look() == ({1, 2}, set())
    looks = []
    for _ in range(5):
        now += hosts.LAUNCHER_SILENT_S / 3
        store.add("swarmsgd/launchers/beat/1", 1)
        looks.append(register.look())
    both, one = ({1, 2}, set()), ({1}, set())
    assert looks == [both, both, both, ({1}, {2}), one]


def test_nobody_waits_for_a_host_that_never_came(script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "LAUNCHER_SILENT_S", 0.2)
    launcher = Launcher(script(""), 1, hosts=2, master_addr="127.0.0.2", master_port=free_port())
    notes = [event.text for event in collect(launcher) if isinstance(event, Note)]
    assert "until host 1 is done" in notes[0]
    assert notes[1].startswith("host 1 has not been heard of for")


@pytest.mark.parametrize(
    ("code", "why", "line"),
    [
        (1, "exit code 1; last words: it hurts", "ended with exit code 1 after 2.0 s: it hurts"),
        (-9, "SIGKILL (from outside, or memory ran out); the last it had said: it hurts",
         "ended with SIGKILL after 2.0 s; it had last said: it hurts"),
        (-11, "SIGSEGV; the last it had said: it hurts",
         "ended with SIGSEGV after 2.0 s; it had last said: it hurts"),
        (0, "exit code 0; last words: it hurts", "ended with exit code 0 after 2.0 s"),
    ],
)  # fmt: skip
def test_what_a_process_said_last_is_its_reason_unless_a_signal_ended_it(code, why, line):
    end = NodeEnd(1, code, 2.0, ("first", "it hurts", ""))
    assert end.why == why
    assert describe(end) == f"node 1 {line}"
