"""What a script and its framework bring: variables, optimizers under wrappers, a DDP."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from nodes import free_port, run
from test_user_models import backward, small

import swarmsgd
from swarmsgd.core.layout import Layout
from swarmsgd.core.segments import Segments
from swarmsgd.errors import ConfigError, ModelError
from swarmsgd.train.launch.variables import OWN, of_node, own_alone
from swarmsgd.train.meet.place import Place
from swarmsgd.train.node.join_checks import optimizers_of
from swarmsgd.train.node.unhooked_steps import Uncounted

STANDARD = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
AGENT = {"TORCHELASTIC_USE_AGENT_STORE": "True"}


def place(environment: Mapping[str, str], **given: str | int) -> tuple[int, int, str, int, bool]:
    found = Place.find(environment, **given)
    assert found is not None
    return found.rank, found.num_nodes, found.host, found.port, found.hosted


def test_our_own_variables_win_and_arguments_win_over_them():
    assert place(STANDARD) == (1, 4, "10.0.0.1", 29500, False)
    ours = STANDARD | {"SWARMSGD_RANK": "0", "SWARMSGD_WORLD_SIZE": "2"}
    assert place(ours) == (0, 2, "10.0.0.1", 29500, False)
    assert place(ours, rank=1) == (1, 2, "10.0.0.1", 29500, False)
    launched = of_node(3, 8, 1, 2, "127.0.0.1", 4444)
    assert place(STANDARD | launched) == (3, 8, "127.0.0.1", 4444, True)
    assert place(own_alone(launched)) == (3, 8, "127.0.0.1", 4444, True)
    assert not set(own_alone(launched)) & set(OWN)


def test_arguments_that_say_what_the_environment_says_change_nothing():
    same = {"rank": 1, "num_nodes": 4, "master_addr": "10.0.0.1", "master_port": 29500}
    for environment in (STANDARD, STANDARD | AGENT, own_alone(STANDARD | AGENT)):
        assert Place.find(environment, **same) == Place.find(environment)
    assert place(STANDARD | AGENT, **same)[-1], "node 0 would listen where the agent does"


def test_a_store_at_another_address_than_the_agents_is_node_0s():
    assert not place(STANDARD | AGENT, master_addr="10.0.0.2")[-1]
    assert not place(STANDARD | AGENT, master_port=29501)[-1]


def test_hidden_variables_keep_what_was_there():
    run_name = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "2"}
    before = STANDARD | AGENT | run_name | {"HOME": "/", "SWARMSGD_RANK": "3"}
    after = own_alone(before)
    assert Place.find(after) == Place.find(before)
    assert after["HOME"] == "/" and not set(after) & set(OWN)


def sgd() -> torch.optim.Optimizer:
    return torch.optim.SGD(small().parameters(), lr=0.1)


class Duck:
    """Steps an optimizer, as a warm-up schedule of a paper's own code does."""

    def __init__(self, optimizer: object) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.step()


