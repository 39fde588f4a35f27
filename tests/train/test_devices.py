"""Which node trains where."""

import pytest
import torch

from swarmsgd.errors import ConfigError
from swarmsgd.tasks import SyntheticOptions
from swarmsgd.train.command.config import TrainConfig
from swarmsgd.train.command.devices import device_of_node


def test_nodes_share_the_devices_of_a_machine_in_turn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [device_of_node("cuda", node).index for node in range(5)] == [0, 1, 2, 0, 1]
    assert {device_of_node("cuda:1", node) for node in range(5)} == {torch.device("cuda:1")}


def test_the_cpu_is_one_device():
    assert {device_of_node("cpu", node) for node in range(5)} == {torch.device("cpu")}


def test_a_device_that_is_not_there_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"device is 'cuda', but torch .* finds 0 devices"):
        TrainConfig.of(task=SyntheticOptions(), device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match=r"device is 'cuda:2', but torch .* finds 2 devices"):
        TrainConfig.of(task=SyntheticOptions(), device="cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "meta", ""])
def test_a_word_that_is_no_device_is_refused(name: str):
    with pytest.raises(ConfigError, match=f"device is '{name}', which torch does not know"):
        TrainConfig.of(task=SyntheticOptions(), device=name)
