"""The page of a run's folder: everything in it is shown, nothing in it is believed."""

import json
from pathlib import Path

import pytest
from run_folders import Clock, real_run, simulated_run
from test_comparison_page import Page

from swarmsgd.cli import main
from swarmsgd.errors import ConfigError, DataError
from swarmsgd.observe.event_table import events_table
from swarmsgd.observe.records import Recorder
from swarmsgd.observe.run_curve import run_curves
from swarmsgd.observe.run_page import labels, report_of, speeds
from swarmsgd.observe.run_tables import nodes_table
from swarmsgd.observe.schema import filled
from swarmsgd.observe.sources import Following, Replaying, read_whole

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>[a](javascript:alert(1))"


def page_of(tmp_path: Path, *folders: Path) -> Page:
    return Page(report_of(folders, tmp_path / "out.html").read_text())


def test_a_real_run_shows_its_graph_its_timeline_its_steps_and_who_died(tmp_path: Path):
    found = page_of(tmp_path, real_run(tmp_path / "run", dead=2))
    assert found.loads == []
    for title in ("Who exchanged with whom", "Exchanges and events of each node",
                  "Time of a local step", "The first exchanges, one by one",
                  "Time of an exchange", "Blocks left out of exchanges",
                  "Training loss over time", "Disagreement of the nodes"):  # fmt: skip
        assert title in found.titles
    assert "Nodes that died: 2." in found.text
    assert "SIGKILL; last words: oops" in found.text and "its process ended" in found.text
    assert "50.0 (node 0)" in found.text, "the longest step is named"
    assert "torch 2" in found.text and "swarm bits" in found.text


def test_a_loss_that_ends_before_the_run_does_is_not_drawn_as_one_that_diverged(tmp_path: Path):
    folder = real_run(tmp_path / "run")
    late = json.loads((folder / "node-0.jsonl").read_text().splitlines()[3])
    assert late["kind"] == "progress"
    late |= {"t": 26.0, "loss": None, "gamma_estimate": 4.0}
    with (folder / "node-0.jsonl").open("a") as file:
        file.write(json.dumps(late) + "\n")
    (curve,) = run_curves([read_whole(folder)])
    assert "train_loss" not in curve.seeds[0][-1] and curve.seeds[0][-1]["gamma"] == 4.0
    assert curve.broken("train_loss") == curve.broken("gamma") == 0


def test_a_simulated_run_shows_its_scores_and_who_is_slow(tmp_path: Path):
    found = page_of(tmp_path, simulated_run(tmp_path / "run"))
    assert found.titles[:3] == [
        "Accuracy over time",
        "Accuracy over samples",
        "Training loss over time",
    ]
    assert "Loss over samples" in found.titles
    bars = next(f for f in found.figures if "Time of a local step" in str(f["layout"]["title"]))
    assert bars["data"][0]["y"] == ["node 3"], "the slowest is on top"


def test_real_and_simulated_runs_stand_side_by_side(tmp_path: Path):
    found = page_of(tmp_path, real_run(tmp_path / "a" / "run"), simulated_run(tmp_path / "b/run"))
    assert found.legend == ["a/run", "b/run"]
    losses = found.figures[found.titles.index("Training loss over time")]
    assert {trace.get("legendgroup") for trace in losses["data"]} == {"a/run", "b/run"}
    assert "virtual for simulated runs" in losses["layout"]["xaxis"]["title"]["text"]


def test_the_edges_of_the_graph_are_the_pairs_that_exchanged(tmp_path: Path):
    story = read_whole(real_run(tmp_path / "run", nodes=4)).story
    assert sorted(story.edges) == [(0, 1), (0, 3), (1, 2), (2, 3)]
    edge = story.edges[0, 1]
    assert (edge.mixes, edge.bytes, edge.timed) == (20, 4000, 20)
    assert edge.mean_s == pytest.approx(0.01)


def test_clocks_of_nodes_that_began_later_are_brought_to_one(tmp_path: Path):
    folder = real_run(tmp_path / "run", nodes=2)
    for node, began in ((0, 500.0), (1, 507.0)):
        path = folder / f"node-{node}.jsonl"
        lines = path.read_text().splitlines()
        lines[0] = json.dumps(json.loads(lines[0]) | {"unix_s": began})
        path.write_text("\n".join(line for line in lines if '"plan"' not in line) + "\n")
    assert read_whole(folder).story.end_s == pytest.approx(27.0)


