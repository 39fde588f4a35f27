"""The docs build as a site without a warning, and every link in it leads somewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parent.parent
sphinx = pytest.importorskip("sphinx.cmd.build", reason="needs Sphinx: pip install '.[docs]'")
pytest.importorskip("myst_parser", reason="needs MyST: pip install '.[docs]'")


class Links(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.targets.append(value)
            elif name == "id" and value:
                self.places.add(value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Python's, of what builds it; its own fail the build
def test_the_site_builds_without_a_warning_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    told = sphinx.build_main(
        ["-q", "-W", "--keep-going", "-c", f"{ROOT}/docs", str(ROOT), f"{tmp_path}/site"]
    )
    assert told == 0
    pages = {path.resolve(): Links(path) for path in (tmp_path / "site").rglob("*.html")}
    made = {path.stem for path in pages if path.parent.name == "docs"}
    assert made >= {path.stem for path in (ROOT / "docs").glob("*.md")}
    for path, page in pages.items():
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or target == "#":
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert to.exists(), f"{path.name}: {target}"
            if parts.fragment and to in pages:
                assert unquote(parts.fragment) in pages[to].places, f"{path.name}: {target}"
    api = (tmp_path / "site" / "docs" / "api.html").read_text()
    assert "mean_model" in api and "Returns when all nodes have joined" in api
