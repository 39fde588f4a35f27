"""Several seeds become a mean and a band that say what the seeds say."""

import itertools
import json
import re
from pathlib import Path

import pytest
from made_up import made_up_run, seed_points

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.observe.curves import RunCurve, band, first_reach, read_run
from swarmsgd.observe.records import Recorder


def run_of(*seeds: list[dict[str, object]]) -> RunCurve:
    return RunCurve(label="swarm", group="swarm", seeds=seeds)


def points(*pairs: tuple[float | None, float | None]) -> list[dict[str, object]]:
    return [{"time_s": x, "loss": y} for x, y in pairs]


def test_the_mean_ends_at_the_mean_of_the_final_values():
    run = made_up_run("swarm", seeds=3)
    got = band(run, "time_s", "accuracy")
    finals = run.finals("accuracy")
    assert got.mean[-1] == pytest.approx(sum(finals) / 3)
    assert (got.low[-1], got.high[-1]) == pytest.approx((min(finals), max(finals)))


def test_the_band_holds_the_mean_and_its_x_only_grows():
    got = band(made_up_run("swarm", seeds=4), "time_s", "accuracy")
    assert all(a < b for a, b in itertools.pairwise(got.x))
    eps = 1e-12
    rows = zip(got.low, got.mean, got.high, strict=True)
    assert all(low - eps <= mean <= high + eps for low, mean, high in rows)


def test_one_seed_is_drawn_as_it_is():
    got = band(run_of(points((0, 1), (2, 5), (3, 4))), "time_s", "loss")
    assert got.x == [0, 2, 3] and got.mean == got.low == got.high == [1, 5, 4]
    assert not got.broke_off


def test_seeds_are_interpolated_at_each_others_points():
    got = band(run_of(points((0, 0), (4, 4)), points((0, 2), (2, 2), (4, 2))), "time_s", "loss")
    assert got.x == [0, 2, 4] and got.mean == [1, 2, 3]


def test_points_without_a_value_are_left_out():
    got = band(run_of(points((0, None), (1, 3), (2, None), (None, 9), (3, 1))), "time_s", "loss")
    assert got.x == [1, 3] and got.mean == [3, 1]


def test_a_seed_that_breaks_off_ends_the_mean_and_is_not_among_the_finals():
    run = run_of(points((0, 1), (2, 1), (4, None)), points((0, 3), (2, 3), (4, 7)))
    got = band(run, "time_s", "loss")
    assert got.broke_off and got.x == [0, 2] and got.mean == [2, 2]
    assert run.finals("loss") == [7] and run.broken("loss") == 1


def test_a_logarithmic_axis_takes_only_positive_x():
    run = run_of(points((0, 1), (1, 2)))
    assert band(run, "time_s", "loss", positive_x=True).x == [1]


def test_a_field_that_no_point_has_gives_an_empty_band():
    run = made_up_run("swarm", accuracy=None)
    assert band(run, "time_s", "accuracy").x == [] and not run.has("accuracy")
    assert band(run, "time_s", "excess").x == [] and run.finals("excess") == []


def test_a_level_is_first_reached_by_the_mean_of_the_seeds_or_not_at_all():
    run = run_of(points((0, 0), (2, 5), (3, 4)), points((0, 0), (4, 5)))
    assert first_reach(run, "time_s", "loss", 5) == 3
    assert first_reach(run, "time_s", "loss", 6) is None


def write_run(folder: Path, seed: int) -> None:
    with Recorder(folder / "curve.jsonl", -1) as recorder:
        for point in seed_points(seed, points=3):
            recorder.write(
                "curve", **{k: v for k, v in point.items() if k not in ("t", "node", "kind")}
            )
    (folder / "summary.json").write_text(json.dumps({"seed": seed, "lr": 0.1 * (seed + 1)}))


def test_a_run_is_read_from_the_folders_of_its_seeds(tmp_path: Path):
    for seed in range(2):
        write_run(tmp_path / str(seed), seed)
    run = read_run("swarm, 8 bits", "swarm", [tmp_path / "0", tmp_path / "1"])
    assert [len(seed) for seed in run.seeds] == [3, 3]
    assert run.figure("lr") == pytest.approx(0.15) and run.figure("missing") is None


def test_a_run_that_was_ended_early_has_no_summary_and_is_read_all_the_same(tmp_path: Path):
    write_run(tmp_path, 0)
    (tmp_path / "summary.json").unlink()
    assert read_run("swarm", "swarm", [tmp_path]).figure("lr") is None


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_damaged_summary_is_named(tmp_path: Path, text: str):
    write_run(tmp_path, 0)
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "summary.json"))):
        read_run("swarm", "swarm", [tmp_path])


def test_a_folder_without_a_curve_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=re.escape(str(tmp_path / "curve.jsonl"))):
        read_run("swarm", "swarm", [tmp_path])


@pytest.mark.parametrize("seeds", [[], [[]]])
def test_a_run_without_points_says_what_is_wanted(seeds: list[list[dict[str, object]]]):
    with pytest.raises(ConfigError, match="run 'swarm' has no points: give the records"):
        RunCurve(label="swarm", group="swarm", seeds=seeds)
