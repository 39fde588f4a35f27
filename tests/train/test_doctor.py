"""What the doctor says of a machine, and of the way between two."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from swarmsgd.cli import main
from swarmsgd.errors import ConfigError, PeerError
from swarmsgd.train.doctor import machine, network
from swarmsgd.train.doctor.command import place_of
from swarmsgd.train.doctor.finding import Finding, findings
from swarmsgd.train.doctor.links import LISTENER, End, listen, measure
from swarmsgd.transport.keys import make_key

PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name in PLACE or (name.startswith("SWARMSGD_") and name != "SWARMSGD_DATA"):
            monkeypatch.delenv(name)


def only(found: object) -> Finding:
    (finding,) = [found] if isinstance(found, Finding) else list(found)
    return finding


def test_an_error_is_a_finding_with_its_move() -> None:
    def fail() -> Finding:
        raise ConfigError("there is too little of it. Get more")

    (found,) = findings("thing", fail)
    assert " ".join(str(found).split()) == "TO DO thing there is too little of it -> Get more"


def test_a_model_that_has_no_room_is_told() -> None:
    assert not machine.memory(1000, 1).bad
    found = machine.memory(10**13, 1)
    assert found.bad and "280.0 TB" in found.found


def test_what_else_runs_on_the_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = os.cpu_count() or 1
    for busy, move in ((0.4 * cores, ""), (1.5 * cores, "something else runs here")):
        monkeypatch.setattr(os, "getloadavg", lambda busy=busy: (busy, 0.0, 0.0))
        found = machine.cores(1)
        assert found.move.startswith(move) and bool(found.move) == bool(move) and not found.bad
        assert (f"{busy:.1f} of {cores} were busy" in found.found) == bool(move)
    assert "nodes share them" in machine.cores(cores + 1).move


def test_a_control_group_bounds_the_memory_that_is_free(tmp_path: Path) -> None:
    for name, text in {
        "proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 4000 kB\n",
        "proc/self/cgroup": "0::/a\n",
        "sys/fs/cgroup/a/memory.max": "3000000",
        "sys/fs/cgroup/a/memory.current": "1000000",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert machine._free_memory(tmp_path) == 2_000_000


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="no shared memory")
def test_shared_memory_as_docker_gives_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage
    small = type(usage("/"))(64 << 20, 0, 64 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda p: small if p == machine.SHM else usage(p))
    assert "--shm-size" in list(machine.disks(Path("/")))[-1].move


def test_a_name_that_means_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-name.invalid")
    assert "into /etc/hosts" in network.own_name().move


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "none is set"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR, MASTER_PORT not set"),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "http://a", "MASTER_PORT": "1"},
            "without scheme",
        ),
    ],
)
def test_variables_that_a_script_would_stop_at_are_told(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = only(network.place_variables())
    assert said in found.found
    assert found.bad == bool(variables)


def test_a_meeting_place_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        values = ("1", "2", "127.0.0.1", str(port), "True")
        for name, value in zip(PLACE, values, strict=True):
            monkeypatch.setenv(name, value)
        assert [f.mark for f in network.place_variables()] == ["fine", "fine"]
    there, silent = network.place_variables()
    assert (there.mark, silent.mark) == ("fine", "TO DO")
    assert f"127.0.0.1:{port} does not answer" in silent.found
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")  # node 0 will host it
    assert [f.mark for f in network.place_variables()] == ["fine", "note"]


@pytest.mark.parametrize("keyed", [False, True])
def test_the_way_between_two_ends_is_measured_in_both_directions(
    keyed: bool, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "key") if keyed else None
    there, end, back = (End("127.0.0.1", key, number) for number in (LISTENER, 7, 8))
    thread = threading.Thread(target=_until_closed, args=[there])
    thread.start()
    try:
        link = measure(end, there.transport.endpoint, back)
    finally:
        for each in (end, back, there):
            each.transport.close()
        thread.join()
    assert link.peer == machine.own_version()
    assert link.dialled_back == ""
    assert link.round_trip_s > 0 and link.there > 1e5 and link.back > 1e5
    assert abs(link.clock_s) < 1


def _until_closed(end: End) -> None:
    try:
        listen(end)
    except Exception:  # its transport was closed
        return


def test_an_end_without_the_key_gets_no_link(tmp_path: Path) -> None:
    there = End("127.0.0.1", make_key(tmp_path / "key"), LISTENER)
    end, back = End("127.0.0.1", None, 7), End("127.0.0.1", None, 8)
    thread = threading.Thread(target=_until_closed, args=[there])
    thread.start()
    try:
        with pytest.raises(PeerError, match="no link"):
            measure(end, there.transport.endpoint, back)
    finally:
        for each in (end, back, there):
            each.transport.close()
        thread.join()


def test_where_to_look_is_read_or_refused() -> None:
    assert place_of("10.0.0.1:29500") == ("10.0.0.1", 29500)
    assert place_of("[fd00::1]:29500") == ("fd00::1", 29500)
    with pytest.raises(ConfigError, match="wanted HOST:PORT as"):
        place_of("10.0.0.1")


@pytest.mark.slow
def test_the_command_looks_at_this_machine_and_at_the_way_to_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    listening = subprocess.Popen(
        [sys.executable, "-m", "swarmsgd", "doctor", "--listen", "--address", "127.0.0.1"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert listening.stdout is not None
        place = listening.stdout.readline().split("--with ")[1].split()[0]
        assert main(["doctor", "--with", place]) == 0
        listening.send_signal(signal.SIGINT)
        assert listening.wait() == 0
    finally:
        listening.kill()
        listening.communicate()
    out = capsys.readouterr().out
    assert out.rstrip().endswith("nothing to do")
    assert " cores " in out  # a note where much else runs
    for what in ("versions", "memory", "limits", "kernels", "address", "way back"):
        assert f"fine   {what}" in out
    monkeypatch.setenv("MASTER_ADDR", "a")
    monkeypatch.setenv("RANK", "x")
    assert main(["doctor"]) == 1
    assert "1 thing to do" in capsys.readouterr().out
