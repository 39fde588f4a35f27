"""What people do with a model and an optimizer that have joined: it means what it always meant, or
is refused by name at the next step. One node; two where nodes must differ.
"""

from __future__ import annotations

import copy
import io
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nodes import Nodes, run
from safetensors.torch import load_file, save_model
from test_conservation import replica_of, segments_of
from torch import Tensor, nn
from torch.nn.modules import module as modules
from torch.optim import optimizer as optimizers

import swarmsgd
from swarmsgd.codec import make_code
from swarmsgd.errors import ModelError
from swarmsgd.train.node.result import state_with
from swarmsgd.train.node.watch import PART


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def backward(model: nn.Module, seed: int = 0) -> None:
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))
    dtype = next(model.parameters()).dtype
    model.zero_grad()
    model(x.to(dtype)).square().mean().backward()


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 0) -> None:
    backward(model, seed)
    optimizer.step()


def size_of(value: object) -> int:
    file = io.BytesIO()
    torch.save(value, file)
    return file.tell()


def test_savers_and_other_processes_find_what_they_found_before(tmp_path: Path):
    model = small()
    optimizer = sgd(model)
    parts = {"bias": model[2].bias, "head": model[2].state_dict(), "all": model.state_dict()}
    sizes = {name: size_of(part) for name, part in parts.items()}
    storages = [p.untyped_storage().data_ptr() for p in model.parameters()]
    with swarmsgd.join(model, optimizer) as swarm:
        assert storages == [p.untyped_storage().data_ptr() for p in model.parameters()]
        assert sizes == {name: size_of(part) for name, part in parts.items()}
        step(model, optimizer)
        save_model(model, str(tmp_path / "all"))
        assert load_file(tmp_path / "all").keys() == model.state_dict().keys()
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin[0].weight, model[0].weight)
        model.share_memory()  # as torch.multiprocessing does to a state dict on a queue
        step(model, optimizer)
        mean = swarm.mean_model()
        assert model[0].weight.is_shared() and mean["2.bias"].untyped_storage().nbytes() == 12
    assert all(torch.equal(mean[name], value) for name, value in model.state_dict().items())


