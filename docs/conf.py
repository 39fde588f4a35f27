"""The docs as a site: `make docs`. Pages are the Markdown files as they are, links and all; the
navigation is made from the links of index.md, the API from docstrings.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

project = "swarmsgd"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
include_patterns = ["docs/**.md", "CONTRIBUTING.md", "CHANGELOG.md", "README.md"]
root_doc = "docs/index"
html_theme = "furo"
html_title = "swarmsgd"
html_copy_source = html_show_sphinx = html_show_copyright = False
myst_heading_anchors = 4
default_role = "code"  # in docstrings `name` is code
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88
highlight_language = "text"
pygments_style, pygments_dark_style = "friendly", "monokai"  # with colours for diffs
suppress_warnings = ["myst.header"]  # docs/records.md begins sections at the third level


def setup(app: Sphinx) -> None:
    """What Sphinx calls first."""
    app.connect("source-read", _with_navigation)
    app.connect("build-finished", _begin_at_index)


def _with_navigation(_app: Sphinx, page: str, source: list[str]) -> None:
    """The pages that index.md names under `## Pages`, as Sphinx wants them: a tree a heading."""
    if page != root_doc:
        return
    for caption, links in re.findall(
        r"^### (.+)\n((?:.|\n)*?)(?=^###|\Z)", source[0].partition("## Pages")[2], re.MULTILINE
    ):
        names = re.findall(r"^\* \[.*?\]\(([\w/.-]+)\.md[)#]", links, re.MULTILINE)
        tree = "\n".join(f"/{(Path('docs') / name).as_posix()}" for name in names)
        tree = tree.replace("/docs/../", "/")
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{tree}\n```\n"


def _begin_at_index(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        (Path(app.outdir) / "index.html").write_text(
            '<!DOCTYPE html><title>swarmsgd</title><meta charset="utf-8">'
            '<meta http-equiv="refresh" content="0; url=docs/index.html">'
            '<a href="docs/index.html">swarmsgd</a>\n'
        )
