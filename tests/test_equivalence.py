"""The keystone: a real run and a virtual run with one schedule reach the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swarmsgd.settings.optimizer import OptimizerSettings
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import simulate
from swarmsgd.sim.engine.world import World
from swarmsgd.tasks import VisionOptions
from swarmsgd.train.command.config import TrainConfig
from swarmsgd.train.command.run import run_training

pytestmark = pytest.mark.slow


SGD = OptimizerSettings(weight_decay=1e-4)
ADAMW = OptimizerSettings(optimizer="adamw", lr=3e-3, weight_decay=0.01)
CLIPPED = OptimizerSettings(optimizer="adamw", lr=3e-3, schedule="constant", clip_norm=0.5)

SCHEDULE_FREE = OptimizerSettings(
    optimizer="schedulefree-adamw", lr=3e-3, schedule="constant", warmup=0.1
)

MOMENTUM = ("momentum_buffer",)
IN_FEWER_BITS = ("exp_avg:4",)


@pytest.mark.parametrize(
    ("optimizer", "bits", "state", "precision"),
    [
        (SGD, None, (), "float32"),
        (SGD, 8, (), "float32"),
        (SGD, 4, (), "float32"),
        (ADAMW, None, (), "float32"),
        (CLIPPED, 8, (), "float32"),
        (ADAMW, 4, (), "float32"),
        (SGD, None, MOMENTUM, "float32"),
        (SGD, 8, MOMENTUM, "float32"),
        (SGD, 4, MOMENTUM, "float32"),
        (CLIPPED, 8, IN_FEWER_BITS, "float32"),
        (SGD, 8, (), "bfloat16"),
        (SCHEDULE_FREE, 8, (), "float32"),
    ],
    ids=lambda value: value.optimizer if isinstance(value, OptimizerSettings) else str(value),
)
def test_a_real_run_and_a_virtual_one_end_with_the_same_bits(
    optimizer: OptimizerSettings,
    bits: int | None,
    state: tuple[str, ...],
    precision: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    task = VisionOptions(dataset="digits", model="mlp", partition="dirichlet:0.3")
    same: dict[str, Any] = {
        "nodes": 3,
        "epochs": 3,
        "graph": "ring",
        "local_steps": 2,
        "optimizer": optimizer,
        "exchange_state": state,
        "precision": precision,
    }
    out = tmp_path / "real"
    assert run_training(TrainConfig.of(task=task, mode="matching", bits=bits, out=out, **same)) == 0
    world = World(step_jitter=0.5, bandwidth_mbit_s=10)  # times change nothing in matching mode
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        virtual = simulate(SimConfig.of(task=task, mode="matching", bits=bits, world=world, **same))
    finally:
        torch.set_num_threads(threads)
    real = load_file(out / "model.safetensors")
    mean = virtual.state_dict()
    assert real.keys() == mean.keys()
    assert all(torch.equal(real[name], mean[name]) for name in real)
    assert virtual.summary["exchanges"] > 15
