"""What people train with means the same in a swarm. On one node all is plain PyTorch's to the bit;
two nodes in matching mode, H = 1, hold the average, worked out by hand, after every step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from nodes import free_port
from torch import nn
from torch._dynamo.utils import counters
from torch.distributed import TCPStore
from torch.utils.data import DataLoader
from works_with import (
    LOOPS,
    ON_ONE_NODE,
    REFUSALS,
    START_METHODS,
    STEPS,
    Batches,
    CompiledStep,
    Gan,
    Loop,
    Lora,
    Refusal,
    batch,
    frozen_first,
    table,
    unfreeze,
)

import swarmsgd
from swarmsgd.errors import ModelError
from swarmsgd.train.launch.variables import HOSTED, OWN
from swarmsgd.train.meet import rendezvous
from swarmsgd.train.node.join_checks import untraced

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own

PAGE = Path(__file__).parent.parent.parent / "docs" / "works-with.md"
WAIT_S = 120.0
EXACT = {"mode": "matching", "local_steps": 1, "bits": None}


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store that somebody else hosts, where all nodes of this process meet."""
    made = TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=60))
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(made.port), HOSTED: "True"}
    for name, value in places.items():
        monkeypatch.setenv(OWN[name], value)
    # A port may be one of an earlier test's, where not all of these nodes have joined as often.
    monkeypatch.setattr(rendezvous, "_joins", {})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def in_threads(call: Callable[[int], Any], count: int) -> list[Any]:
    """What `call(node)` gives for each node, each in a thread."""
    results: list[Any] = [None] * count
    errors: list[BaseException] = []

    def run(node: int) -> None:
        try:
            results[node] = call(node)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(node,), daemon=True) for node in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive(), "a node hangs"
    for error in errors:
        raise error
    return results


def trained(loop: Loop, node: int, count: int) -> Loop:
    """After `STEPS` steps as one of `count` nodes."""
    swarms = [
        swarmsgd.join(model, optimizer, rank=node, num_nodes=count, **EXACT)
        for model, optimizer in loop.joins()
    ]
    try:
        for step in range(STEPS):
            loop.step(node, step)
        for swarm in swarms:
            assert swarm.stats()["steps"] == loop.counted
            if count > 1:
                counts = swarm.stats()
                assert counts["completed"] + counts["answered"] == loop.counted
    finally:
        for swarm in swarms:
            swarm.leave()
    return loop