class Tied(nn.Module):
    """Two parameters and a buffer on memory of other parameters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.middle = nn.Embedding(11, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight.data = self.embed.weight.data
        self.register_buffer("alias", self.middle.weight.data)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(torch.tanh(self.middle(self.embed(words))))


def test_weights_tied_by_memory_train_as_without_a_swarm():
    plain, joined = Tied(), Tied()
    both = [torch.optim.SGD(m.parameters(), lr=0.5) for m in (plain, joined)]
    with swarmsgd.join(joined, both[1]) as swarm:
        for seed in range(10):
            words = torch.randint(11, (32,), generator=torch.Generator().manual_seed(seed))
            for model, optimizer in zip((plain, joined), both, strict=True):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(words), words * 3 % 11).backward()
                optimizer.step()
        mean = swarm.mean_model()
    for name, value in plain.state_dict().items():
        assert torch.equal(joined.state_dict()[name], value) and torch.equal(mean[name], value)


def test_weights_that_come_apart_are_refused():
    model = Tied()
    optimizer = sgd(model)
    with swarmsgd.join(model, optimizer):
        model.head.weight.data = model.head.weight.data.clone()
        model(torch.arange(4)).sum().backward()
        with pytest.raises(ModelError, match=r"head\.weight shared its memory with another"):
            optimizer.step()


def test_the_default_dtype_does_not_matter():
    model = small()
    torch.set_default_dtype(torch.float64)
    try:
        with swarmsgd.join(model, sgd(model)) as swarm:
            mean = swarm.mean_model()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {v.dtype for v in [*mean.values(), *model.parameters()]} == {torch.float32}


def unfrozen(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    model[0].requires_grad_(True)


def new_head(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    model[2] = nn.Linear(16, 3)
    optimizer.add_param_group({"params": model[2].parameters()})


def frozen_head(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    model[2] = nn.Linear(16, 3).requires_grad_(False)


def assigned(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)


def cast(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    model.double()


Change = Callable[[nn.Sequential, torch.optim.Optimizer], None]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (unfrozen, r"parameter 0\.weight is trained, but was not when this model joined"),
        (new_head, r"parameter 2\.weight is trained, but was not"),
        (frozen_head, r"parameter 2\.weight is no part of the model any more"),
        (assigned, r"parameter 2\.weight is trained, but was not"),
        (cast, r"parameter 2\.weight is now torch\.float64"),
    ],
)
def test_what_each_node_would_train_alone_is_refused_at_the_next_step(change: Change, says: str):
    model = small()
    model[0].requires_grad_(False)
    optimizer = sgd(model)
    with swarmsgd.join(model, optimizer, local_steps=1000) as swarm:
        step(model, optimizer)
        change(model, optimizer)
        backward(model) if change is not frozen_head else None
        with pytest.raises(ModelError, match=says):
            optimizer.step()
        with pytest.raises(ModelError, match=says):
            swarm.mean_model()


def deep() -> nn.Sequential:
    """60 parameters, far more than are looked at after each step."""
    return nn.Sequential(*(nn.Linear(6, 6) for _ in range(30)))


def test_a_new_layer_is_noticed_at_once_however_deep_the_model():
    model = deep()
    optimizer = sgd(model)
    with swarmsgd.join(model, optimizer, local_steps=1000):
        step(model, optimizer)
        model[27] = nn.Linear(6, 6)
        backward(model)
        with pytest.raises(ModelError, match=r"parameter 27\.weight is trained, but was not"):
            optimizer.step()


def test_an_unfrozen_parameter_is_noticed_within_a_round_over_all_and_before_any_mean():
    model = deep()
    model[27].weight.requires_grad_(False)
    optimizer = sgd(model)
    with swarmsgd.join(model, optimizer, local_steps=1000) as swarm:
        step(model, optimizer)
        model[27].weight.requires_grad_(True)
        with pytest.raises(ModelError, match=r"parameter 27\.weight is trained"):
            swarm.mean_model()
        backward(model)
        with pytest.raises(ModelError, match=r"parameter 27\.weight is trained"):
            for _ in range(-(-60 // PART)):
                optimizer.step()


def test_nothing_of_a_swarm_stays_registered_after_it():
    def registered() -> list[int]:
        tables = (
            modules._global_parameter_registration_hooks,
            modules._global_module_registration_hooks,
            optimizers._global_optimizer_pre_hooks,
            optimizers._global_optimizer_post_hooks,
        )
        return [len(table) for table in tables]

    before = registered()
    model = small()
    swarm = swarmsgd.join(model, sgd(model))
    assert registered() != before
    swarm.leave()
    assert registered() == before


def test_parameters_may_be_frozen_for_a_while_moved_and_replaced_by_their_likes():
    model = small()
    optimizer = sgd(model)
    with swarmsgd.join(model, optimizer, local_steps=1000) as swarm:
        for seed in range(6):
            model[0].requires_grad_(bool(seed % 2))  # as a GAN's loop does
            for parameter in model.parameters():
                parameter.data = parameter.data.clamp(-0.5, 0.5)
            step(model, optimizer, seed)
        model[2].weight.data = model[2].weight.data.t().contiguous().t()
        mean = swarm.mean_model()
    for name, value in model.state_dict().items():
        assert torch.equal(mean[name], value)


class Wrapper(torch.optim.Optimizer):
    """Holds another optimizer's parameters and groups, as sharpness-aware ones do."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__(inner.param_groups[0]["params"], {})
        self.inner = inner
        self.param_groups = inner.param_groups

    def second_step(self) -> None:
        self.inner.step()

    def step(self, closure: object = None) -> None:  # pyright: ignore
        self.second_step()


