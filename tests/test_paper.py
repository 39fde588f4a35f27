"""The paper's experiments as commands of this package."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from paper import EXPERIMENTS, beside, command_of, listed

from swarmsgd.cli import main
from swarmsgd.tasks.vision import torchvision_models
from swarmsgd.train.command.config import TrainConfig


def asked(name: str, **changes: object) -> argparse.Namespace:
    given = {"data": Path("/data"), "nodes": 3, "scale": 0.5, "simulate": False}
    others = {"device": None, "precision": "bfloat16", "loaders": None}
    return argparse.Namespace(name=name, **{**given, **others, **changes})


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_a_run_with_the_settings_of_the_paper(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    if "imagenet" in name and not torchvision_models.names():
        pytest.skip("torchvision is not installed: pip install torchvision")
    seen: list[TrainConfig] = []
    monkeypatch.setattr("swarmsgd.train.command.run.run_training", lambda c: seen.append(c) or 0)
    assert main(command_of(asked(name), Path("/out"))) == 0
    (config,), experiment = seen, EXPERIMENTS[name]
    assert (config.nodes, config.precision, config.out) == (3, "bfloat16", Path("/out"))
    if experiment.swarm_epochs is not None:
        assert config.epochs == experiment.swarm_epochs / 2
        assert config.swarm.local_steps == experiment.local_steps
        assert config.optimizer.momentum == 0.9


def test_imagenet_needs_a_folder():
    with pytest.raises(SystemExit, match="resnet18-imagenet needs --data PATH"):
        command_of(asked("resnet18-imagenet", data=None), Path("/out"))


def test_every_experiment_is_listed():
    assert all(name in listed() for name in EXPERIMENTS)


def test_our_row_is_beside_those_of_the_paper():
    summary = {
        "epochs": 2.8,
        "nodes": 3,
        "local_steps": 4,
        "score": "accuracy",
        "mean_score": 0.4567,
    }
    rows = beside("resnet20-cifar10", summary).splitlines()
    assert [row.split()[1] for row in rows[2:]] == ["SGD", "large-batch", "SwarmSGD", "swarmsgd,"]
    assert "45.67" in rows[-1] and "91.79" in rows[-2]
