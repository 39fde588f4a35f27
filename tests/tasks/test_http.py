"""Downloads, from a server in this process."""

from __future__ import annotations

import hashlib
import pickle
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from swarmsgd.errors import DataError
from swarmsgd.tasks.http import download
from swarmsgd.tasks.vision import cifar

CONTENT = b"something" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that has `there.gz`."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "there.gz").write_bytes(CONTENT)
    handler = partial(_Quiet, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_is_downloaded(server: str, tmp_path: Path, lines: list[str], capfd):
    target = download(
        f"{server}/there.gz", tmp_path / "x", lines.append, checksum=f"sha256:{SHA256}"
    )
    assert target.read_bytes() == CONTENT
    assert lines == [f"x: downloading {server}/there.gz"]
    assert capfd.readouterr() == ("", "")


def test_another_file_than_wanted_is_told_by_its_sha256(server: str, tmp_path: Path):
    with pytest.raises(DataError) as caught:
        download(
            f"{server}/there.gz", tmp_path / "x", lambda _: None, checksum="sha256:" + "0" * 64
        )
    assert f"9,000 bytes with sha256 {SHA256}, wanted {'0' * 64}" in str(caught.value)


def test_an_md5_is_held_against_what_came_too(server: str, tmp_path: Path):
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert download(f"{server}/there.gz", tmp_path / "x", print, checksum=f"md5:{md5}").exists()
    with pytest.raises(DataError, match=f"with md5 {md5}, wanted 00"):
        download(f"{server}/there.gz", tmp_path / "y", print, checksum="md5:00")


def test_a_missing_file_is_told(server: str, tmp_path: Path):
    with pytest.raises(DataError, match="404"):
        download(f"{server}/gone.gz", tmp_path / "x", lambda _: None)


def test_a_server_that_is_not_there_is_told(server: str, tmp_path: Path):
    port = int(server.rpartition(":")[2])
    with ThreadingHTTPServer(("127.0.0.1", 0), _Quiet) as closed:
        port = closed.server_port
    with pytest.raises(DataError, match=f"cannot download http://127.0.0.1:{port}/x: .*refused"):
        download(f"http://127.0.0.1:{port}/x", tmp_path / "x", lambda _: None)


@pytest.mark.usefixtures("bare_machine")
def test_cifar10_is_unpacked_from_its_authors_archive(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    batch = {b"data": np.zeros((1, 3072), np.uint8), b"labels": [7]}
    folder, files = cifar.CIFAR10.folder, [*cifar.CIFAR10.train_files, cifar.CIFAR10.test_file]
    (tmp_path / folder).mkdir()
    for name in [*files, "readme.html"]:
        (tmp_path / folder / name).write_bytes(pickle.dumps(batch))
    archive = tmp_path / "served" / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / folder, folder)
    here = cifar.CIFAR10._replace(archive=f"{server}/{archive.name}")
    monkeypatch.setattr(cifar, "CIFAR10", here)
    with pytest.raises(DataError, match="served something else"):
        cifar.load_cifar10(None, lambda _: None)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "CIFAR10", here._replace(checksum=f"sha256:{found}"))
    assert cifar.load_cifar10(None, lambda _: None)["train_labels"].tolist() == [7] * 5
