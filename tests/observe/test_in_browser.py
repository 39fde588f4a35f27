"""Pages in a real browser: no error on its console, every figure drawn, nothing wider than the
window. Skipped without playwright or a Chromium of the system.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import real_run, simulated_run

from swarmsgd.observe.records import Recorder
from swarmsgd.observe.run_page import report_of
from swarmsgd.observe.server import Dashboard

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install it")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs a Chromium: apt-get install chromium"),
]
DRAWN = "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def opened(browser: Any, address: str, **about: Any) -> tuple[Any, list[str]]:
    """A page, and what it complains of."""
    tab = browser.new_context(**about).new_page()
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
    tab.on(
        "console",
        lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None,
    )
    tab.goto(address)
    return tab, complaints


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_every_figure_of_a_report_is_drawn(
    browser: Any, width: int, scheme: str, tmp_path: Path
) -> None:
    folders = [real_run(tmp_path / "real", dead=2), simulated_run(tmp_path / "virtual", nodes=16)]
    path = report_of(folders, tmp_path / "report.html")
    size = {"width": width, "height": 900}
    tab, complaints = opened(browser, path.as_uri(), viewport=size, color_scheme=scheme)
    tab.wait_for_function(DRAWN)
    assert tab.locator(".plot").count() > 15
    assert complaints == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")
    for name, begin in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        button = tab.locator(f".plot [data-title='{name} for a paper']").first
        with tab.expect_download() as got:
            button.dispatch_event("click")
        picture = Path(got.value.path()).read_bytes()
        assert picture.startswith(begin) and got.value.suggested_filename.endswith(name.lower())
        assert b"rgb(20, 23, 27)" not in picture, "it is on white"
    assert complaints == []
    tab.context.close()


def test_hostile_records_run_nothing(browser: Any, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    folder = real_run(tmp_path / "run", task=evil, interrupted=evil)
    with (folder / "node-0.jsonl").open("a") as file:
        text = evil.replace('"', "'")
        file.write(f'{{"t":21,"node":0,"kind":"event","what":"{text}","peer":1,"text":"{text}"}}\n')
    path = report_of([folder], tmp_path / "report.html")
    tab, complaints = opened(browser, path.as_uri())
    tab.wait_for_function(DRAWN)
    assert complaints == [] and tab.locator("img").count() == 0
    tab.context.close()


def test_the_live_page_shows_a_death_and_an_arrival_at_its_next_look_and_a_nodes_detail(
    browser: Any, tmp_path: Path
) -> None:
    def tell(name: str, node: int, kind: str, **fields: Any) -> None:
        with Recorder(tmp_path / "run" / name, node, clock=lambda: 21.0, start=0.0) as recorder:
            recorder.write(kind, **fields)

    with Dashboard(real_run(tmp_path / "run", nodes=4), port=0) as dashboard:
        tab, complaints = opened(browser, dashboard.address)
        tab.wait_for_function("document.querySelectorAll('#figures .main-svg').length > 10")
        death = "SIGKILL; last words: <b>oops</b>"
        tell("command.jsonl", -1, "event", what="died", peer=3, text=death)
        tab.wait_for_selector("text=Nodes that died: 3.")
        assert "<b>oops</b>" in tab.inner_text("#tables")
        tell("node-0.jsonl", 0, "event", what="joined", peer=7, text="has a model like node 0")
        tell("node-7.jsonl", 7, "start", num_nodes=5)
        tab.wait_for_selector("#tables >> text=has a model like node 0")
        tab.wait_for_selector("section:has(h2:text-is('Nodes')) tbody th:text-is('7')")
        row = "section:has(h2:text-is('Nodes')) tbody tr"
        tab.locator(row).nth(3).click()
        tab.wait_for_selector("dialog h2:text-is('Node 3')")
        assert "SIGKILL" in tab.inner_text("dialog")
        assert complaints == []
        tab.context.close()


def test_a_finished_run_is_replayed_to_its_end(browser: Any, tmp_path: Path) -> None:
    with Dashboard(real_run(tmp_path / "run"), port=0) as dashboard:
        tab, complaints = opened(browser, dashboard.address)
        tab.wait_for_selector("text=What it came to")
        tab.select_option("#speed", "600")
        tab.wait_for_selector("text=the end", timeout=20_000)
        assert tab.inner_text("#state").startswith("20.0 s of the run")
        title = "Exchanges and events of each node"
        drawn_to = "[...document.querySelectorAll('.plot')].find(plot => plot.figure.layout.title"
        drawn_to += f".text.includes('{title}')).layout.xaxis.range[1]"
        assert tab.evaluate(drawn_to) == pytest.approx(20.0, rel=1e-3), "all of it"
        assert complaints == []
        tab.context.close()
