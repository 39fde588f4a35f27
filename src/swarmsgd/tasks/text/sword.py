"""Books out of a SWORD module, the format in which CrossWire's Bible programs keep their texts.

A module of kind zText has for each testament ``ot`` and ``nt`` a file ``.bzz`` of zlib blocks end
to end and an index ``.bzs`` with one entry a block: where it begins, how long it is, and how long
it is unpacked, as three little-endian uint32. The text is OSIS, a dialect of XML, whose elements
for paragraphs and lines have no content: ``<div sID=... type="x-p"/>`` begins one.
"""

from __future__ import annotations

import html
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from swarmsgd.errors import DataError

TESTAMENTS = ("ot", "nt")

_ENTRY = struct.Struct("<III")
# A book is all that follows its first element; what is before the first book is a preface, what
# is in a glossary is none of the text.
_BOOK = re.compile(r'<div (?=[^>]*type="book")(?=[^>]*\bsID=)[^>]*osisID="(\w+)"[^>]*>')
_GLOSSARY = re.compile(r'<div (?=[^>]*type="glossary")[^>]*\bsID=.*', re.DOTALL)
_NOTE = re.compile(r"<note\b.*?</note>", re.DOTALL)
# A word right behind a note has no space of its own before it.
_WORD_BEHIND_NOTE = re.compile(r"</note>(?=(?:<[^>]*>)*[\w“‘])")
_LINE_END = re.compile(
    r'</title>|<lb\b[^>]*>|<(?:l|lg) [^>]*eID[^>]*>|<div [^>]*eID[^>]*"x-p"[^>]*>'
)
_CHAPTER = re.compile(r"<chapter [^>]*eID[^>]*>")
_TAG = re.compile(r"<[^>]*>")


def read_books(module: Path) -> dict[str, str]:
    """Name -> plain text of each book of the module in this folder, in its order.

    A line is a paragraph, a line of a poem or a title; there is an empty one after each chapter.
    Raises DataError for a module that is broken or has no books.
    """
    books: dict[str, str] = {}
    for testament in TESTAMENTS:
        text = _GLOSSARY.sub("", "".join(_blocks(module, testament)))
        _, *parts = _BOOK.split(text)
        books |= {n: _plain(t) for n, t in zip(parts[::2], parts[1::2], strict=True)}
    if not books:
        raise DataError(f"{module} has no books in its blocks")
    return books


def _blocks(module: Path, testament: str) -> Iterator[str]:
    try:
        index = (module / f"{testament}.bzs").read_bytes()
        packed = (module / f"{testament}.bzz").read_bytes()
        for start, size, unpacked in _ENTRY.iter_unpack(index):
            block = zlib.decompress(packed[start : start + size])
            if len(block) != unpacked:
                raise ValueError(f"a block of {unpacked} bytes has {len(block)}")
            yield block.decode()
    except (OSError, struct.error, zlib.error, ValueError) as error:
        raise DataError(f"{module} cannot be used: {testament}: {error}") from error


def _plain(osis: str) -> str:
    """The text without markup and notes."""
    osis = " ".join(_NOTE.sub("", _WORD_BEHIND_NOTE.sub("</note> ", osis)).split())
    osis = _CHAPTER.sub("\n\n", _LINE_END.sub("\n", osis))
    text = html.unescape(_TAG.sub("", osis))
    lines = [" ".join(line.split()) for line in text.split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"
