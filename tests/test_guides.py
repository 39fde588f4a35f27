"""The guides name commands, options, files and calls that exist; their diffs are Python before and
after.
"""

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import swarmsgd
from swarmsgd import graphs
from swarmsgd.cli import COMMANDS
from swarmsgd.observe.sinks import Sink
from swarmsgd.sim.baselines import local_sgd

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GUIDES = ("index.md", "choose.md", "coming-from.md", "footguns.md", "seeing.md", "extending.md")
DIFFS = [
    diff
    for name in ("index.md", "coming-from.md")
    for diff in re.findall(r"```diff\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
]


def side(diff: str, sign: str) -> str:
    """The lines of one side of a diff."""
    return "\n".join(line[1:] for line in diff.splitlines() if line[:1] in ("", " ", sign))


@pytest.mark.parametrize("diff", DIFFS, ids=range(len(DIFFS)))
def test_both_sides_of_a_diff_are_python_and_the_new_one_calls_what_there_is(diff: str):
    ast.parse(side(diff, "-"))
    calls = 0
    for node in ast.walk(ast.parse(side(diff, "+"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if isinstance(node.func.value, ast.Name) and node.func.value.id == "swarmsgd":
            calls += 1
            called = getattr(swarmsgd, node.func.attr)
            named = {keyword.arg for keyword in node.keywords}
            assert named <= set(inspect.signature(called).parameters)
        elif isinstance(node.func.value, ast.Name) and node.func.value.id == "swarm":
            assert hasattr(swarmsgd.Swarm, node.func.attr)
    assert calls


def test_there_is_a_diff_to_begin_with_and_for_each_of_four():
    assert len(DIFFS) == 5


def test_the_pieces_of_the_extending_page_run():
    pieces = re.findall(r"```python\n(.*?)```", (DOCS / "extending.md").read_text(), re.DOTALL)
    made: dict[str, Any] = {}
    for piece in pieces:
        exec(piece, made)
    assert made["graph"].neighbours(2) == (0, 1, 3)
    assert isinstance(made["Mine"](), Sink)
    assert {"train", "models", "count"} <= set(dir(made["LocalSgd"])) & set(dir(local_sgd.LocalSgd))


@pytest.mark.parametrize("name", [*GUIDES, "../CONTRIBUTING.md", "../CHANGELOG.md", "../README.md"])
def test_links_lead_somewhere_and_commands_exist(name: str):
    path = DOCS / name
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target
    for command in re.findall(r"swarmsgd ([a-z]+)\b(?= [-\w./]|`)", text):
        assert command in COMMANDS or command in ("is", "and"), command


def test_the_graphs_to_choose_from_can_be_built():
    text = (DOCS / "choose.md").read_text()
    for name in ("complete", "random-regular:8", "torus", "exponential", "ring"):
        assert f"`{name}`" in text
        assert graphs.parse(name, 16).num_nodes == 16
