"""Commands whose output is in trouble, as processes with real pipes: training goes on unharmed."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pytest

from swarmsgd.observe.folder import COMMAND
from swarmsgd.observe.output import MOST_BYTES
from swarmsgd.observe.records import read_records

pytestmark = pytest.mark.slow

NOISY = r"""
import os, sys, time
def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)
print("begun", flush=True)
wait_for("go")
for i in range(3):
    sys.stdout.buffer.write(b"step %d \xff\xe2\x82\xac\n" % i)
    sys.stdout.flush()
open(f"finished-{os.environ['RANK']}", "w").close()
"""
FLOOD = """
import os, sys
line = 999 * "x"
for i in range(int(sys.argv[1])):
    print(line, flush=True)
os.write(os.open("printed", os.O_WRONLY), b"all\\n")
if len(sys.argv) > 2:
    while True:
        print(line, flush=True)
"""
LINES = 2 * MOST_BYTES // 1000

Started = subprocess.Popen[bytes]


class Place:
    """A folder to start commands in; they are ended with the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun: list[Started] = []

    def start(self, *words: str, out: int | IO[bytes] = subprocess.PIPE, **env: str) -> Started:
        command = [sys.executable, "-m", "swarmsgd", *words]
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.PIPE, cwd=self.path, env=os.environ | env
        )
        self.begun.append(process)
        return process

    def launch(self, script: str, *words: str, out: int | IO[bytes] = -1, **env: str) -> Started:
        (self.path / "script.py").write_text(script)
        return self.start("launch", "-n", "2", "script.py", *words, out=out, **env)

    def go(self) -> None:
        (self.path / "go").touch()

    @property
    def finished(self) -> list[str]:
        return sorted(path.name for path in self.path.glob("finished-*"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for process in made.begun:
        process.kill()  # its guard ends the nodes
        process.wait()
        for file in (process.stdout, process.stderr):
            if file is not None:
                file.close()


BOTH = ["finished-0", "finished-1"]


def end_of(process: Started) -> tuple[int, str]:
    """Exit code and stderr, without a look at stdout."""
    assert process.stderr is not None
    err = process.stderr.read().decode()
    return process.wait(), err


@contextlib.contextmanager
def full_disk() -> Iterator[IO[bytes]]:
    with open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
        yield file


def test_a_full_disk_costs_lines_and_no_training(place: Place) -> None:
    place.go()
    with full_disk() as out:
        assert end_of(place.launch(NOISY, out=out)) == (
            0,
            "swarmsgd: could not print 8 lines on stdout (No space left on device)\n",
        )
    assert place.finished == BOTH


def test_a_reader_that_ends_takes_nobody_along(place: Place) -> None:
    process = place.launch(NOISY)
    assert process.stdout is not None
    assert process.stdout.readline().endswith(b"begun\n")
    process.stdout.close()
    place.go()
    code, err = end_of(process)
    assert code == 0, err
    assert "lines on stdout (Broken pipe)" in err
    assert place.finished == BOTH


def test_closed_streams_take_nobody_along(place: Place) -> None:
    place.go()
    (place.path / "script.py").write_text(NOISY)
    command = [sys.executable, "-m", "swarmsgd", "launch", "-n", "2", "script.py"]
    for closed in (">&-", ">&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
            cwd=place.path,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert place.finished == BOTH
        for path in place.path.glob("finished-*"):
            path.unlink()


def test_letters_that_the_locale_lacks_are_printed_as_escapes(place: Place) -> None:
    place.go()
    process = place.launch(NOISY, PYTHONIOENCODING="latin-1:strict")
    assert process.stdout is not None
    lines = process.stdout.read().decode("latin-1").splitlines()
    assert lines.count("[node 1] step 2 \\ufffd\\u20ac") == 1
    assert end_of(process) == (0, "")


class Printed:
    """A named pipe to which nodes say that they have printed all."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDWR)

    def wait(self, count: int) -> None:
        got = b""
        while got.count(b"\n") < count:
            assert select.select([self._fd], [], [], 600)[0], "the nodes do not get on"
            got += os.read(self._fd, 100)
        os.close(self._fd)


def test_nodes_whose_output_nobody_reads_train_on(place: Place) -> None:
    printed = Printed(place.path / "printed")
    process = place.launch(FLOOD, str(LINES))
    printed.wait(2)
    code, err = end_of(process)
    assert code == 0
    assert "lines on stdout (nobody reads it" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_act_though_nobody_reads_the_output(place: Place, number: int) -> None:
    printed = Printed(place.path / "printed")
    process = place.launch(FLOOD, str(LINES), "and go on")
    printed.wait(2)
    process.send_signal(number)
    code, err = end_of(process)
    assert code == 128 + number
    assert f"{signal.Signals(number).name}: all nodes of this host were ended" in err


TRAINING = """
import json, os, sys, time
import torch, swarmsgd
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
settings = dict(local_steps=2, graph="complete", record=f"node-{rank}.jsonl")
with swarmsgd.join(model, optimizer, **settings) as swarm:
    while not os.path.exists("go"):
        for _ in range(20):
            optimizer.zero_grad()
            (model(torch.ones(4, 8)) - rank).square().mean().backward()
            optimizer.step()
            time.sleep(0.002)  # the nodes share few cores
        print("step", swarm.steps, 99 * "z")
        print("step", swarm.steps, 99 * "z", file=sys.stderr)
    mean = swarm.mean_model()
    sums = [float(v.double().sum()) for v in mean.values()]
    outcome = json.dumps({"of": swarm.mean_of, "sums": sums, **swarm.stats()})
with open(f"outcome-{rank}", "w") as file:
    file.write(outcome)
"""


def train_with_all_at_once(place: Place, nodes: int, held_s: float = 0.0) -> None:
    """stdout goes to a full disk, the reader of stderr ends, and the launcher is held for a while
    in which every node makes exchanges; by hand for longer.
    """
    (place.path / "script.py").write_text(TRAINING)
    records = [place.path / f"node-{rank}.jsonl" for rank in range(nodes)]

    def exchange(more: int) -> None:
        wanted = [count(path, "exchange") + more for path in records]
        while any(count(p, "exchange") < most for p, most in zip(records, wanted, strict=True)):
            assert process.poll() is None and not any(count(p, "end") for p in records)
            select.select([], [], [], 0.05)  # between two looks at other processes

    with full_disk() as out:
        process = place.start("launch", "-n", str(nodes), "script.py", out=out)
    assert process.stderr is not None and process.stderr.readline().startswith(b"[node ")
    process.stderr.close()
    exchange(20)
    process.send_signal(signal.SIGSTOP)
    exchange(20)
    select.select([], [], [], held_s)
    process.send_signal(signal.SIGCONT)
    exchange(20)
    place.go()
    assert process.wait() == 0
    outcomes = [json.loads((place.path / f"outcome-{r}").read_text()) for r in range(nodes)]
    for path, outcome in zip(records, outcomes, strict=True):
        assert outcome["of"] == list(range(nodes)) and outcome["sums"] == outcomes[0]["sums"]
        assert outcome["lost"] == 0 and outcome["lost_peers"] == {}
        kinds = Counter(record["kind"] for record in read_records(path))
        assert kinds["start"] == kinds["end"] == 1
        for event in read_records(path, "event"):  # gone, of the meeting place: and how
            assert event["what"] == "left" or (event["what"], event["text"]) == ("gone", "left")
        assert kinds["exchange"] == outcome["mixes"]


def count(path: Path, kind: str) -> int:
    """Records of a kind so far."""
    return path.read_bytes().count(f'"kind":"{kind}"'.encode()) if path.exists() else 0


def test_a_run_goes_on_with_a_full_disk_a_reader_that_ends_and_a_launcher_that_is_held(
    place: Place,
) -> None:
    train_with_all_at_once(place, 3)


SYNTHETIC = ("synthetic", "--nodes", "2", "--epochs", "1", "--samples-per-node", "100")
RECIPE = """
title = "Small"
seeds = [0]
[all]
task = "synthetic"
nodes = 2
epochs = 1
samples_per_node = 100
lr = 0.01
[variants.swarm]
"""


@pytest.mark.parametrize(
    "words", [("train", *SYNTHETIC), ("simulate", *SYNTHETIC), ("compare", "small.toml")]
)
def test_a_run_on_a_full_disk_of_its_log_comes_to_its_end(
    place: Place, words: Sequence[str]
) -> None:
    (place.path / "small.toml").write_text(RECIPE)
    with full_disk() as out:
        code, err = end_of(place.start(*words, "--out", "run", out=out))
    assert code == 0, err
    assert "on stdout (No space left on device)" in err
    summary = "swarm/seed-0/summary.json" if words[0] == "compare" else "summary.json"
    assert json.loads((place.path / "run" / summary).read_text())["mean_loss"] > 0
    (record,) = read_records(place.path / "run" / COMMAND, "event")
    assert "on stdout (No space left on device)" in record["text"]


def test_a_simulation_whose_output_nobody_reads_still_obeys(place: Place) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 512)  # full from the start
    os.set_blocking(writer, True)
    endless = ("synthetic", "--epochs", "1e6", "--samples-per-node", "1000", "--evals", "1000000")
    process = place.start("simulate", *endless, "--out", "run", out=writer)
    os.close(writer)
    curve = place.path / "run" / "curve.jsonl"
    while not curve.exists() or curve.read_bytes().count(b"\n") < 5:
        assert process.poll() is None
        select.select([], [], [], 0.02)  # between two looks at another process
    process.send_signal(signal.SIGINT)
    code, err = end_of(process)
    assert code == 130, err
    assert json.loads((place.path / "run" / "summary.json").read_text())["interrupted"] == "SIGINT"
    os.close(reader)
