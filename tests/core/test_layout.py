"""The layout of a model's vector, and its parts where they lie."""

import numpy as np
import pytest
import torch
from torch import nn

from swarmsgd.core.layout import Layout
from swarmsgd.core.segments import Segments
from swarmsgd.errors import ModelError


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def segments_of(model: nn.Module) -> Segments:
    layout = Layout(model)
    return Segments("parameter", layout.slots, layout.parameters)


def read(live: Segments) -> np.ndarray:
    vector = np.empty(live.dim, np.float32)
    live.read(vector)
    return vector


def test_nothing_of_a_model_changes_and_each_place_of_the_vector_is_a_parameters():
    model = small()
    before = [(id(p), p.data_ptr(), p.detach().clone()) for p in model.parameters()]
    live = segments_of(model)
    for parameter, (identity, address, value) in zip(model.parameters(), before, strict=True):
        assert (id(parameter), parameter.data_ptr()) == (identity, address)
        assert torch.equal(parameter, value)
    whole = torch.cat([p.detach().flatten() for p in model.parameters()])
    np.testing.assert_array_equal(read(live), whole)
    live.write(whole.numpy() + 1)
    assert all(torch.equal(p, v + 1) for p, (*_, v) in zip(model.parameters(), before, strict=True))


def test_parameters_tied_as_objects_or_by_memory_count_once():
    model = nn.ModuleDict({"embed": nn.Embedding(7, 3), "out": nn.Linear(3, 7, bias=False)})
    model["out"].weight = model["embed"].weight
    assert Layout(model).dim == 21
    model["out"].weight = nn.Parameter(model["embed"].weight.data)
    layout = Layout(model)
    assert layout.dim == 21
    assert [name for name, *_ in layout.tied] == ["out.weight"]
    values = layout.by_identity(torch.arange(21.0))
    assert torch.equal(values[id(model["out"].weight)], values[id(model["embed"].weight)])


@pytest.mark.parametrize("how", ["slice", "expanded"])
def test_parameters_that_share_a_part_of_their_memory_are_refused(how: str):
    model = nn.Module()
    model.whole = nn.Parameter(torch.ones(1 if how == "expanded" else 6))
    part = model.whole.data.expand(4) if how == "expanded" else model.whole.data[2:4]
    model.part = nn.Parameter(part)
    with pytest.raises(ModelError, match="parameter part cannot be averaged"):
        Layout(model)


def test_slices_of_one_tensor_that_do_not_meet_are_parameters_like_any():
    model, whole = nn.Module(), torch.arange(12.0).view(3, 4)
    model.left, model.right = nn.Parameter(whole[:, :2]), nn.Parameter(whole[:, 2:])
    live = segments_of(model)
    np.testing.assert_array_equal(read(live), [0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11])


def test_what_cannot_be_averaged_is_refused_by_name():
    with pytest.raises(ModelError, match="no parameter with requires_grad"):
        Layout(nn.ReLU())
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).to(torch.bfloat16))
    with pytest.raises(ModelError, match=r"1\.weight is torch\.bfloat16.*autocast"):
        Layout(mixed)
    with pytest.raises(ModelError, match="is on the meta device"):
        Layout(nn.Linear(2, 2, device="meta"))
    with pytest.raises(ModelError, match="weight has no shape yet: run one batch"):
        Layout(nn.LazyLinear(2))


def test_the_memory_format_of_a_parameter_is_that_of_its_place():
    model = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)  # pyright: ignore
    live = segments_of(model)
    assert live.slots[0].stride == model.weight.stride()
    assert live.addresses[0] == model.weight.data_ptr()


def test_a_parameter_that_moved_is_followed_by_value_whatever_its_strides():
    model = nn.Conv2d(3, 8, 3)
    live, values = segments_of(model), model.weight.detach().clone()
    for move in (torch.clone, lambda t: t.to(memory_format=torch.channels_last)):
        model.weight.data = move(model.weight.data)
        assert live.moved()
        live.locate()
        assert not live.moved()
        np.testing.assert_array_equal(read(live)[:216], values.flatten())
    live.pull()
    held = live._detours[0]
    assert live.addresses[0] == held.data_ptr() and torch.equal(held, values)
    held += 1
    live.push()
    assert torch.equal(model.weight, values + 1)
    assert model.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.double(), "parameter weight is now torch.float64 of shape"),
        (lambda t: t[:1], r"parameter weight is now torch.float32 of shape \[1, 3\], but joined"),
    ],
)
def test_a_parameter_that_is_another_thing_now_is_refused_by_name(change, says):
    model = nn.Linear(3, 2)
    live = segments_of(model)
    model.weight.data = change(model.weight.data)
    with pytest.raises(ModelError, match=says):
        live.locate()


def test_autograd_is_told_of_values_that_were_written():
    model = small()
    live = segments_of(model)
    before = [p._version for p in model.parameters()]
    live.push()
    assert all(p._version > v for p, v in zip(model.parameters(), before, strict=True))


def test_non_finite_values_are_named():
    model = small()
    live = segments_of(model)
    assert live.first_bad(read(live)) == "all parameters are finite"
    with torch.no_grad():
        model[3].bias[1] = float("nan")
    assert live.first_bad(read(live)) == "3.bias has 1 non-finite of 3 values"
    with torch.no_grad():
        model[3].bias[1] = -1e36
    assert live.first_bad(read(live)) == "3.bias has 1 beyond 1e+34 of 3 values"
