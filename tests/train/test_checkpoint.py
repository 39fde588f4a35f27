"""What is in a checkpoint, and which one a node begins with."""

import copy
import errno
import json
import random
from collections import Counter

import numpy as np
import one_node
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import swarmsgd
from swarmsgd.errors import ConfigError, DataError, SwarmError
from swarmsgd.optim import ScheduleFreeAdamW, reporting
from swarmsgd.train.checkpoint import container
from swarmsgd.train.checkpoint import save as saving
from swarmsgd.train.checkpoint.container import Checkpoint, Parcel
from swarmsgd.train.checkpoint.folder import Entry, Folder
from swarmsgd.train.checkpoint.resumed import LOADED, Resumed
from swarmsgd.train.checkpoint.tree import pack, unpack

pytestmark = pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def same(one, other) -> bool:
    """Equal in value, type and dtype, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other or (one != one and other != other)


def files(path):
    return sorted(p.name for p in path.rglob("*") if p.is_file())


# The format.

STATE = {
    "half": torch.arange(3, dtype=torch.bfloat16),
    "none": torch.empty(0, 4),
    "number": torch.tensor(2.5, dtype=torch.float64),
    "turned": torch.arange(12.0).view(3, 4).t(),
    "flags": [torch.tensor([True, False]), None, True],
    "betas": (0.9, 0.1 + 0.2),
    "infinite": [float("inf"), float("nan"), -0.0, 1e-310, 2**100],
    "by number": {0: {"a/b": torch.ones(1)}, 1: {}},
    "counted": Counter({30: 1, 80: 2}),
    "a": {"b": torch.zeros(1)},
    "a/b": torch.ones(2),
    "array": np.arange(3, dtype=np.uint32),
}


def test_what_is_written_is_read_again_to_the_bit_and_the_type(tmp_path):
    tensors = {}
    parcel = Parcel({"tree": pack(STATE, "x", tensors)}, tensors)
    with (tmp_path / "one").open("wb") as file:
        parcel.write(file)
    read = Checkpoint(tmp_path / "one", "one")
    assert same(unpack(read.about["tree"], read.tensor), STATE)
    assert len(load_file(tmp_path / "one")) == len(tensors) == 9  # safetensors knows the format


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array(["a"]), torch.float32, 1j])
def test_what_is_neither_a_tensor_nor_json_is_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"scheduler/odd/1 is .*cannot hold.*Nothing was written"):
        pack({"odd": [0, value]}, "scheduler", {})


def test_a_sparse_tensor_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"model/x is a tensor of layout torch.sparse_coo"):
        pack({"x": torch.ones(2).to_sparse()}, "model", {})


# Where it lies.


@pytest.fixture(params=["folder", "memory://"])
def place(request, tmp_path):
    if request.param == "folder":
        return str(tmp_path / "run")
    pytest.importorskip("fsspec")
    return f"memory://{tmp_path}/run"


def test_a_node_goes_on_with_all_that_it_had(place):
    model, optimizer = one_node.make()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3])
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    with swarmsgd.join(model, optimizer, local_steps="geometric:5") as swarm:
        for _ in range(7):
            one_node.step(model, optimizer)
            scheduler.step()
        swarm.save(place, scheduler=scheduler, scaler=scaler)
        burst = swarm._burst.made, swarm._burst.length
        drawn = torch.rand(2), np.random.rand(), random.random(), swarm._place.streams
        lengths = [drawn[3].lengths.integers(99) for _ in range(9)]

    other, its = one_node.make(seed=9)
    other_scheduler = torch.optim.lr_scheduler.MultiStepLR(its, [1, 3])
    other_scaler = torch.amp.GradScaler("cpu")
    begun = swarmsgd.load(place, other, its, scheduler=other_scheduler, scaler=other_scaler)
    assert begun and begun.steps == 7 and begun.nodes == 1
    assert torch.equal(torch.rand(2), drawn[0])
    assert (np.random.rand(), random.random()) == drawn[1:3]
    assert same(dict(other.state_dict()), dict(model.state_dict()))
    assert same(its.state_dict(), optimizer.state_dict())
    assert same(other_scheduler.state_dict(), scheduler.state_dict())
    assert other_scaler.get_scale() == 512.0
    with swarmsgd.join(other, its, local_steps="geometric:5") as swarm:
        assert (swarm.steps, swarm._burst.made, swarm._burst.length) == (7, *burst)
        assert [swarm._place.streams.lengths.integers(99) for _ in range(9)] == lengths


def test_the_first_start_finds_nothing_and_goes_on(place, caplog):
    model, optimizer = one_node.make()
    before = copy.deepcopy(model.state_dict())
    begun = swarmsgd.load(place, model, optimizer)
    assert not begun and begun.steps == 0
    assert f"no checkpoint of it in {Folder(place).where}" in caplog.text
    assert same(dict(model.state_dict()), dict(before))


def test_a_node_keeps_one_checkpoint_and_in_matching_mode_two(tmp_path):
    for mode, kept in (("non-blocking", [3]), ("matching", [2, 3])):
        model, optimizer = one_node.make()
        with swarmsgd.join(model, optimizer, mode=mode) as swarm:
            for _ in range(3):
                one_node.step(model, optimizer)
                swarm.save(tmp_path / mode)
        assert [entry.steps for entry in Folder(tmp_path / mode).entries()] == kept


def test_a_run_that_goes_back_to_an_earlier_step_gives_up_the_later_ones(tmp_path):
    resumed = Resumed(str(tmp_path), era=0)
    for steps in (10, 20, 15):
        settings = {"mode": "matching"}
        one_node.write(tmp_path, 0, 1, steps, settings=settings, resumed=resumed)
    assert [entry.steps for entry in Folder(tmp_path).entries()] == [10, 15]


def test_checkpoints_of_another_run_are_not_replaced(tmp_path, monkeypatch):
    one_node.write(tmp_path, 0, 1)
    monkeypatch.setattr(saving, "_WRITTEN", {})  # as another process would find it
    before = files(tmp_path)
    model, optimizer = one_node.make()
    with swarmsgd.join(model, optimizer) as swarm:
        one_node.step(model, optimizer)
        with pytest.raises(ConfigError, match=r"this run did not begin with.*load\(\) it before"):
            swarm.save(tmp_path)
    assert files(tmp_path) == before


def test_a_process_that_joins_again_saves_on(tmp_path):
    for _ in range(2):
        model, optimizer = one_node.make()
        with swarmsgd.join(model, optimizer) as swarm:
            one_node.step(model, optimizer)
            swarm.save(tmp_path)
    assert [entry.steps for entry in Folder(tmp_path).entries()] == [1]


def test_after_the_end_nothing_is_saved(tmp_path):
    model, optimizer = one_node.make()
    swarm = swarmsgd.join(model, optimizer)
    swarm.leave()
    with pytest.raises(SwarmError, match="save before leave"):
        swarm.save(tmp_path)
    assert not files(tmp_path)


def test_what_an_optimizer_reports_is_no_checkpoint(tmp_path):
    model, _ = one_node.make()
    optimizer = ScheduleFreeAdamW(model.parameters())
    with swarmsgd.join(model, optimizer) as swarm:
        one_node.step(model, optimizer)
        with reporting(optimizer), pytest.raises(SwarmError, match=r"Call its train\(\) first"):
            swarm.save(tmp_path)
        swarm.save(tmp_path)
    other = ScheduleFreeAdamW(one_node.make()[0].parameters())
    assert swarmsgd.load(tmp_path, model, other).steps == 1
    assert same(other.state_dict(), optimizer.state_dict())


def test_a_place_that_no_package_opens_is_named():
    pytest.importorskip("fsspec")
    with pytest.raises(ConfigError, match=r"nowhere://run cannot be opened.*Install"):
        Folder("nowhere://run")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is a file: checkpoints want a folder"):
        swarmsgd.load(tmp_path / "model.safetensors", *one_node.make())


# What cannot be taken up leaves everything as it was.


def refused(path, model, optimizer, kind, match, **parts):
    before = copy.deepcopy((dict(model.state_dict()), optimizer.state_dict()))
    drawn = torch.get_rng_state()
    with pytest.raises(kind, match=match):
        swarmsgd.load(path, model, optimizer, **parts)
    assert same((dict(model.state_dict()), optimizer.state_dict()), before)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert optimizer not in LOADED


def only_file(path):
    (found,) = path.rglob("*.safetensors")
    return found


def test_a_torn_file_is_refused(tmp_path):
    one_node.write(tmp_path, 0, 1)
    whole = only_file(tmp_path).read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        only_file(tmp_path).write_bytes(whole[:size])
        refused(tmp_path, *one_node.make(5), DataError, r"cannot be read.*Move it away")


def test_a_damaged_value_is_refused_by_name(tmp_path):
    one_node.write(tmp_path, 0, 1)
    damaged = bytearray(only_file(tmp_path).read_bytes())
    head = 8 + int.from_bytes(damaged[:8], "little")
    header = json.loads(damaged[8:head])
    damaged[head + header["model/0.weight"]["data_offsets"][0]] ^= 1
    only_file(tmp_path).write_bytes(damaged)
    refused(tmp_path, *one_node.make(5), DataError, r"is damaged in model/0\.weight")


def test_a_foreign_file_is_refused(tmp_path):
    one_node.write(tmp_path, 0, 1)
    save_file({"x": torch.ones(1)}, only_file(tmp_path))
    refused(tmp_path, *one_node.make(5), DataError, r"was not written by swarm\.save\(\)")


def test_another_version_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(container, "FORMAT_VERSION", 2)
    one_node.write(tmp_path, 0, 1)
    monkeypatch.undo()
    refused(tmp_path, *one_node.make(5), DataError, r"is a checkpoint of version 2.*version 1")


def test_another_model_is_refused_by_what_differs(tmp_path):
    one_node.write(tmp_path, 0, 1)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    match = r"another model: it has 2\.bias float32 \[2\], .*this one has 2\.bias float32 \[3\]"
    refused(tmp_path, model, optimizer, ConfigError, match)


def test_another_optimizer_is_refused(tmp_path):
    one_node.write(tmp_path, 0, 1)
    model, _ = one_node.make()
    for optimizer in (
        torch.optim.AdamW(model.parameters()),
        torch.optim.SGD([{"params": [p]} for p in model.parameters()], lr=0.1),
    ):
        refused(tmp_path, model, optimizer, ConfigError, r"is of SGD with groups of \[6\] param")


def test_parts_have_to_be_those_that_were_saved(tmp_path):
    model, optimizer = one_node.make()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    one_node.write(tmp_path, 0, 1, scheduler=scheduler)
    match = r"has the states of scheduler, load\(\) was given none.*scheduler|name=None"
    refused(tmp_path, model, optimizer, ConfigError, match)
    match = r"load\(\) was given sampler, scheduler"
    parts = {"scheduler": scheduler, "sampler": scheduler}
    refused(tmp_path, model, optimizer, ConfigError, match, **parts)
    refused(
        tmp_path, model, optimizer, ConfigError, r"float, which has no state_dict", scheduler=1.0
    )
    assert swarmsgd.load(tmp_path, model, optimizer, scheduler=None).steps == 2


def test_a_model_that_has_joined_is_not_loaded(tmp_path):
    model, optimizer = one_node.make()
    with (
        swarmsgd.join(model, optimizer),
        pytest.raises(ConfigError, match=r"load\(\) after join\(\)"),
    ):
        swarmsgd.load(tmp_path, model, optimizer)


# A write that fails.


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)


@pytest.mark.parametrize("room", [0, 1000, 4000])
def test_a_write_that_fails_leaves_the_former_checkpoint(place, room):
    folder, tensors = Folder(place), {"x": torch.ones(1000)}
    folder.put(Entry(0, 1, 0, 1), Parcel({}, tensors).write, keep=1)
    parcel = Parcel({}, {"x": torch.zeros(1000)})
    with pytest.raises(DataError, match=r"No space left on device.*former checkpoint is as it was"):
        folder.put(Entry(0, 1, 0, 2), lambda file: parcel.write(Full(file, room)), keep=1)
    (entry,) = folder.entries()
    assert entry.steps == 1
    with folder.fetch(entry) as (path, where):
        assert Checkpoint(path, where).tensor("x").sum() == 1000


# Which one.


def begin(path, rank, nodes, **given):
    model, optimizer = one_node.make(seed=77)
    begun = swarmsgd.load(path, model, optimizer, rank=rank, num_nodes=nodes, **given)
    return begun, model, optimizer


def test_all_nodes_take_the_latest_step_that_all_have(tmp_path):
    for rank, steps in ((0, 10), (0, 20), (1, 10), (1, 20), (2, 10)):
        resumed = Resumed(str(tmp_path), era=0)
        settings = {"mode": "matching"}
        one_node.write(tmp_path, rank, 3, steps, settings=settings, resumed=resumed)
    assert [begin(tmp_path, rank, 3)[0].steps for rank in range(3)] == [10, 10, 10]
    assert begin(tmp_path, 1, 3, step=10)[0].steps == 10
    with pytest.raises(ConfigError, match=r"every node at step 20; there are steps 10, 20"):
        begin(tmp_path, 1, 3, step=20)


def test_without_such_a_step_each_takes_its_own_latest(tmp_path):
    for rank, steps in ((0, 10), (1, 30), (2, 20)):
        one_node.write(tmp_path, rank, 3, steps)
    assert [begin(tmp_path, rank, 3)[0].steps for rank in range(3)] == [10, 30, 20]


@pytest.mark.parametrize(("old", "new", "buffers"), [(4, 6, "local"), (8, 3, "average")])
def test_other_nodes_begin_with_the_mean_of_the_old_ones(old, new, buffers, tmp_path):
    given = {"settings": {"buffers": buffers}}
    models = [one_node.write(tmp_path, rank, old, steps=50 - rank, **given) for rank in range(old)]
    states = [dict(model.state_dict()) for model in models]
    for rank in range(new):
        begun, model, optimizer = begin(tmp_path, rank, new)
        assert (begun.nodes, begun.steps) == (old, 50 - (old - 1))
        for name, value in model.state_dict().items():
            mean = torch.stack([s[name].double() for s in states]).mean(0).to(value.dtype)
            local = buffers == "local" and name in dict(model.named_buffers())
            assert torch.equal(value, states[0][name] if local else mean), name
        momentum = optimizer.state_dict()["state"][0]["momentum_buffer"]
        source = one_node.make(seed=rank % old)[1].state_dict()["state"][0]["momentum_buffer"]
        assert torch.equal(momentum, source)
        assert LOADED[optimizer].era == 1


def test_state_that_is_exchanged_is_averaged_too(tmp_path):
    for rank in range(2):
        one_node.write(tmp_path, rank, 2, settings={"exchange_state": ("momentum_buffer",)})
    means = [begin(tmp_path, rank, 3)[2].state_dict()["state"][0] for rank in range(3)]
    old = [one_node.make(seed)[1].state_dict()["state"][0]["momentum_buffer"] for seed in (0, 1)]
    for state in means:
        assert torch.allclose(state["momentum_buffer"], (old[0] + old[1]) / 2)


def test_the_vectors_of_spectral_norm_are_not_averaged(tmp_path):
    def make(rank):
        torch.manual_seed(rank)
        model = nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5))
        return model, torch.optim.SGD(model.parameters(), lr=0.1)

    for rank in range(2):
        one_node.write(tmp_path, rank, 2, make=make)
    model, optimizer = make(9)
    swarmsgd.load(tmp_path, model, optimizer, rank=0, num_nodes=1)
    norms = [b.norm().item() for n, b in model.named_buffers() if n[-2:] in ("_u", "_v")]
    assert norms == pytest.approx([1.0, 1.0], abs=1e-5)


def with_buffers(rank):
    """A model with batch norm and a buffer that is no statistic, after a step."""
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    model.register_buffer("own", torch.full((2,), float(rank)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    one_node.step(model, optimizer)
    return model, optimizer


@pytest.mark.parametrize("buffers", ["local", "average"])
def test_an_export_has_the_mean_and_buffers_as_the_run_was_asked(buffers, tmp_path):
    models = [
        one_node.write(tmp_path, rank, 2, make=with_buffers, settings={"buffers": buffers})
        for rank in range(2)
    ]
    first, second = (dict(model.state_dict()) for model in models)
    state = swarmsgd.export(tmp_path)
    for name in first:
        mean = (first[name].double() + second[name].double()) / 2
        trained = name.endswith(("weight", "bias"))
        expected = mean if trained or buffers == "average" else first[name].double()
        assert torch.allclose(state[name].double(), expected), name


def test_an_export_estimates_batch_norm_anew_on_batches(tmp_path):
    for rank in range(2):
        one_node.write(tmp_path, rank, 2, make=with_buffers)
    model, _ = with_buffers(5)
    batches = [torch.randn(16, 4) for _ in range(3)]
    state = swarmsgd.export(tmp_path, model, batches)
    features = [model[0](batch).detach() for batch in batches]
    assert torch.allclose(state["1.running_mean"], sum(f.mean(0) for f in features) / 3)
    assert torch.allclose(state["1.running_var"], sum(f.var(0) for f in features) / 3)
    assert torch.equal(state["0.weight"], swarmsgd.export(tmp_path)["0.weight"])
    with pytest.raises(ConfigError, match="ran no batch"):
        swarmsgd.export(tmp_path, model, [])
    with pytest.raises(ConfigError, match="one of model and loader"):
        swarmsgd.export(tmp_path, model)
    with pytest.raises(ConfigError, match="is of another model"):
        swarmsgd.export(tmp_path, nn.Linear(2, 2), batches)


def test_files_of_some_nodes_alone_are_not_enough_for_others(tmp_path):
    for rank in (0, 3):
        one_node.write(tmp_path, rank, 4)
    with pytest.raises(DataError, match=r"no checkpoint of node 1, 2 of 4.*bring all nodes' files"):
        begin(tmp_path, 0, 2)


def test_an_era_that_a_kill_left_incomplete_is_passed_over_by_others(tmp_path):
    for rank in range(2):
        one_node.write(tmp_path, rank, 2, steps=5)
    era = Resumed(str(tmp_path), era=1)
    one_node.write(tmp_path, 2, 3, steps=9, resumed=era)
    begun, _, optimizer = begin(tmp_path, 0, 4)
    assert (begun.nodes, begun.steps, LOADED[optimizer].era) == (2, 5, 2)
    begun, _, optimizer = begin(tmp_path, 2, 3)
    assert (begun.nodes, begun.steps, LOADED[optimizer].era) == (3, 9, 1)
    begun, _, optimizer = begin(tmp_path, 0, 3)
    assert (begun.nodes, LOADED[optimizer].era) == (0, 1)


def test_several_optimizers_are_kept_and_come_back_each(tmp_path):
    def begun():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        optimizers = [
            torch.optim.SGD(model[0].parameters(), lr=0.1, momentum=0.9),
            torch.optim.AdamW(model[1].parameters(), lr=0.1),
        ]
        return model, optimizers

    def step(model, optimizers):
        model(torch.ones(3, 4)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    model, optimizers = begun()
    with swarmsgd.join(model, optimizers) as swarm:
        step(model, optimizers)
        swarm.save(tmp_path)
        step(model, optimizers)
    again, others = begun()
    assert swarmsgd.load(tmp_path, again, others).steps == 1
    with swarmsgd.join(again, others) as swarm:
        step(again, others)
        assert swarm.steps == 2
    assert all(map(torch.equal, again.parameters(), model.parameters()))
    with pytest.raises(ConfigError, match=r"is of SGD with .* and AdamW with .*, got SGD with"):
        swarmsgd.load(tmp_path, *[again, torch.optim.SGD(again.parameters(), lr=0.1)])
