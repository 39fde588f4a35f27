"""Every example runs, and gives the same result lines under either launcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bench import free_port

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(*command: object) -> list[str]:
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=800, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    lines = (line.removeprefix("[node 0] ") for line in result.stdout.splitlines())
    return [line for line in lines if "accuracy" in line]


@pytest.mark.slow
def test_both_launchers_give_the_same_result_lines():
    script = [EXAMPLES / "digits.py", "--mode", "matching", "--steps", "200"]
    ours = run(sys.executable, "-m", "swarmsgd", "launch", "-n", 4, *script)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", 4]
    theirs = run(*torchrun, "--master-port", free_port(), *script)
    assert len(ours) == 1 and ours == theirs
    assert float(ours[0].partition("accuracy ")[2][:6]) > 0.9


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        most = 85 if path.stem == "own_task" else 60  # a task has nine parts
        assert len(path.read_text().splitlines()) < most, path