def test_steps_of_another_optimizer_are_refused_and_those_inside_another_count_once():
    model = small()
    inner = sgd(model)
    outer = Wrapper(inner)
    for joined in (inner, outer):
        with swarmsgd.join(model, joined) as swarm:
            step(model, outer)
            step(model, outer)
            assert swarm.stats()["steps"] == 2
            if joined is outer:
                with pytest.raises(ModelError, match=r"SGD steps parameters .* \(Wrapper\)"):
                    outer.second_step()
    inner = outer = None
    with swarmsgd.join(model, sgd(model)):
        second = torch.optim.AdamW(model.parameters())
        with pytest.raises(ModelError, match=r"AdamW steps parameters .* \(one that is gone\)"):
            step(model, second)
    step(model, second)  # the swarm looks no more


def test_two_optimizers_of_different_parameters_are_no_fault():
    model = small()
    first, second = (torch.optim.SGD(model[k].parameters(), lr=0.1) for k in (0, 2))
    with swarmsgd.join(model, first) as swarm:
        for _ in range(3):
            step(model, second)
            first.step()
        assert swarm.stats()["steps"] == 3


def test_an_optimizer_with_weights_of_its_own_is_warned_of(caplog: pytest.LogCaptureFixture):
    for how, warned in ((lambda p: torch.optim.ASGD(p), True), (torch.optim.AdamW, False)):
        caplog.clear()
        model = small()
        optimizer = how(model.parameters())
        with caplog.at_level(logging.WARNING, "swarmsgd"), swarmsgd.join(model, optimizer):
            step(model, optimizer)
            step(model, optimizer)
        assert caplog.text.count("exchange_state=('ax',)") == warned


def test_parameters_outside_the_model_are_warned_of(caplog: pytest.LogCaptureFixture):
    model, criterion = small(), nn.Linear(5, 7, bias=False)
    optimizer = torch.optim.SGD([*model.parameters(), *criterion.parameters()], lr=0.1)
    with caplog.at_level(logging.WARNING, "swarmsgd"), swarmsgd.join(model, optimizer):
        step(model, optimizer)
    assert caplog.text.count("steps 1 parameters (shapes [7, 5]) that are no part") == 1


@pytest.mark.parametrize("kind", ["half", "copy"])
def test_a_mean_goes_through_the_models_own_state_dict(kind: str):
    model = small()
    model.register_buffer("count", torch.zeros(3))

    def hook(module: nn.Module, state: dict, prefix: str, meta: object) -> None:
        for name, value in list(state.items()):
            state[f"saved.{name}"] = value.half() if kind == "half" else value.clone()
            del state[name]

    model._register_state_dict_hook(hook)
    parameters = list(model.parameters())
    values = {id(p): torch.full_like(p, 2.0) for p in parameters}
    state = state_with(model, values, {"count": torch.full((3,), 4.0)})
    assert state.keys() == {f"saved.{n}" for n in [*small().state_dict(), "count"]}
    assert {float(v.double().mean()) for v in state.values()} == {2.0, 4.0}
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert float(model.count.sum()) == 0


def test_a_model_is_read_with_what_is_pending_and_stays_as_it_is():
    model = small()
    replica = replica_of(segments_of(model), make_code(163, None))
    before = [p.detach().clone() for p in model.parameters()]
    vector = replica.vectors[0]
    vector.pending += 1
    vector.has_pending = True
    whole = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()
    np.testing.assert_array_equal(replica.read(), whole + 1)
    assert all(torch.equal(p, v) for p, v in zip(model.parameters(), before, strict=True))
    with torch.no_grad():  # other weights are in the model while its mean is taken, and go again
        for parameter, value in zip(model.parameters(), before, strict=True):
            parameter.copy_(value)
    replica.settle()
    assert all(torch.equal(p, v + 1) for p, v in zip(model.parameters(), before, strict=True))


