"""A report is one file that needs nothing else, and shows every run that was put in."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_up import made_up_run, seed_points

from swarmsgd.errors import ConfigError
from swarmsgd.observe.axes import Axis
from swarmsgd.observe.comparison_page import compare_page, score_of, score_panels, time_axis
from swarmsgd.observe.curves import RunCurve
from swarmsgd.observe.finals import digits, duration, final_table, step_split, trimmed
from swarmsgd.observe.lines import Series, line_plot
from swarmsgd.observe.page import Row, Table, page, write_page
from swarmsgd.observe.run_page import overview

X, Y = Axis(title="virtual time (s)"), Axis(title="loss")


class Page(HTMLParser):
    """What a browser would find: addresses to load, figures, names in the legend, texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.figures: list[dict] = []
        self.legend: list[str] = []
        self.scripts = 0
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        words = dict(attrs)
        self._inside = "json" if words.get("type") == "application/json" else tag
        self.scripts += tag == "script" and "type" not in words
        self.loads += [v for k, v in attrs if v and k in ("src", "srcset", "data", "poster")]
        if tag in ("link", "iframe", "object", "embed"):
            self.loads.append(tag)
        if tag == "button":
            self.legend.append(words["data-group"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "json":
            self.figures.append(json.loads(data))
        elif self._inside == "style":
            self.loads += re.findall(r"url\([^)]*\)|@import[^;]*", data)
        elif self._inside != "script":
            self.text += data

    @property
    def titles(self) -> list[str]:
        return [re.findall(r"<b>(.*?)</b>", f["layout"]["title"]["text"])[0] for f in self.figures]


def names(figure: dict) -> set[str]:
    return {trace["legendgroup"] for trace in figure["data"]}


ALL = ["swarm", "sgd", "allreduce", "local-sgd", "d-psgd", "ad-psgd", "sgp", "osgp", "a2cid2"]


def test_a_page_loads_nothing_and_holds_plotly_once():
    html = compare_page([made_up_run(name) for name in ALL], "All")
    found = Page(html)
    assert found.loads == []
    assert "default-src 'none'" in html
    assert found.scripts == 2
    assert html.count("plotly.js v") == 1


def test_every_run_is_in_the_legend_in_the_table_and_in_every_panel():
    found = Page(compare_page([made_up_run(name, seeds=2) for name in ALL], "All", "Some *notes*"))
    assert found.legend == ALL
    for figure in found.figures:
        assert names(figure) == set(ALL)
    assert all(name in found.text for name in [*ALL, "Some notes"])
    assert len(found.figures) == 5


def test_several_seeds_are_a_band_and_one_seed_is_not():
    one, three = made_up_run("swarm"), made_up_run("sgd", seeds=3)
    figure = Page(compare_page([one, three], "t")).figures[0]
    filled = {t["legendgroup"] for t in figure["data"] if t.get("fill") == "toself"}
    assert filled == {"sgd"}


def test_without_accuracy_the_loss_is_shown():
    runs = [made_up_run("swarm", accuracy=None), made_up_run("allreduce", accuracy=None)]
    found = Page(compare_page(runs, "t"))
    assert found.titles[:3] == ["Loss over time", "Loss over samples", "Loss over bytes sent"]
    assert "final loss" in found.text and "nan" not in found.text.lower()


def test_the_excess_loss_is_preferred_to_the_loss_where_all_runs_have_it():
    runs = [made_up_run(n, accuracy=None, excess=0.5) for n in ("swarm", "sgd")]
    assert Page(compare_page(runs, "t")).titles[0] == "Excess loss over time"
    runs[1] = made_up_run("sgd", accuracy=None)
    assert Page(compare_page(runs, "t")).titles[0] == "Loss over time"


def test_one_run_of_one_point_makes_a_page():
    lone = RunCurve(label="swarm", group="swarm", seeds=[seed_points(points=1)])
    assert Page(compare_page([lone], "t")).figures


def test_a_run_whose_every_value_is_null_makes_a_page_that_still_names_it():
    nothing = {"accuracy": None, "loss": None, "gamma": None, "train_loss": None}
    found = Page(compare_page([made_up_run("swarm", **nothing), made_up_run("sgd")], "t"))
    assert found.legend == ["swarm", "sgd"] and "swarm" in found.text
    figures = overview([made_up_run("swarm", **nothing)], "time (s)")
    assert [f.layout.title.text.split("</b>")[0] for f in figures] == ["<b>Exchanges", "<b>Traffic"]


def test_a_run_that_diverged_is_marked_and_has_no_final_score():
    broken = seed_points()
    for point in broken[12:]:
        point["accuracy"] = point["loss"] = None
    run = RunCurve(label="swarm", group="swarm", seeds=[broken, seed_points(1)])
    found = Page(compare_page([run, made_up_run("sgd")], "t"))
    crosses = [t for t in found.figures[0]["data"] if t.get("marker", {}).get("symbol") == "x-thin"]
    assert [t["legendgroup"] for t in crosses] == ["swarm"]
    assert "2, 1 diverged" in found.text
    assert final_table([run, made_up_run("sgd")], "accuracy").rows[0][1] == "–"


def test_a_run_that_sends_nothing_is_a_level_in_the_panel_of_bytes():
    runs = [made_up_run("swarm"), made_up_run("sgd", sends=False)]
    panel = score_panels(runs, "accuracy")[2]
    (level,) = (t for t in panel.data if t.legendgroup == "sgd")
    assert level.y[0] == level.y[1] == runs[1].finals("accuracy")[0]
    assert "dotted: sends nothing" in panel.layout.title.text


def test_a_run_of_which_a_seed_broke_off_early_does_not_pass_for_one_that_sends_nothing():
    early = seed_points(1)[:1]
    early[0] |= {"accuracy": None, "loss": None}
    swarm = RunCurve(label="swarm", group="swarm", seeds=[seed_points(), early])
    panel = score_panels([swarm, made_up_run("sgd")], "accuracy")[2]
    assert not [t for t in panel.data if t.legendgroup == "swarm" and t.line.dash == "dot" and t.x]


def test_a_run_that_ended_early_is_marked_and_no_rival():
    done, dead = made_up_run("swarm"), made_up_run("allreduce", step_ms=1)
    dead.summaries[0]["stopped"] = "node 2 was killed and all others wait for ever"
    table = final_table([done, dead, made_up_run("sgp", step_ms=20)], "accuracy")
    assert [row[0] for row in table.rows] == ["swarm", "allreduce*", "sgp"]
    times = [row[table.columns.index("virtual time")] for row in table.rows]
    assert times == ["**10.0 s**", "1.00 s", "20.0 s"]
    assert "*allreduce: node 2 was killed" in table.note


def test_time_is_logarithmic_only_where_runs_take_very_different_times():
    swarm = made_up_run("swarm")
    assert not time_axis([swarm, made_up_run("allreduce", step_ms=20)]).log
    assert time_axis([swarm, made_up_run("sgd", step_ms=160)]).log


def test_the_best_is_bold_and_the_step_is_split_by_the_summary():
    swarm, slow = made_up_run("swarm"), made_up_run("allreduce", step_ms=30)
    rows = final_table([swarm, slow], "accuracy").rows
    assert "**10.0 s**" in rows[0] and "30.0 s" in rows[1]
    assert step_split(slow) == pytest.approx((27.0, 3.0))
    assert step_split(RunCurve(label="a", group="a", seeds=[seed_points()])) is None


def test_text_from_outside_is_shown_and_never_run():
    evil = "</script><script>alert(1)</script>"
    table = Table(title=evil, columns=["", evil], rows=[["a", evil]], note=evil)
    html = compare_page([made_up_run(evil, "swarm")], evil, evil, [table])
    found = Page(html)
    assert found.scripts == 2 and "<script>alert" not in html
    assert found.legend == [evil] and evil in found.text


def test_no_runs_is_an_error_that_says_so():
    with pytest.raises(ConfigError, match="'t': no runs to compare; give one at least"):
        compare_page([], "t")


def test_two_runs_of_one_label_are_refused():
    with pytest.raises(ConfigError, match="two runs are labelled 'swarm'"):
        compare_page([made_up_run("swarm"), made_up_run("swarm")], "t")


def test_a_page_holds_its_parts_in_order(tmp_path: Path):
    figure = line_plot([Series(label="a", x=[0, 1], y=[1, 2])], title="T", x=X, y=Y)
    table = Table(title="Numbers", columns=["", "n"], rows=[["row", "**7**"]])
    html = page("Title", ["First **bold**", figure, table, Row([figure, figure]), "Last"])
    found = Page(write_page(tmp_path / "new" / "page.html", html).read_text(encoding="utf-8"))
    assert len(found.figures) == 3 and "<strong>7</strong>" in html
    order = [found.text.index(word) for word in ("First", "Numbers", "Last")]
    assert order == sorted(order)


def test_a_report_that_cannot_be_written_is_an_error_that_names_the_path(tmp_path: Path):
    with pytest.raises(ConfigError, match=re.escape(f"cannot write the report {tmp_path}")):
        write_page(tmp_path, "x")


def test_plotly_is_not_imported_before_a_plot_is_made():
    code = "import sys, swarmsgd.observe.comparison_page; print('plotly' in sys.modules)"
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert got.stdout.strip() == "False"


def test_numbers_are_written_for_people():
    assert [digits(v) for v in (0, 0.0123456, 9.9999, 123.4, 4567.8, 3e-7)] == [
        "0", "0.0123", "10.0", "123", "4,570", "3e-07",
    ]  # fmt: skip
    assert [trimmed(v) for v in (0.05, 10.0, 1234567.0)] == ["0.05", "10", "1.23e+06"]
    assert [duration(v) for v in (42.123, 3723.0)] == ["42.1 s", "1:02:03"]


def test_runs_are_judged_by_what_their_summaries_say():
    told = {"score": "bleu", "better": "higher"}
    runs = [
        made_up_run(name, accuracy=None, bleu=bleu) for name, bleu in (("swarm", 30), ("sgd", 28))
    ]
    runs = [replace(run, summaries=[told]) for run in runs]
    assert score_of(runs) == "bleu"
    table = final_table(runs, "bleu")
    assert table.columns[1] == "final BLEU" and [r[1] for r in table.rows] == ["**30.00**", "28.00"]
    assert "time to BLEU 28" in table.columns


@pytest.mark.parametrize(("better", "bold"), [("higher", "**0.9**"), ("lower", "**0.8**")])
def test_a_task_s_own_score_is_better_as_it_says(better: str, bold: str):
    told = {"score": "hits", "better": better}
    runs = [made_up_run(name, accuracy=None, hits=h) for name, h in (("swarm", 0.9), ("sgd", 0.8))]
    table = final_table([replace(run, summaries=[told]) for run in runs], "hits")
    assert bold in [row[1] for row in table.rows]