class Prepared(torch.optim.Optimizer):
    """An optimizer by its type alone, as that of accelerate."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self, closure: object = None) -> None:  # pyright: ignore
        self.optimizer.step()


def test_steps_through_wrappers_count_once_each():
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped = Duck(Prepared(optimizer))
    with swarmsgd.join(model, wrapped) as swarm:
        for _ in range(3):
            backward(model)
            wrapped.step()
        assert swarm.stats()["steps"] == 3


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Duck(None), "a Duck, whose steps cannot be followed"),
        (Duck(torch.nn.Linear(1, 1)), "a Duck, whose steps"),
        ("sgd", "a str, whose steps"),
        ({}, "a dict, whose steps"),
        ([], "the list of optimizers is empty"),
    ],
)
def test_what_is_no_optimizer_is_refused_with_what_is_wanted(given: object, says: str):
    with pytest.raises(ConfigError, match=says):
        swarmsgd.join(small(), given)


def test_an_optimizer_that_is_given_twice_is_refused():
    optimizer = sgd()
    with pytest.raises(ConfigError, match="some of them twice"):
        optimizers_of([optimizer, Duck(optimizer)])


def test_of_several_optimizers_the_last_ones_steps_count_and_all_are_free_again():
    model = small()
    first = torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9)
    last = torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9)
    state = ("momentum_buffer",)
    with swarmsgd.join(model, [first, last], exchange_state=state) as swarm:
        for _ in range(3):
            backward(model)
            first.step()
            first.step()
            last.step()
        assert swarm.stats()["steps"] == 3
        lies = {t.data_ptr() for t in swarm._states[0].live.tensors}
        made = [s["momentum_buffer"] for o in (first, last) for s in o.state.values()]
        assert lies == {t.data_ptr() for t in made}
        with pytest.raises(ConfigError, match="part of a swarm already"):
            swarmsgd.join(model, first)
        third = torch.optim.AdamW(model[0].parameters())
        with pytest.raises(ModelError, match=r"AdamW steps parameters .* \(SGD and SGD\)"):
            third.step()
    swarmsgd.join(model, first).leave()


def test_parameters_that_nobody_steps_are_told_of(caplog: pytest.LogCaptureFixture):
    model = small()
    with caplog.at_level(logging.INFO, "swarmsgd"):
        swarmsgd.join(model, torch.optim.SGD(model[2].parameters(), lr=0.1)).leave()
    assert "2 of 4 trainable parameters are exchanged though no optimizer" in caplog.text
    assert "(0.weight, 0.bias)" in caplog.text


class ByItself(Duck):
    """Does the arithmetic itself: the optimizer that it keeps makes no step."""

    def step(self) -> None:
        with torch.no_grad():
            for parameter in self.optimizer.param_groups[0]["params"]:
                parameter -= 0.1 * parameter.grad


UNCOUNTED = "no step of its optimizer (SGD) was counted: something else trains them"


@pytest.mark.parametrize(
    "look", [swarmsgd.Swarm.mean_model, swarmsgd.Swarm.leave, Path], ids=["mean", "leave", "save"]
)
def test_a_wrapper_that_makes_no_step_of_its_optimizer_is_told_of(
    look: Callable, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    model = small()
    wrapper = ByItself(torch.optim.SGD(model.parameters(), lr=0.1))
    swarm = swarmsgd.join(model, wrapper)
    for _ in range(3):
        backward(model)
        wrapper.step()
    swarm.save(tmp_path) if look is Path else look(swarm)
    swarm.leave()
    assert caplog.text.count(UNCOUNTED) == 1


def test_an_error_on_its_way_out_is_not_drowned_by_it(caplog: pytest.LogCaptureFixture):
    model = small()
    wrapper = ByItself(torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(KeyError), swarmsgd.join(model, wrapper):
        backward(model)
        wrapper.step()
        raise KeyError
    assert UNCOUNTED not in caplog.text


def test_it_is_told_while_it_trains_and_weights_that_are_loaded_are_no_training(
    caplog: pytest.LogCaptureFixture,
):
    model = small()
    wrapper = ByItself(torch.optim.SGD(model.parameters(), lr=0.1))
    for changes, told in ((1, 0), (2, 1)):
        segments = Segments("parameter", Layout(model).slots, Layout(model).parameters)
        uncounted = Uncounted(segments, "SGD")
        for _ in range(changes):
            backward(model)
            wrapper.step()
            uncounted.look_alone()
        for _ in range(3):
            uncounted.look_alone()
        uncounted.end()
        assert caplog.text.count(UNCOUNTED) == told


def test_a_model_that_is_stepped_or_stays_as_it_is_is_no_fault(caplog: pytest.LogCaptureFixture):
    model = small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with swarmsgd.join(model, optimizer) as swarm:
        swarm.mean_model()
        backward(model)
        optimizer.step()
        ByItself(optimizer).step()
        swarm.mean_model()
    assert UNCOUNTED not in caplog.text


DDP = """
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
bare, inner = nn.Linear(3, 2), nn.Linear(3, 2)
def optimizer(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)
def error_of(call):
    try:
        return str(call())
    except swarmsgd.errors.ConfigError as error:
        return str(error)
before = nn.parallel.DistributedDataParallel(inner)
of_inner = error_of(lambda: swarmsgd.join(inner, optimizer(inner)))
of_wrapper = error_of(lambda: swarmsgd.join(before, optimizer(before)))
mine = optimizer(bare)
with swarmsgd.join(bare, mine):  # another model's DDP is no fault
    after = nn.parallel.DistributedDataParallel(bare)
    for p in bare.parameters():
        p.grad = torch.zeros_like(p)
    of_late = error_of(mine.step)
say(inner=of_inner, wrapper=of_wrapper, late=of_late)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_model_that_ddp_averages_already_is_refused():
    errors = run(DDP, 1)[0]
    for text in errors.values():
        assert text.startswith("this model is in a DistributedDataParallel over 2 processes")
        assert "--no-standard-env" in text


TOLD = """
import os, sys
from swarmsgd.integrations import hide_place
hide_place()
import torch, swarmsgd
assert "RANK" not in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
model = torch.nn.Linear(2, 2)
with swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1)) as swarm:
    print("accuracy of", swarm.num_nodes, "nodes")
"""


@pytest.mark.slow
def test_nodes_of_torchrun_meet_with_the_standard_variables_hidden(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(TOLD)
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    done = subprocess.run(
        [sys.executable, "-m", *torchrun, str(script)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # Both print to one pipe at once: their lines may be mixed up.
    assert done.stdout.count("accuracy of") == done.stdout.count("nodes") == 2
