"""Where data are looked for, and how they get into the cache."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.tasks.base import Notify
from swarmsgd.tasks.lookup import (
    Source,
    cache_folder,
    fetch_into,
    first_with,
    given_folder,
    install,
)
from swarmsgd.tasks.vision import fashion


def write_two(folder: Path) -> None:
    folder.mkdir()
    (folder / "a").write_text("1")
    (folder / "b").write_text("2")


def test_the_argument_comes_before_the_environment(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SWARMSGD_DATA", "/nowhere")
    assert given_folder(tmp_path) == tmp_path


@pytest.mark.usefixtures("bare_machine")
def test_nothing_given_is_nothing_found():
    assert given_folder(None) is None


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, monkeypatch):
    with pytest.raises(ConfigError, match=r"the data folder is .*x', which is not a folder"):
        given_folder(tmp_path / "x")
    monkeypatch.setenv("SWARMSGD_DATA", str(tmp_path / "y"))
    with pytest.raises(ConfigError, match=r"SWARMSGD_DATA is .*y', which is not a folder"):
        given_folder(None)


def test_the_cache_is_in_the_home_folder_unless_told(tmp_path: Path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "swarmsgd"


def test_the_first_folder_with_any_of_the_files_is_used(tmp_path: Path):
    folders = [tmp_path / name for name in "xyz"]
    for folder in folders[1:]:
        folder.mkdir()
    (folders[1] / "b").touch()
    (folders[2] / "a").touch()
    assert first_with(["a", "b"], folders) == folders[1]
    assert first_with(["c"], folders) is None


def test_an_install_is_complete_or_not_there(tmp_path: Path):
    target = tmp_path / "deep" / "set"

    def fail(folder: Path) -> None:
        write_two(folder)
        raise DataError("interrupted")

    with pytest.raises(DataError, match="interrupted"):
        install(target, fail)
    assert list(target.parent.iterdir()) == []
    assert install(target, write_two) == target
    assert sorted(p.name for p in target.iterdir()) == ["a", "b"]
    assert list(target.parent.iterdir()) == [target]


def test_many_installs_at_once_leave_one_whole_result(tmp_path: Path):
    together = threading.Barrier(6)

    def fill(folder: Path) -> None:
        write_two(folder)
        together.wait(timeout=600)

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda _: install(tmp_path / "set", fill), range(6)))
    assert set(results) == {tmp_path / "set"}
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["a", "b"]
    assert list(tmp_path.iterdir()) == [tmp_path / "set"]


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="set XDG_CACHE_HOME to a folder that can be written"):
        install(tmp_path / "file" / "set", write_two)


def unreachable(_folder: Path, _notify: Notify) -> None:
    raise DataError("no route")


def test_the_first_source_that_works_is_taken(tmp_path: Path, lines: list[str]):
    sources = [
        Source("far", unreachable),
        Source("near", lambda folder, _: write_two(folder)),
        Source("never asked", unreachable),
    ]
    target = fetch_into(
        tmp_path / "set", sources, lambda folder: None, lines.append, what="It", moves=[]
    )
    assert target == tmp_path / "set"
    assert (tmp_path / "set" / "a").exists()
    assert lines == [
        "set: not from far: no route",
        f"set: fetched from near into {tmp_path / 'set'}",
    ]


def test_what_does_not_pass_the_check_is_not_installed(tmp_path: Path, lines: list[str]):
    def check(_folder: Path) -> None:
        raise DataError("wrong checksum")

    source = Source("near", lambda folder, _: write_two(folder))
    with pytest.raises(DataError) as caught:
        fetch_into(tmp_path / "set", [source], check, lines.append, what="It", moves=["pray"])
    assert str(caught.value).splitlines() == [
        "It is not on this machine and could not be fetched:",
        "  - near: wrong checksum",
        "Do one of these:",
        "  - pray",
    ]
    assert not (tmp_path / "set").exists()


@pytest.fixture
def no_system_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion, "SYSTEM_FOLDER", tmp_path / "none")


@pytest.mark.usefixtures("no_system_folder")
def test_offline_the_error_says_what_was_tried_and_what_to_do(bare_machine: Path, lines: list[str]):
    with pytest.raises(DataError) as caught:
        fashion.load_fashion_mnist(None, lines.append, sources=[Source("far", unreachable)])
    text = str(caught.value)
    assert "far: no route" in text
    assert "apt install dataset-fashion-mnist" in text
    assert f"into {bare_machine / 'fashion-mnist'}" in text
    assert "'digits', which needs no download" in text


@pytest.mark.usefixtures("no_system_folder", "bare_machine")
@pytest.mark.parametrize("below", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist_is_found_in_the_folder_given(tmp_path: Path, below: str):
    folder = tmp_path / "given" / below
    folder.mkdir(parents=True)
    assert fashion.find_fashion_mnist(tmp_path / "given") is None
    (folder / "t10k-labels-idx1-ubyte.gz").touch()
    assert fashion.find_fashion_mnist(tmp_path / "given") == folder


@pytest.mark.usefixtures("no_system_folder")
def test_a_broken_file_in_the_cache_is_named_and_nothing_is_fetched(
    bare_machine: Path, lines: list[str]
):
    folder = bare_machine / "fashion-mnist"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8b\x08\0cut")
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz cannot be used.*Delete it"):
        fashion.load_fashion_mnist(None, lines.append)
    assert lines == []
