"""Fetching a package: against stand-ins for apt-get and dpkg-deb, so without a network."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from swarmsgd.errors import DataError
from swarmsgd.tasks import apt
from swarmsgd.tasks.apt import unpack_package

APT_GET = """#!/bin/sh
echo "$3" >> "{log}"
[ "$1" = -c ] && cp "$2" "{log}.conf"
case "$3" in
    update) echo "E: one source is gone" >&2; exit 100;;
    download) {download};;
esac
"""
DPKG_DEB = '#!/bin/sh\n[ "$1" = -x ] && mkdir -p "$3" && cp "$2" "$3/content"\n'


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs an apt-get whose download does as it is told; returns the log of its calls."""

    def make(download: str) -> Path:
        programs = tmp_path / "bin"
        programs.mkdir()
        log = tmp_path / "log"
        (programs / "apt-get").write_text(APT_GET.format(log=log, download=download))
        (programs / "dpkg-deb").write_text(DPKG_DEB)
        for program in programs.iterdir():
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        return log

    return make


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def test_the_package_is_unpacked(stand_ins, work: Path, lines: list[str]):
    log = stand_ins('echo content > "$4_1.0_all.deb"')
    root = unpack_package("tiny", work, own_lists=False, notify=lines.append)
    assert (root / "content").read_text() == "content\n"
    assert log.read_text().split() == ["download"]
    assert lines == ["tiny: asking apt for it"]


def test_own_lists_are_fetched_into_a_folder_of_our_own(stand_ins, work: Path, lines: list[str]):
    """And a source that fails does not matter if the package can be had."""
    log = stand_ins('echo content > "$4_1.0_all.deb"')
    unpack_package("tiny", work, own_lists=True, notify=lines.append)
    assert log.read_text().split() == ["update", "download"]
    settings = log.with_name("log.conf").read_text()
    assert f'Dir::State::Lists "{work}/lists";' in settings
    assert f'Dir::Cache "{work}/cache";' in settings
    assert "#clear APT::Update::Post-Invoke;" in settings
    assert ("APT::Sandbox::User" in settings) == (os.geteuid() == 0)


def test_the_complaint_of_apt_is_the_error(stand_ins, work: Path, lines: list[str]):
    stand_ins('echo "E: Unable to locate package $4" >&2; exit 100')
    with pytest.raises(DataError, match=r"^E: Unable to locate package tiny$"):
        unpack_package("tiny", work, own_lists=False, notify=lines.append)


def test_a_download_without_an_archive_is_an_error(stand_ins, work: Path, lines: list[str]):
    stand_ins("exit 0")
    with pytest.raises(DataError, match="left 0 archives, wanted 1"):
        unpack_package("tiny", work, own_lists=False, notify=lines.append)


def test_an_apt_that_hangs_is_given_up(stand_ins, work: Path, lines: list[str], monkeypatch):
    stand_ins("exec sleep 30")
    monkeypatch.setattr(apt, "DOWNLOAD_TIMEOUT_S", 0.2)
    with pytest.raises(DataError, match=r"apt-get took longer than 0\.2 s"):
        unpack_package("tiny", work, own_lists=False, notify=lines.append)


def test_a_system_without_apt_is_told(work: Path, lines: list[str], monkeypatch):
    monkeypatch.setenv("PATH", str(work))
    with pytest.raises(DataError, match="there is no apt-get on this system"):
        unpack_package("tiny", work, own_lists=True, notify=lines.append)
    assert lines == []
