"""Several hosts: network namespaces with links of a limited rate. Needs root; skips visibly
without it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from bench import HERE, run_nodes
from namespaces import Hosts, available

from swarmsgd.transport.keys import make_key

REASON = available()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(REASON), reason=f"no network namespaces here: {REASON}"),
]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "swarm.key")
    return tmp_path / "swarm.key"


@pytest.mark.parametrize("rate", [None, "100mbit"])
def test_four_hosts_train_with_no_interface_named(rate: str | None, key: Path):
    with Hosts(4, rate) as hosts:
        said = run_nodes(
            [HERE / "loop.py", "--algorithm", "swarm", "--parameters", 100_000, "--seconds", 3],
            4,
            prefixes=[hosts.prefix(i) for i in range(4)],
            master_addr=hosts.addresses[0],
            timeout_s=600,
            SWARMSGD_KEY=str(key),
        )
    for node in (s["swarm"] for s in said):
        assert node["completed"] > 0 and node["lost"] == 0 and node["lost_peers"] == {}, node


@contextlib.contextmanager
def ipv6_hosts() -> Iterator[Hosts]:
    """Two hosts without IPv4, each of which takes its own name for a loopback address as Debian
    does, and has another interface with the default route.
    """
    with Hosts(2) as hosts, contextlib.ExitStack() as stack:
        for i, name in enumerate(hosts.names):
            for command in (
                f"addr del {hosts.addresses[i]}/24 dev eth0",
                f"-6 addr add fd77::{i + 1}/64 dev eth0 nodad",
                "link add other0 type bridge",
                "addr add 192.0.2.9/24 dev other0",
                "link set other0 up",
                "route add default via 192.0.2.1 dev other0",
            ):
                subprocess.run(["ip", "-n", name, *command.split()], check=True)
            files = Path("/etc/netns") / name  # what `ip netns exec` lays over /etc
            files.mkdir(parents=True)
            stack.callback(shutil.rmtree, files)
            others = f"fd77::{2 - i} host{1 - i}\n"
            (files / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 host{i}\n{others}")
        yield hosts


SCRIPT = """
import torch, swarmsgd
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
with swarmsgd.join(model, optimizer, local_steps=1) as swarm:
    for _ in range(100):
        optimizer.zero_grad()
        model(torch.ones(4, 8)).square().mean().backward()
        optimizer.step()
    swarm.mean_model()
print("done", swarm.mean_of)
"""


def outputs_of(commands: Sequence[Sequence[object]], script: Path, key: Path) -> list[str]:
    """What these commands, one a host, print once the script is put behind each."""
    script.write_text(SCRIPT)
    started = [
        subprocess.Popen(
            [*map(str, command), script],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"SWARMSGD_KEY": str(key), "OMP_NUM_THREADS": "1"},
        )
        for command in commands
    ]
    try:
        outputs = [process.communicate(timeout=600)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [process.returncode for process in started] == [0] * len(started), outputs
    return outputs


def test_torchrun_runs_one_command_a_host(tmp_path: Path, key: Path):
    with Hosts(2) as hosts:
        commands = [
            [
                *hosts.prefix(host), sys.executable, "-m", "torch.distributed.run",
                "--nnodes", 2, "--nproc-per-node", 1, "--node-rank", host,
                "--master-addr", hosts.addresses[0], "--master-port", 29511,
            ]
            for host in range(2)
        ]  # fmt: skip
        outputs = outputs_of(commands, tmp_path / "train.py", key)
    for output in outputs:
        assert "done [0, 1]" in output and "neither encrypted nor" not in output, output


def test_the_launcher_runs_one_command_a_host(tmp_path: Path, key: Path):
    with ipv6_hosts() as hosts:
        commands = [
            [
                *hosts.prefix(host), sys.executable, "-m", "swarmsgd", "launch", "-n", 2,
                "--hosts", 2, "--host-index", host, "--address", "eth0",
                "--master-addr", "host0", "--master-port", 29511,
            ]
            for host in range(2)
        ]  # fmt: skip
        outputs = outputs_of(commands, tmp_path / "train.py", key)
    for host, output in enumerate(outputs):
        said = f"all meet at host0 port 29511; nodes here are reached at fd77::{host + 1} ("
        assert said in output
        assert "neither encrypted nor" not in output
        for node in (2 * host, 2 * host + 1):
            assert f"[node {node}] done [0, 1, 2, 3]" in output
