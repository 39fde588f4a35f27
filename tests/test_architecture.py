"""The rooms of the house and who may enter which: read off the import statements."""

import ast
import re
from pathlib import Path

import pytest
from rooms import drawn

import swarmsgd

SOURCE = Path(__file__).parent.parent / "src" / "swarmsgd"
DESIGN = Path(__file__).parent.parent / "docs" / "design.md"
ROOMS = DESIGN.with_name("rooms.svg")

LEAVES = {"errors", "checks", "seeds", "scores", "cores", "limits", "caches"}
"""What every room but the core may import; of each other they import `errors`."""

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "checks": {"errors"},
    "seeds": set(),
    "scores": set(),
    "cores": set(),
    "limits": {"errors"},
    "caches": set(),
    "optim": set(),
    "batch_norm": set(),
    "core": {"errors"},
    "graphs": LEAVES,
    "codec": LEAVES | {"core"},
    "transport": LEAVES,
    "tasks": LEAVES | {"core", "batch_norm"},
    "settings": LEAVES | {"core", "graphs", "tasks", "codec", "optim"},
    "observe": LEAVES | {"settings"},
    "train": LEAVES
    | {
        "core",
        "codec",
        "graphs",
        "settings",
        "transport",
        "observe",
        "tasks",
        "optim",
        "batch_norm",
    },
    "sim": LEAVES | {"core", "codec", "graphs", "settings", "observe", "tasks", "optim"},
    "integrations": LEAVES | {"train"},
    "testing": LEAVES | {"core", "graphs", "transport"},
    "epilogs": set(),
    "flags": LEAVES | {"settings"},
    "page_commands": LEAVES | {"flags", "observe"},
    "launch_commands": LEAVES | {"flags", "epilogs", "observe", "train"},
    "cli": LEAVES
    | {
        "train",
        "sim",
        "tasks",
        "settings",
        "codec",
        "flags",
        "epilogs",
        "observe",
        "page_commands",
        "launch_commands",
    },
    "__init__": {"graphs", "settings", "train", "sim", "observe", "errors"},
    "__main__": {"cli"},
}
"""Room -> rooms it may import, besides itself. A room is a folder or a single file of the
package.
"""

PURE = {"core"}
IMPURE_MODULES = {
    "time", "random", "threading", "queue", "socket", "os", "logging", "asyncio", "subprocess",
    "multiprocessing", "torch.distributed",
}  # fmt: skip


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            found |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return found


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_it_may(path: Path):
    room = room_of(path)
    inside = {name.split(".")[1] for name in imports(path) if name.startswith("swarmsgd.")}
    forbidden = inside - MAY_IMPORT[room] - {room}
    assert not forbidden, f"{room} may not import {sorted(forbidden)}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_the_core_has_no_clock_generator_thread_socket_or_log(path: Path):
    if room_of(path) in PURE:
        assert not imports(path) & IMPURE_MODULES
        text = path.read_text()
        assert "np.random" not in text and "torch.rand" not in text and "manual_seed" not in text


LABELS = {"__init__": "import swarmsgd", "__main__": "python -m swarmsgd"}


def behind(room: str) -> set[str]:
    """All rooms that the arrows from `room` lead to, by way of others too."""
    found: set[str] = set()
    new = MAY_IMPORT[room] - LEAVES
    while new:
        found |= new
        new = set[str]().union(*(MAY_IMPORT[r] for r in new)) - LEAVES - found
    return found


def arrows() -> dict[str, list[str]]:
    """`MAY_IMPORT` without the leaves, and without arrows that follow from others."""
    rooms = [room for room in MAY_IMPORT if room not in LEAVES]
    direct: dict[str, list[str]] = {}
    for room in rooms:
        open_rooms = MAY_IMPORT[room] - LEAVES
        through = set[str]().union(*(behind(r) for r in open_rooms))
        direct[room] = [other for other in rooms if other in open_rooms - through]
    return direct


def picture() -> str:
    """The picture of docs/design.md."""
    return drawn(arrows(), LABELS)


def exceptions() -> str:
    """What docs/design.md says below it: where the arrows would say too much."""
    closed = [
        f"* {LABELS.get(room, room)}: not {', '.join(hidden)}."
        for room in arrows()
        if (hidden := [r for r in arrows() if r in behind(room) - MAY_IMPORT[room]])
    ]
    return "\n".join(["What lies further along the arrows is open too, except:", "", *closed])


def test_the_design_page_has_the_picture_of_the_rooms():
    assert ROOMS.read_text() == picture(), "scripts/document draws it anew"
    assert exceptions() in DESIGN.read_text(), "scripts/document writes it anew"


def test_every_room_is_in_the_table():
    assert {room_of(p) for p in FILES} <= set(MAY_IMPORT)


def test_no_file_is_too_long_to_read():
    long = {
        str(p.relative_to(SOURCE)): n for p in FILES if (n := len(p.read_text().split("\n"))) > 450
    }
    assert not long


def named_in(folder: Path) -> list[str]:
    """What the map of a package, its docstring, names that may be a file."""
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return re.findall(r"`([a-z_][a-z_0-9.]*)`", docstring)


def is_there(name: str, folder: Path) -> bool:
    """Whether a file, a folder or a definition has this name, seen from the package."""
    first, _, rest = name.partition(".")
    if name in swarmsgd.__all__:
        return True
    if name == first and re.search(
        rf"^\s*(def|class) {name}\b",
        "".join(path.read_text() for path in folder.rglob("*.py")),
        re.MULTILINE,
    ):
        return True
    for start in (folder, *folder.parents):
        found = start / first
        if found.is_dir():
            return not rest or is_there(rest, found)
        if found.with_suffix(".py").is_file():
            return not rest or f" {rest}" in found.with_suffix(".py").read_text()
        if start == SOURCE.parent:
            break
    return False


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("__init__.py")), ids=lambda p: p.parent.name)
def test_what_the_map_of_a_package_names_is_there(path: Path):
    missing = [name for name in named_in(path.parent) if not is_there(name, path.parent)]
    assert not missing, f"{path} names {missing}"
