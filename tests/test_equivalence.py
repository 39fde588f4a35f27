"""The keystone: a real run and a virtual run with one schedule reach the same weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
import toy_language
from nodes import train
from safetensors.torch import load_file

from swarmsgd.settings.optimizer import OptimizerSettings
from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import simulate
from swarmsgd.sim.engine.world import World
from swarmsgd.tasks import VisionOptions
from swarmsgd.tasks.text.translation import TranslationOptions
from swarmsgd.train.command.config import TrainConfig

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
    settings = {
        "task": VisionOptions(dataset="digits", model="mlp", partition="dirichlet:0.3"),
        "nodes": 3,
        "epochs": 3,
        "graph": "ring",
        "local_steps": 2,
        "bits": bits,
        "optimizer": optimizer,
        "exchange_state": state,
        "precision": precision,
    }
    assert_the_same(settings, tmp_path / "real")


def test_so_they_do_with_dropout_which_a_batch_brings_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    task = TranslationOptions(**toy_language.write(tmp_path), dropout=0.2)
    settings = {"nodes": 2, "epochs": 2, "local_steps": 1, "optimizer": CLIPPED}
    assert_the_same({"task": task, **settings}, tmp_path / "real")


def assert_the_same(settings: dict[str, Any], out: Path) -> None:
    train(TrainConfig.of(mode="matching", **settings), out)
    world = World(step_jitter=0.5, bandwidth_mbit_s=10)  # times change nothing in matching mode
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        virtual = simulate(SimConfig.of(mode="matching", world=world, **settings))
    finally:
        torch.set_num_threads(threads)
    real = load_file(out / "model.safetensors")
    mean = virtual.state_dict()
    assert real.keys() == mean.keys()
    assert all(torch.equal(real[name], mean[name]) for name in real)
    assert virtual.summary["exchanges"] > 15
