"""Texts that come by themselves: each is made, once, into a folder of text files in the cache.

What is looked for where, and how it is fetched: see `swarmsgd.tasks.lookup`. Here a folder of the
corpus's name in the folder given is used, then the one in the cache. If there is none, the files
of the system's package are converted, and else the package is fetched by apt-get, with the
system's lists or with own ones; it does not get installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from swarmsgd.checks import one_of
from swarmsgd.errors import DataError
from swarmsgd.tasks.apt import unpack_package
from swarmsgd.tasks.base import Notify
from swarmsgd.tasks.lookup import DATA_VARIABLE, Source, cache_folder, fetch_into, given_folder
from swarmsgd.tasks.text.documents import TEXT_SUFFIXES, Document, read_documents
from swarmsgd.tasks.text.sword import read_books

_SYSTEM = Path("/")
_SWORD = Path("usr/share/sword/modules/texts/ztext")
_PYTHON_DOCS = Path("usr/share/doc")


class Corpus(NamedTuple):
    package: str
    """Debian's."""
    convert: Callable[[Path, Path], None]
    """From the root of a file system that has the package into a folder that is there."""
    fetch: Callable[[Path, bool, Notify], Path]
    """``(folder to work in, own lists, notify)`` -> root of the package's files."""
    help: str


def _convert_web(root: Path, into: Path) -> None:
    modules = sorted((root / _SWORD).glob("engWEB*"))
    if not modules:
        raise DataError(f"there is no engWEB* in {root / _SWORD}")
    for number, (name, text) in enumerate(read_books(modules[-1]).items(), 1):
        (into / f"{number:02}-{name}.txt").write_text(text, encoding="utf-8", newline="\n")


def _convert_python_docs(root: Path, into: Path) -> None:
    folders = sorted((root / _PYTHON_DOCS).glob("python3.*/html/_sources"), key=_version)
    if not folders:
        raise DataError(f"there is no python3.*/html/_sources in {root / _PYTHON_DOCS}")
    sources = folders[-1]
    for page in sorted(sources.rglob("*.rst.txt")):
        target = into / page.relative_to(sources)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, target)


def _version(sources: Path) -> tuple[int, ...]:
    """(3, 11) for .../python3.11/html/_sources."""
    parts = sources.parts[-3].removeprefix("python").removesuffix("-doc").split(".")
    return tuple(int(part) for part in parts if part.isdecimal())


def _fetch(package: str) -> Callable[[Path, bool, Notify], Path]:
    def fetch(work: Path, own_lists: bool, notify: Notify) -> Path:
        work.mkdir()
        return unpack_package(package, work, own_lists=own_lists, notify=notify)

    return fetch


def _fetch_python_docs(work: Path, own_lists: bool, notify: Notify) -> Path:
    """The documentation is in the package of a version, to which that without one has a link."""
    root = _fetch("python3-doc")(work, own_lists, notify)
    link = root / _PYTHON_DOCS / "python3-doc" / "html"
    if not link.is_symlink():
        return root
    package = link.readlink().parent.name  # ../python3.11-doc/html
    return _fetch(package)(work.with_name("apt-of-version"), own_lists, notify)


TEXTS = {
    "web": Corpus(
        "sword-text-web",
        _convert_web,
        _fetch("sword-text-web"),
        "World English Bible (public domain), 81 books, 5 MB; comes by itself, 4 MB",
    ),
    "python-docs": Corpus(
        "python3-doc",
        _convert_python_docs,
        _fetch_python_docs,
        "Python's documentation (PSF licence), about 500 pages, 11 MB; comes by itself, 13 MB",
    ),
}
"""Name -> where it comes from, a line of help with its licence."""


def load_corpus(
    name: str, data: Path | None, notify: Notify, sources: Sequence[Source] | None = None
) -> list[Document]:
    """The documents of a corpus, fetched if need be."""
    corpus = one_of("corpus", name, TEXTS)
    cached = cache_folder() / name
    moves = [
        f"on Debian or Ubuntu: apt install {corpus.package}",
        f"put text files ({', '.join(TEXT_SUFFIXES)}) of it into {cached}",
        f"name a folder that has them in a folder {name!r} by --data or {DATA_VARIABLE}",
        "train on a text of your own by --text",
    ]
    folder = find_corpus(name, data) or fetch_into(
        cached,
        _sources(corpus) if sources is None else sources,
        read_documents, notify, what=f"The corpus {name!r}", moves=moves,
    )  # fmt: skip
    return read_documents(folder)


def find_corpus(name: str, data: Path | None) -> Path | None:
    """The folder of its text files, or None; fetches nothing."""
    given = given_folder(data)
    places = [*([] if given is None else [given / name]), cache_folder() / name]
    return next((place for place in places if place.is_dir()), None)


def _sources(corpus: Corpus) -> list[Source]:
    def from_system(folder: Path, _notify: Notify) -> None:
        folder.mkdir()
        corpus.convert(_SYSTEM, folder)

    def from_apt(own_lists: bool) -> Callable[[Path, Notify], None]:
        def fill(folder: Path, notify: Notify) -> None:
            root = corpus.fetch(folder.with_name("apt"), own_lists, notify)
            folder.mkdir()
            corpus.convert(root, folder)

        return fill

    return [
        Source("the system's package", from_system),
        Source("apt with the system's lists", from_apt(own_lists=False)),
        Source("apt with lists of our own", from_apt(own_lists=True)),
    ]
