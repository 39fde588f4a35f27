"""Real training on images that lie in folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swarmsgd.sim.command.config import SimConfig
from swarmsgd.sim.command.run import simulate
from swarmsgd.train.command.config import TrainConfig
from swarmsgd.train.command.run import run_training


@pytest.mark.slow
def test_two_nodes_learn_shapes_and_a_virtual_run_ends_with_the_same_bits(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    same: dict[str, Any] = {
        "task": f"folder:{shapes}", "image_size": 32, "batch_size": 16, "nodes": 2, "epochs": 12,
        "lr": 0.02, "mode": "matching",
    }  # fmt: skip
    out = tmp_path / "real"
    assert run_training(TrainConfig.of(loaders=1, out=out, **same)) == 0
    virtual = simulate(SimConfig.of(**same))
    assert virtual.summary["mean_accuracy"] > 0.55  # chance: 0.25
    real, mean = load_file(out / "model.safetensors"), virtual.state_dict()
    assert all(torch.equal(real[name], mean[name]) for name in mean)
