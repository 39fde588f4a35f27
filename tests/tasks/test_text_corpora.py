"""Text files as documents, and the corpora that come by themselves (without a network)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from swarmsgd.errors import ConfigError, DataError
from swarmsgd.tasks.base import Notify
from swarmsgd.tasks.lookup import Source
from swarmsgd.tasks.text import corpora, documents
from swarmsgd.tasks.text.corpora import load_corpus
from swarmsgd.tasks.text.documents import read_documents
from swarmsgd.tasks.text.sword import read_books


def contents(path: Path) -> dict[str, str]:
    return {d.name: d.content.tobytes().decode() for d in read_documents(path)}


def test_a_file_is_one_document(tmp_path: Path):
    (tmp_path / "any.log").write_text("größer\n")
    assert contents(tmp_path / "any.log") == {"any.log": "größer\n"}


def test_a_folder_is_its_text_files_and_those_below_by_name(tmp_path: Path):
    for name in ("b.txt", "a.md", "z/1.rst", "b/2.TXT", "picture.png", "empty.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("" if name == "empty.txt" else name)
    assert list(contents(tmp_path)) == ["a.md", "b/2.TXT", "b.txt", "z/1.rst"]


def test_a_large_file_stays_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "_MAPPED_FROM", 5)
    (tmp_path / "a.txt").write_text("five!")
    (document,) = read_documents(tmp_path / "a.txt")
    assert isinstance(document.content, np.memmap)
    assert document.content.tobytes() == b"five!"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("gone", "there is no text at .*gone; name a UTF-8 text file or a folder of them"),
        ("empty.txt", "empty.txt is empty; name a UTF-8"),
        ("pictures", r"pictures has no file that ends in \.txt, \.md"),
        ("blank", "blank is empty"),
    ],
)
def test_where_there_is_no_text_it_says_so(tmp_path: Path, name: str, error: str):
    (tmp_path / "empty.txt").touch()
    for folder, file in (("pictures", "a.png"), ("blank", "a.txt")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).touch()
    with pytest.raises(DataError, match=error) as caught:
        read_documents(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize(
    ("content", "line", "byte"),
    [
        (b"\xff", 1, 0),
        ("für\nsich\n".encode() + b"f\xfcr\n", 3, 11),
        ("ab\n€".encode() + b"\n\xe2\x82\n", 3, 7),
        (b"a\n\xe2\x82", 2, 2),
    ],
)
def test_bytes_that_are_no_utf8_are_named_by_their_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: bytes,
    line: int,
    byte: int,
    chunk: int,
):
    monkeypatch.setattr(documents, "_CHUNK", chunk)
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.txt is not UTF-8: line {line}, byte {byte}: "):
        read_documents(tmp_path)


def test_characters_that_a_chunk_cuts_are_no_mistake(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(documents, "_CHUNK", 2)
    (tmp_path / "a.txt").write_text("€uro für 𝒳")
    assert contents(tmp_path) == {"a.txt": "€uro für 𝒳"}


# SWORD.

GENESIS = (
    '<div sID="g1" type="front"/>a preface<div eID="g1" type="front"/>'
    '<div canonical="true" osisID="Gen" sID="g2" type="book"/> '
    '<title level="1" type="main">Genesis</title> <chapter n="1" osisID="Gen.1" sID="Gen.1"/> '
    '<div sID="g3" type="x-p"/>In the <w lemma="strong:H7225">beginning</w>, '
    '<w lemma="strong:H0430">God</w><note placement="foot">a note</note>'
    '<w lemma="strong:H1254">created</w> light<note>another</note>. <div eID="g3" type="x-p"/>'
    '<l level="1" sID="g4"/>A line,<l eID="g4" level="1"/> <l sID="g5"/>and &amp; one'
)
MORE = (
    '<l eID="g5"/> <chapter eID="Gen.1"/><chapter n="2" sID="Gen.2"/>The end.'
    '<div canonical="true" eID="g2" osisID="Gen" type="book"/>'
    '<div canonical="true" osisID="Exod" sID="g6" type="book"/>Exodus'
    '<div sID="g7" type="glossary"/>words'
)


def write_module(folder: Path, **testaments: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for testament in ("ot", "nt"):
        index, packed = b"", b""
        for text in testaments.get(testament, []):
            block = zlib.compress(text.encode())
            index += struct.pack("<III", len(packed), len(block), len(text.encode()))
            packed += block
        (folder / f"{testament}.bzs").write_bytes(index)
        (folder / f"{testament}.bzz").write_bytes(packed)
    return folder


def test_the_books_of_a_module_are_read_without_markup_notes_and_front_matter(tmp_path: Path):
    module = write_module(tmp_path / "m", ot=[GENESIS, MORE])
    assert read_books(module) == {
        "Gen": "Genesis\nIn the beginning, God created light.\nA line,\nand & one\n\nThe end.\n",
        "Exod": "Exodus\n",
    }


def damage(module: Path, how: str) -> None:
    index, packed = module / "ot.bzs", module / "ot.bzz"
    match how:
        case "cut":
            packed.write_bytes(packed.read_bytes()[:-9])
        case "no index":
            index.unlink()
        case "odd index":
            index.write_bytes(index.read_bytes()[:-1])
        case "wrong size":
            index.write_bytes(index.read_bytes()[:-4] + bytes(4))
        case "no books":
            write_module(module)


@pytest.mark.parametrize("how", ["cut", "no index", "odd index", "wrong size", "no books"])
def test_a_broken_module_is_refused(tmp_path: Path, how: str):
    module = write_module(tmp_path / "m", ot=[GENESIS])
    damage(module, how)
    with pytest.raises(DataError, match=r"m cannot be used: ot: |m has no books"):
        read_books(module)


# Corpora. A package's files are made up, and apt is told to give them.


def web_package(root: Path) -> Path:
    write_module(root / "usr/share/sword/modules/texts/ztext/engWEB2015eb", ot=[GENESIS, MORE])
    return root


def docs_package(root: Path) -> Path:
    for version in ("3.9", "3.11"):
        pages = root / f"usr/share/doc/python{version}/html/_sources"
        (pages / "library").mkdir(parents=True)
        (pages / "about.rst.txt").write_text(f"About {version}\n")
        (pages / "library/os.rst.txt").write_text("os\n")
        (pages / "picture.png").touch()
    return root


PACKAGES = {
    "web": (web_package, {"01-Gen.txt", "02-Exod.txt"}),
    "python-docs": (docs_package, {"about.rst.txt", "library/os.rst.txt"}),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_corpus_is_converted_from_its_package_and_kept(
    name: str, bare_machine: Path, tmp_path: Path, lines: list[str], monkeypatch
):
    make, files = PACKAGES[name]
    monkeypatch.setattr(
        corpora, "unpack_package", lambda package, into, **_: make(into / "root" / package)
    )
    monkeypatch.setattr(corpora, "_SYSTEM", tmp_path / "bare")
    found = load_corpus(name, None, lines.append)
    assert {d.name for d in found} == files
    assert any("fetched from apt with the system's lists" in line for line in lines)
    assert [path.name for path in bare_machine.iterdir()] == [name]  # nothing else is left there
    monkeypatch.delattr(corpora, "unpack_package")
    again = load_corpus(name, None, lines.append)
    assert [d.content.tobytes() for d in again] == [d.content.tobytes() for d in found]


def test_the_newest_documentation_is_taken(bare_machine: Path, tmp_path: Path, lines, monkeypatch):
    monkeypatch.setattr(corpora, "_SYSTEM", docs_package(tmp_path / "system"))
    about = load_corpus("python-docs", None, lines.append)[0]
    assert about.content.tobytes() == b"About 3.11\n"
    assert lines == [
        f"python-docs: fetched from the system's package into {bare_machine / 'python-docs'}"
    ]


def test_the_package_without_a_version_leads_to_the_one_that_has_it(
    bare_machine: Path, tmp_path: Path, lines: list[str], monkeypatch
):
    asked: list[str] = []

    def unpack(package: str, into: Path, **_) -> Path:
        asked.append(package)
        if package == "python3.11-doc":
            return docs_package(into / "root")
        link = into / "root/usr/share/doc/python3-doc/html"
        link.parent.mkdir(parents=True)
        link.symlink_to("../python3.11-doc/html")
        return into / "root"

    monkeypatch.setattr(corpora, "unpack_package", unpack)
    monkeypatch.setattr(corpora, "_SYSTEM", tmp_path / "bare")
    assert len(load_corpus("python-docs", None, lines.append)) == 2
    assert asked == ["python3-doc", "python3.11-doc"]


def test_a_folder_given_comes_first(bare_machine: Path, tmp_path: Path, lines: list[str]):
    (tmp_path / "data" / "web").mkdir(parents=True)
    (tmp_path / "data" / "web" / "a.txt").write_text("mine")
    (document,) = load_corpus("web", tmp_path / "data", lines.append)
    assert document.content.tobytes() == b"mine"
    assert lines == []


def test_offline_the_error_says_what_to_do_and_nothing_is_left(
    bare_machine: Path, lines: list[str]
):
    def unreachable(folder: Path, _notify: Notify) -> None:
        folder.mkdir()
        raise DataError("no route")

    with pytest.raises(DataError) as caught:
        load_corpus("web", None, lines.append, sources=[Source("far", unreachable)])
    text = str(caught.value)
    assert "The corpus 'web' is not on this machine" in text
    assert "far: no route" in text
    assert "apt install sword-text-web" in text
    assert "by --text" in text
    assert list(bare_machine.iterdir()) == []


def test_a_misspelt_corpus_is_answered_with_the_nearest_name(lines: list[str]):
    with pytest.raises(ConfigError, match='did you mean "python-docs"'):
        load_corpus("pythondocs", None, lines.append)