def trained_by_hand(loop: Loop, node: int, meet: threading.Barrier, others: list[Loop]) -> None:
    """As `trained`: all nodes' models are averaged in float64 after each step."""

    @torch.no_grad()
    def average(at: int) -> None:
        if meet.wait(WAIT_S) == 0:
            models = [other.joins()[at][0] for other in others]
            for each in zip(*(model.parameters() for model in models), strict=True):
                if each[0].requires_grad:
                    mean = torch.stack([p.double() for p in each]).mean(0)
                    for parameter in each:
                        parameter.copy_(mean)
        meet.wait(WAIT_S)

    for at, (_, given) in enumerate(loop.joins()):
        last = given[-1] if isinstance(given, list) else given
        last.register_step_post_hook(untraced(lambda *_, at=at: average(at)))
    for step in range(STEPS):
        loop.step(node, step)


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """A nest of dicts and lists by paths."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        found: dict[str, Any] = {}
        for name, inner in items:
            found |= flat(inner, f"{path}/{name}")
        return found
    return {path: value}


def same(one: Any, other: Any) -> bool:
    """To the bit, and in the same memory format."""
    if isinstance(one, torch.Tensor):
        alike = one.dtype == other.dtype and one.stride() == other.stride()
        return alike and torch.equal(one, other)
    return bool(one == other)


@pytest.mark.slow
@pytest.mark.parametrize("make", LOOPS, ids=lambda loop: loop.__name__)
def test_one_node_is_plain_pytorch_to_the_bit(make: type[Loop]):
    plain, joined = make(), make()
    torch.manual_seed(7)
    for step in range(STEPS):
        plain.step(0, step)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    trained(joined, 0, 1)
    assert torch.equal(torch.get_rng_state(), after)
    wanted, found = flat(plain.checkpoint()), flat(joined.checkpoint())
    assert found.keys() == wanted.keys()
    different = [name for name, value in wanted.items() if not same(value, found[name])]
    assert not different


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [loop for loop in LOOPS if loop not in ON_ONE_NODE], ids=lambda loop: loop.__name__
)
def test_two_nodes_have_the_average_after_every_step(make: type[Loop]):
    by_hand = [make(), make()]
    meet = threading.Barrier(2)
    in_threads(lambda node: trained_by_hand(by_hand[node], node, meet, by_hand), 2)
    loops = [make(), make()]
    in_threads(lambda node: trained(loops[node], node, 2), 2)
    for wanted, found in zip(by_hand, loops, strict=True):
        for (plain, _), (joined, _) in zip(wanted.joins(), found.joins(), strict=True):
            names = dict(joined.named_parameters())
            for name, value in plain.named_parameters():
                far = (names[name] - value).abs().max().item() / value.abs().max().item()
                assert far <= make.tolerance, (name, far)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.words)
def test_what_cannot_be_averaged_is_refused_with_what_to_do(refusal: Refusal):
    model = refusal.make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if refusal.change is None:
        with pytest.raises(ModelError) as refused:
            swarmsgd.join(model, optimizer, rank=0, num_nodes=1)
    else:
        with swarmsgd.join(model, optimizer, rank=0, num_nodes=1):
            refusal.change(model, optimizer)
            model(torch.ones(2, 6)).sum().backward()
            with pytest.raises(ModelError) as refused:
                optimizer.step()
    assert refusal.says in str(refused.value)


@pytest.mark.slow
def test_a_compiled_step_is_compiled_once():
    loop = CompiledStep()
    with swarmsgd.join(*loop.joins()[0], rank=0, num_nodes=1, local_steps=2):
        for step in range(2):
            loop.step(0, step)
        counters.clear()
        for step in range(12):
            loop.step(0, step)
        assert counters["frames"]["total"] == 0


def test_frozen_parameters_are_not_sent():
    sizes = {}
    for make in (Loop, Lora):
        ((model, optimizer),) = make().joins()
        with swarmsgd.join(model, optimizer, rank=0, num_nodes=1) as swarm:
            sizes[make] = swarm._watch.layout.dim
    assert list(sizes.values()) == [6 * 16 + 16 + 16 * 3 + 3, 2 * (6 + 16) + 2 * (16 + 3)]


def test_the_page_has_the_table_of_these_cases():
    assert table() in PAGE.read_text(), "scripts/document writes it anew"


def test_every_case_says_something_of_its_own():
    words = [case.words for case in (*LOOPS, *REFUSALS)]
    assert len(set(words)) == len(words)


@pytest.mark.slow
@pytest.mark.parametrize("method", START_METHODS)
def test_workers_of_a_data_loader_are_no_nodes(method: str):
    plain, joined = Loop(), Loop()
    for step in range(STEPS):
        plain.step(0, step)
    loader = DataLoader(Batches(), batch_size=None, num_workers=1, multiprocessing_context=method)
    with swarmsgd.join(*joined.joins()[0], rank=0, num_nodes=1, **EXACT) as swarm:
        for x, y in loader:
            joined.optimizer.zero_grad()
            nn.functional.mse_loss(joined.model(x), y).backward()
            joined.optimizer.step()
        assert swarm.stats()["steps"] == STEPS
        mean = swarm.mean_model()
    for name, value in plain.model.state_dict().items():
        assert torch.equal(joined.model.state_dict()[name], value) and torch.equal(
            mean[name], value
        )


def test_what_was_unfrozen_is_averaged_after_joining_again():
    def node(rank: int) -> nn.Module:
        model = frozen_first()
        for _ in range(2):
            trained = (p for p in model.parameters() if p.requires_grad)
            optimizer = torch.optim.SGD(trained, lr=0.1)
            with swarmsgd.join(model, optimizer, rank=rank, num_nodes=2, **EXACT):
                for step in range(2):
                    model.zero_grad()
                    x, y = batch(rank, step)
                    nn.functional.mse_loss(model(x), y).backward()
                    optimizer.step()
            unfreeze(model, optimizer)
        return model

    before = [p.clone() for p in frozen_first().parameters()]
    first, second = (list(model.parameters()) for model in in_threads(node, 2))
    assert not any(torch.equal(a, b) for a, b in zip(first, before, strict=True))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_two_swarms_of_a_process_share_the_store_that_node_0_hosts(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv(OWN[HOSTED])
    monkeypatch.setenv(OWN["MASTER_PORT"], str(free_port()))
    for _ in range(2):  # the second time there is none any more, and it can be hosted again
        loops = in_threads(lambda node: trained(Gan(), node, 2), 2)
        for one, other in zip(*(loop.joins() for loop in loops), strict=True):
            for a, b in zip(one[0].parameters(), other[0].parameters(), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
