"""Random streams: all by name from one table, no two of them equal."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from swarmsgd.seeds import NUMBERS, STREAMS, seed_for, stream

SOURCE = Path(__file__).parent.parent / "src" / "swarmsgd"


def head(name: str, *ids: int) -> tuple[int, ...]:
    return tuple(stream(name, *ids).integers(0, 2**62, 4).tolist())


@pytest.mark.parametrize("seed", [0, 7, 2**40 + 3])
def test_no_two_streams_of_a_run_are_equal(seed: int):
    heads = {
        (name, id_): head(name, seed, id_) for name, id_ in itertools.product(STREAMS, range(12))
    }
    assert len(set(heads.values())) == len(heads)


def test_no_two_numbers_are_equal():
    drawn = [seed_for(name, 3, id_) for name in NUMBERS for id_ in range(100)]
    assert len(set(drawn)) == len(drawn)
    assert len(set(STREAMS.values())) == len(STREAMS)
    assert seed_for("torch", 3, 1, bits=64) > 2**32


def test_nodes_of_a_run_and_runs_of_a_node_are_independent():
    heads = [head("order", seed, node) for seed in range(20) for node in range(20)]
    assert len(set(heads)) == 400


def test_recorded_figures_hang_on_these_seeds():
    def before(*entropy: int) -> tuple[int, ...]:
        return tuple(np.random.default_rng(list(entropy)).integers(0, 2**62, 4).tolist())

    assert head("data", 9) == before(9)
    assert head("order", 9, 3) == before(9, 1, 3)
    assert head("partners", 9, 3) == before(9, 2, 3)
    assert head("speeds", 9) == before(9, 3)
    assert head("jitter", 9, 3, 1) == before(9, 4, 3, 1)
    assert head("lengths", 9, 4) == before(9, 5, 4)
    assert head("counts", 9) == before(9, 6)
    attempt = np.random.SeedSequence([9, 2]).generate_state(1)[0]
    assert seed_for("graph", 9, 2) == attempt


def test_nothing_draws_from_a_stream_of_its_own():
    own = re.compile(r"default_rng\(|SeedSequence\(|np\.random\.seed|RandomState\(")
    found = [p for p in SOURCE.rglob("*.py") if own.search(p.read_text())]
    assert [p.name for p in found] == ["seeds.py"]
