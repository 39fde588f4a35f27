"""The arena: where the numbers lie changes, nothing else does."""

import pytest
import torch
from torch import nn

from swarmsgd.core.arena import Arena
from swarmsgd.errors import ModelError


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def test_values_keys_and_identities_stay():
    model = small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    identities = [id(p) for p in model.parameters()]
    arena = Arena(model)
    assert [id(p) for p in model.parameters()] == identities
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert arena.dim == sum(p.numel() for p in model.parameters())


def test_parameters_are_views_of_one_vector():
    model = small()
    arena = Arena(model)
    arena.live.fill_(0.5)
    assert all(bool((p == 0.5).all()) for p in model.parameters())


@pytest.mark.slow
def test_an_optimizer_with_state_goes_on_as_it_would_without():
    outcomes: list[list[torch.Tensor]] = []
    for with_arena in (False, True):
        model = small()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        x = torch.ones(2, 1, 4, 4)
        for step in range(6):
            if step == 3 and with_arena:
                Arena(model)
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        outcomes.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))


def test_tied_parameters_count_once_and_stay_tied():
    model = nn.ModuleDict({"embed": nn.Embedding(7, 3), "out": nn.Linear(3, 7, bias=False)})
    model["out"].weight = model["embed"].weight
    arena = Arena(model)
    assert arena.dim == 21
    assert model["out"].weight is model["embed"].weight


def test_frozen_parameters_are_left_where_they_are():
    model = small()
    model[0].weight.requires_grad_(False)
    address = model[0].weight.data_ptr()
    arena = Arena(model)
    assert model[0].weight.data_ptr() == address
    assert arena.dim == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_memory_format_of_a_parameter_is_kept():
    model = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # pyright: ignore
    stride, value = model.weight.stride(), model.weight.detach().clone()
    arena = Arena(model)
    assert model.weight.stride() == stride and torch.equal(model.weight, value)
    assert dict(arena.named(arena.live))["weight"].stride() == stride


def test_what_cannot_be_averaged_is_refused_by_name():
    with pytest.raises(ModelError, match="no parameter with requires_grad"):
        Arena(nn.ReLU())
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).to(torch.bfloat16))
    with pytest.raises(ModelError, match=r"1\.weight is torch\.bfloat16.*autocast"):
        Arena(mixed)
    with pytest.raises(ModelError, match="is on the meta device"):
        Arena(nn.Linear(2, 2, device="meta"))


def test_a_parameter_moved_after_join_is_noticed():
    model = small()
    arena = Arena(model)
    arena.check()
    model[3].bias.data = model[3].bias.data.clone()
    with pytest.raises(ModelError, match=r"3\.bias was moved after join"):
        arena.check()


def test_loading_a_state_dict_keeps_the_views():
    model = small()
    arena = Arena(model)
    model.load_state_dict({k: torch.zeros_like(v) for k, v in model.state_dict().items()})
    arena.check()
    assert not arena.live.any()


def test_non_finite_values_are_named():
    model = small()
    arena = Arena(model)
    assert arena.first_bad() == "all parameters are finite"
    with torch.no_grad():
        model[3].bias[1] = float("nan")
    assert arena.first_bad() == "3.bias has 1 non-finite of 3 values"


def test_release_gives_each_parameter_its_own_storage():
    model = small()
    arena = Arena(model)
    values = [p.detach().clone() for p in model.parameters()]
    arena.release()
    arena.live.fill_(9)
    assert all(torch.equal(p, v) for p, v in zip(model.parameters(), values, strict=True))
