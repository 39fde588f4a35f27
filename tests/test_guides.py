"""The guides name commands, options, files and calls that exist; their diffs are Python before and
after.
"""

import ast
import inspect
import re
from pathlib import Path

import pytest

import swarmsgd
from swarmsgd import graphs
from swarmsgd.cli import COMMANDS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GUIDES = ("choose.md", "coming-from.md", "footguns.md", "seeing.md")
DIFFS = re.findall(r"```diff\n(.*?)```", (DOCS / "coming-from.md").read_text(), re.DOTALL)


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


def test_there_is_a_diff_for_each_of_four():
    assert len(DIFFS) == 4


@pytest.mark.parametrize("name", [*GUIDES, "../CONTRIBUTING.md", "../CHANGELOG.md", "../README.md"])
def test_links_lead_somewhere_and_commands_exist(name: str):
    path = DOCS / name
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), target
    for command in re.findall(r"swarmsgd ([a-z]+)\b(?= [-\w./]|`)", text):
        assert command in COMMANDS or command in ("is", "and"), command


@pytest.mark.parametrize("name", GUIDES)
def test_headings_that_are_linked_to_are_there(name: str):
    for target, heading in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", (DOCS / name).read_text()):
        text = (DOCS / (target or name)).read_text()
        found = {
            re.sub(r"[^\w\- ]", "", line.lstrip("# ")).strip().lower().replace(" ", "-")
            for line in text.splitlines()
            if line.startswith("#")
        }
        assert heading in found, f"{target}#{heading}"


def test_the_graphs_to_choose_from_can_be_built():
    text = (DOCS / "choose.md").read_text()
    for name in ("complete", "random-regular:8", "torus", "exponential", "ring"):
        assert f"`{name}`" in text
        assert graphs.parse(name, 16).num_nodes == 16
