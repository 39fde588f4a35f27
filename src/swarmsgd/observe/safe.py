"""Texts of records on a page: whoever wrote them, they stay texts."""

from __future__ import annotations

import re
from html import escape

_MOST = 400
"""Letters of one text that are shown."""


def shown(text: object) -> str:
    """For plotly, which reads a little HTML and fills in %{...}: as it is, without control
    characters.
    """
    return escape(_clean(text)).replace("%{", "%\u200b{")


def plain_markdown(text: object) -> str:
    """For Markdown: no word of it is markup."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>&~:])", r"\\\1", _clean(text))


def _clean(text: object) -> str:
    kept = "".join(c if c.isprintable() else " " for c in str(text)[: _MOST + 1])
    return f"{kept[:_MOST]}…" if len(kept) > _MOST else kept