def test_nothing_that_a_record_says_becomes_script_or_markup(tmp_path: Path):
    folder = real_run(tmp_path / "run", interrupted=EVIL, task=EVIL, score=EVIL, stopped=EVIL)
    (folder / "config.json").write_text(json.dumps({EVIL: {EVIL: [EVIL]}}))
    with (folder / "node-0.jsonl").open("a") as file:
        for field in ("event", "plan", "exchange", "progress", "eval", "result", "end", "curve"):
            record = {"t": 21.0, "node": 0, "kind": field, "what": EVIL, "text": EVIL, "peer": EVIL}
            names = ("host", "software", "loss", "steps", "samples", "distance", "seconds", "role",
                     "model", "left_out", "gamma_estimate", "step_ms_p50", "every", "wall_s",
                     "exchanges", "bytes_sent", "blocked_s", "t_s", "time_s", "scores")  # fmt: skip
            file.write(json.dumps(record | dict.fromkeys(names, EVIL)) + "\n")
        for odd in ([], {}, None, True, -1, 1e400, "1"):
            for name in ("node", "t", "steps", "peer", "seconds", "loss", "samples", "every"):
                kinds = ("exchange", "progress", "result", "event", "curve")
                for kind in kinds:
                    record = {"t": 22.0, "node": 0, "kind": kind, "role": "initiator", "peer": 1}
                    file.write(json.dumps(record | {name: odd}) + "\n")
    found = page_of(tmp_path, folder)
    html = (tmp_path / "out.html").read_text()
    assert found.scripts == 2 and "<script>alert" not in html
    assert "<img" not in html.split("</main>")[0] and 'href="javascript' not in html
    assert found.text.count("alert(1)") > 5, "it is shown, as text"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "node-0.jsonl").write_bytes(b"\x00\xff" * 999), "line 1 is not a record"),
        (lambda f: (f / "node-0.jsonl").write_text("hello\nworld\n"), "line 1 is not a record"),
        (lambda f: (f / "summary.json").write_text("[1, 2"), "summary.json"),
        (lambda f: (f / "summary.json").write_text("[1]"), "holds list, not an object"),
        (lambda f: (f / "config.json").write_text("[" * 99_999), "config.json"),
        (lambda f: [p.unlink() for p in f.glob("*.jsonl")], "is no run's folder"),
        (lambda f: [p.write_text("") for p in f.glob("*.jsonl")], "holds no record yet"),
    ],
)
def test_a_folder_that_is_damaged_or_no_run_is_told_in_one_line(
    break_it, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = real_run(tmp_path / "run")
    break_it(folder)
    assert main(["report", str(folder)]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_a_missing_folder_a_file_and_a_run_named_twice_are_refused(tmp_path: Path):
    folder = real_run(tmp_path / "run")
    with pytest.raises(DataError, match="does not exist"):
        report_of([tmp_path / "none"], tmp_path / "out.html")
    with pytest.raises(DataError, match="is a file"):
        report_of([folder / "config.json"], tmp_path / "out.html")
    with pytest.raises(ConfigError, match="named twice"):
        report_of([folder, folder / ".." / "run"], tmp_path / "out.html")


def test_a_torn_last_line_and_a_missing_summary_still_make_a_page(tmp_path: Path):
    folder = real_run(tmp_path / "run")
    (folder / "summary.json").unlink()
    with (folder / "node-1.jsonl").open("a") as file:
        file.write('{"t":20.5,"node":1,"ki')
    assert "It has ended; there is no summary here." in page_of(tmp_path, folder).text
    story = Following(folder).refresh().story
    assert story.nodes[0].mean_ms == pytest.approx(500.0)  # and its median is said to be 5 ms
    assert speeds(story)[0] == pytest.approx(2.0)


def test_runs_of_one_name_are_told_apart_by_the_path_before_it():
    assert labels([Path("/x/a/run"), Path("/x/b/run")]) == ["a/run", "b/run"]
    assert labels([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert labels([Path("/x/a<b>\n")]) == ["a·b··"]


@pytest.mark.slow
def test_a_thousand_nodes_and_many_records_stay_small(tmp_path: Path):
    nodes, each = 1000, 15
    for node in range(nodes):
        lines = [f'{{"t":0.0,"node":{node},"kind":"file","version":1,"unix_s":null}}']
        lines += [
            f'{{"t":{k}.5,"node":{node},"kind":"exchange","role":"initiator","peer":'
            f'{(node * 7 + k * 13 + 1) % nodes},"counter":{k},"seconds":0.01,"bytes_out":100,'
            f'"bytes_in":100,"distance":1.5,"left_out":0,"float32_blocks":0,"every":1}}'
            for k in range(each)
        ]
        (tmp_path / f"node-{node}.jsonl").write_text("\n".join(lines) + "\n")
    path = report_of([tmp_path], tmp_path / "out.html")
    assert path.stat().st_size < 10e6
    story = read_whole(tmp_path).story
    assert story.records == nodes * (each + 1)
    assert len(story.first) < 1000


def test_a_node_that_was_started_again_goes_on_at_the_runs_time(tmp_path: Path):
    first, second = {"t": 0.0, "unix_s": 100.0}, {"t": 0.0, "unix_s": 150.0}
    head = {"kind": "file", "version": 1}
    end = {"kind": "end"}
    lines = [{**head, **first}, {**end, "t": 1.0}, {**head, **second}, {**end, "t": 2.0}]
    text = "".join(json.dumps({"node": 0, **line}) + "\n" for line in lines)
    (tmp_path / "node-0.jsonl").write_text(text)
    assert read_whole(tmp_path).story.nodes[0].last_t == 52.0
    assert Following(tmp_path).refresh().story.nodes[0].last_t == 52.0
    clock = Clock()
    replay = Replaying(tmp_path, 1.0, clock)
    replay.refresh()
    clock.now = 51.0
    assert replay.refresh().story.nodes[0].last_t == 1.0
    clock.now = 52.0
    assert replay.refresh().story.nodes[0].last_t == 52.0 and replay.over


def test_what_several_nodes_tell_of_one_at_about_one_time_is_one_row(tmp_path: Path):
    told = [(9.0, 0, "lost", 3, "it ended"), (9.1, 1, "lost", 3, "it ended"), (9.2, 2, "lost", 3,
            "no answer"), (9.2, 0, "lost", 1, "it ended"), (30.0, 0, "lost", 3, "it ended"),
            (31.0, 0, "diverged", None, "NaN"), (31.1, 1, "diverged", None, "NaN")]  # fmt: skip
    folder = real_run(tmp_path / "run")
    for node in range(3):
        clock = Clock()
        with Recorder(folder / f"more-{node}.jsonl", node, clock=clock) as recorder:
            for t, teller, what, peer, text in told:
                if teller == node:
                    clock.now = t
                    recorder.write("event", what=what, peer=peer, text=text)
    table = events_table(read_whole(folder))
    assert table is not None
    assert [row[1:] for row in table.rows] == [
        ["0, 1, 2", "lost", "3", "it ended; no answer"],
        ["0", "lost", "1", "it ended"],
        ["0", "lost", "3", "it ended"],
        ["0", "diverged", "–", "NaN"],
        ["1", "diverged", "–", "NaN"],
    ]


def test_neither_a_wait_for_the_mean_nor_an_earlier_life_makes_a_node_slow(tmp_path: Path):
    folder = real_run(tmp_path / "run", nodes=3)
    for node in range(2):
        (folder / f"node-{node}.jsonl").unlink()
    clock, step_s = Clock(), 0.005
    for node, begins, ends in ((0, 0, 3), (1, 0, 21), (1, 30, 60)):  # node 1 is killed and back
        with Recorder(folder / f"node-{node}.jsonl", node, clock=clock) as recorder:
            clock.now = begins
            recorder.write("start", **filled("start", num_nodes=3, incarnation=begins // 30))
            for half in range(2 * begins + 1, 2 * ends + 1):
                clock.now = half / 2
                steps = round((clock.now - begins) / step_s)
                recorder.write("progress", **filled("progress", steps=steps))
            if ends == 21:
                continue
            recorder.write("mean", of=None)
            clock.now = 61.0
            recorder.write("mean", of=[0, 1])
            times = {"step_s_p50": step_s, "step_s_p99": 0.006, "step_s_max": 0.01}
            steps = round((ends - begins) / step_s) + 5
            recorder.write("end", **filled("end", steps=steps, blocked_s=0.0, **times))
    found = read_whole(folder)
    for node in range(2):
        assert found.story.nodes[node].mean_ms == pytest.approx(5.0, rel=0.02)
    table = nodes_table(found)
    assert table is not None
    assert [row[8] for row in table.rows[:2]] == ["58.0 s", "1.00 s"]


def test_events_that_only_echo_another_one_are_left_out(tmp_path: Path):
    folder = real_run(tmp_path / "run", nodes=3)
    told = [("lost", 2, "it ended"), ("gone", 2, "lost"), ("joined", 2, "tcp://10.0.0.1:5"),
            ("back", 2, "there is a link to it again")]  # fmt: skip
    with Recorder(folder / "more-0.jsonl", 0, clock=Clock()) as recorder:
        for what, peer, text in told:
            recorder.write("event", what=what, peer=peer, text=text)
    for node in (1, 2):  # both of the same neighbour, at one time
        with Recorder(folder / f"more-{node}.jsonl", node, clock=Clock()) as recorder:
            recorder.write("event", what="healed", peer=0, text="took over the model of node 0")
    table = events_table(read_whole(folder))
    assert table is not None
    assert [[cell.replace("\\", "") for cell in row[1:]] for row in table.rows] == [
        ["0", "lost", "2", "it ended"],
        ["0", "joined", "2", "listens at tcp://10.0.0.1:5"],
        ["1", "healed", "1", "took over the model of node 0"],
        ["2", "healed", "2", "took over the model of node 0"],
    ]