DIFFERENT = """
from torch.nn.utils.parametrizations import spectral_norm
import logging
logging.basicConfig(stream=sys.stdout, level=logging.INFO)
torch.manual_seed(RANK)
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), spectral_norm(nn.Linear(128, 2)))
model.register_buffer("cache", torch.ones(3))
for name in ("mu", "sigma") if RANK else ("sigma", "mu"):
    model.register_buffer(name, torch.tensor(1.0 if name == "mu" else 9.0))
if RANK:
    model = model.to(memory_format=torch.channels_last)
model.register_forward_hook(lambda *_: setattr(model, "cache", torch.ones(3 + RANK)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
settings = dict(mode="matching", local_steps=1, bits=None, buffers="average")
with swarmsgd.join(model, optimizer, **settings) as swarm:
    for step in range(5):
        draw = torch.Generator().manual_seed(10 * RANK + step)
        optimizer.zero_grad()
        model(torch.randn(4, 3, 6, 6, generator=draw)).square().mean().backward()
        optimizer.step()
    mean = swarm.mean_model()
u = mean["3.parametrizations.weight.0._u"]
say(sum=[float(v.double().sum()) for n, v in sorted(mean.items()) if n != "cache"],
    norm=float(u.norm()), gamma=swarm.gamma, mu=float(model.mu),
    format=model[0].weight.is_contiguous(memory_format=torch.channels_last),
    cache=len(mean["cache"]), conv=float((mean["0.weight"] - model[0].weight).abs().max()))
"""


@pytest.mark.slow
def test_nodes_whose_models_differ_in_what_may_differ_agree_in_the_rest():
    with Nodes(DIFFERENT, 2) as nodes:
        assert nodes.wait() == [0, 0], nodes.everything()
        (first,), (second,) = nodes.said(0), nodes.said(1)
        assert "not alike on all nodes, so this node's own in the mean: cache" in nodes.output(1)
        kept = "buffers of a parametrization, in the mean node 0's: 3.parametrizations.weight.0._u"
        assert kept in nodes.output(1)
    assert first["sum"] == second["sum"] and first["norm"] == pytest.approx(1)
    assert first["gamma"] < 1e-12 and first["conv"] < 1e-6 and second["conv"] < 1e-6
    assert first["mu"] == second["mu"] == 1
    assert (first["format"], second["format"]) == (False, True)
    assert (first["cache"], second["cache"]) == (3, 4)


@pytest.mark.slow
def test_a_schedule_free_optimizer_whose_own_weights_are_averaged_too_agrees_everywhere():
    body = """
import schedulefree
model = Vector(4)
optimizer = schedulefree.SGDScheduleFree(model.parameters(), lr=0.5)
optimizer.train()
settings = dict(mode="matching", local_steps=4, bits=None, exchange_state=("z",))
with swarmsgd.join(model, optimizer, **settings) as swarm:
    for _ in range(80):
        optimizer.zero_grad()
        (model.x - RANK).square().sum().backward()
        optimizer.step()
    swarm.mean_model()
optimizer.eval()
say(evaluated=model.x.tolist(), steps=swarm.stats()["steps"])
"""
    pytest.importorskip("schedulefree")
    first, second = run(body, 2)
    assert first["evaluated"] == pytest.approx(second["evaluated"], abs=1e-5)
    assert first["evaluated"] == pytest.approx([0.5] * 4, abs=0.1)


@pytest.mark.slow
def test_a_start_whose_buffers_differ_is_refused_by_name():
    body = """
model = nn.Linear(2, 2)
model.register_buffer("mu", torch.ones(1, dtype=torch.float64 if RANK else torch.float32))
if RANK:
    model.register_buffer("extra", torch.ones(2))
try:
    swarmsgd.join(model, torch.optim.SGD(model.parameters(), lr=0.1))
except swarmsgd.errors.PeerError as error:
    say(error=str(error))
"""
    error = run(body, 2)[0]["error"]
    assert '["mu float32 [1]"] here, ["extra float32 [2]", "mu float64 [1]"] there' in error
