"""Partitions: who owns which sample."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarmsgd.errors import ConfigError
from swarmsgd.tasks.partition import Dirichlet, Grouped, Iid, parse_partition

partitions = st.one_of(
    st.just(Iid()),
    st.just(Grouped()),
    st.builds(Dirichlet, st.floats(-6, 6).map(lambda exponent: 10.0**exponent)),
)


@st.composite
def splits(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Labels, possibly of one class only or very uneven, and a number of nodes they suffice for."""
    counts = draw(st.lists(st.integers(1, 60), min_size=1, max_size=8))
    labels = np.repeat(np.arange(len(counts)) * 3, counts)
    labels = np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)
    return labels, draw(st.integers(1, len(labels)))


@given(partitions, splits(), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_shards_are_equal_and_share_no_sample(partition, split, seed):
    labels, nodes = split
    shards = partition.split(labels, nodes, seed)
    assert shards.shape == (nodes, len(labels) // nodes)
    assert shards.dtype == np.int64
    assert len(np.unique(shards)) == shards.size
    assert shards.min() >= 0
    assert shards.max() < len(labels)
    assert len(labels) - shards.size < nodes


@given(partitions, splits(), st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_partition_is_a_function_of_its_arguments(partition, split, seed):
    labels, nodes = split
    assert (partition.split(labels, nodes, seed) == partition.split(labels, nodes, seed)).all()


def histogram(shards: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(labels[shard], minlength=10) for shard in shards])


LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 600))


def test_another_seed_gives_another_partition():
    for partition in (Iid(), Grouped(), Dirichlet(0.5)):
        assert (partition.split(LABELS, 8, 0) != partition.split(LABELS, 8, 1)).any()


def test_the_label_skew_grows_as_alpha_falls():
    largest = [
        histogram(Dirichlet(alpha).split(LABELS, 60, 0), LABELS).max(axis=1).mean() / 100
        for alpha in (0.01, 0.1, 1, 100)
    ]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] > 0.8
    assert largest[-1] < 0.2


def test_no_node_is_special_in_the_label_skew():
    """Filled one after another, the last nodes would get the leftovers, which are more skewed."""
    skews = np.mean(
        [
            histogram(Dirichlet(0.3).split(LABELS, 20, seed), LABELS).max(axis=1) / 300
            for seed in range(40)
        ],
        axis=0,
    )
    assert abs(skews[:10].mean() - skews[10:].mean()) < 0.03


@pytest.mark.parametrize("partition", [Dirichlet(1.0), Grouped()])
def test_a_shard_is_shuffled(partition):
    """Else the first passes of a node would go class by class."""
    shard = partition.split(LABELS, 2, 0)[0]
    assert len(np.unique(LABELS[shard[:100]])) > 3


@given(splits(), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_whole_groups_are_cut_only_where_a_shard_ends(split, seed):
    """So with n shards there are at most n - 1 cuts."""
    labels, nodes = split
    shards = Grouped().split(labels, nodes, seed)
    pieces = sum(len(np.unique(labels[shard])) for shard in shards)
    assert pieces <= len(np.unique(labels)) + nodes - 1


def test_the_order_of_groups_is_drawn():
    assert len({Grouped().split(LABELS, 10, seed)[0].min() for seed in range(8)}) > 1


@pytest.mark.parametrize("partition", [Iid(), Grouped(), Dirichlet(1.0)])
@pytest.mark.parametrize("nodes", [0, 11])
def test_more_nodes_than_samples_are_refused(partition, nodes):
    with pytest.raises(ConfigError, match=f"10 samples cannot be split over {nodes} nodes"):
        partition.split(np.arange(10), nodes, 0)


def test_spellings():
    assert parse_partition("iid") == Iid()
    assert parse_partition("grouped") == Grouped()
    assert parse_partition("dirichlet:0.25") == Dirichlet(0.25)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            "idd",
            "partition is 'idd', wanted one of iid, grouped, dirichlet:ALPHA; "
            'did you mean "iid"?',
        ),
        ("", "partition is ''"),
        ("iid:3", "takes no argument, got 'iid:3'"),
        ("grouped:3", "takes no argument, got 'grouped:3'"),
        ("dirichlet", "needs a number alpha, got ''; write for instance 'dirichlet:0.5'"),
        ("dirichlet:x", "needs a number alpha, got 'x'"),
        ("dirichlet:0", "needs an alpha above 0"),
        ("dirichlet:-1", "needs an alpha above 0"),
        ("dirichlet:nan", "needs an alpha above 0"),
        ("dirichlet:inf", "needs an alpha above 0"),
    ],
)
def test_bad_spellings_are_explained(text: str, error: str):
    with pytest.raises(ConfigError, match=re.escape(error)):
        parse_partition(text)
