"""Imports point downwards: from what people type, by suites and tasks, to tensors."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import lthbench

PACKAGE = Path(lthbench.__file__).parent
# From top to bottom; a room knows those below it, and those that stand beside it in a line.
ROOMS: tuple[tuple[str, ...], ...] = (
    ("cli", "__main__", "__init__"),
    ("api",),
    ("bench",),
    ("analysis",),
    ("runner",),
    ("suite",),
    ("plugins",),
    ("experiments",),
    ("tasks",),
    ("training",),
    ("models",),
    ("data",),
    ("engine",),
    ("ops",),
    ("documents", "fault", "home", "lease", "machine", "names", "options", "plain", "registry"),
)
# What points upwards yet; one that does so no more has to leave this list.
UPWARDS: set[tuple[str, str]] = set()
STOREY = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}


def imports_of(path: Path) -> Iterator[str]:
    """The modules of the package that a file imports, wherever in it, and for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("lthbench."))
        elif isinstance(node, ast.ImportFrom) and node.module == "lthbench":
            yield from (f"lthbench.{name.name}" for name in node.names if name.name != "__version__")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lthbench."):
            yield node.module or ""


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_imports_point_downwards() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(("lthbench", *path.relative_to(PACKAGE).with_suffix("").parts))
        for imported in imports_of(path):
            if STOREY[room_of(imported)] < STOREY[room_of(module)]:
                found.add((module.removesuffix(".__init__"), imported))
    assert found == UPWARDS


def test_a_file_name_stands_twice_only_where_it_is_the_name_of_the_same_thing() -> None:
    """A command, and a figure, is called what it shows; a room's `spec.py` says what may be asked of it."""
    places: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        places.setdefault(path.name, []).append(path.parent.name)
    del places["__init__.py"], places["spec.py"]
    twice = {name: [room for room in rooms if room not in ("cli", "figures")] for name, rooms in places.items()}
    assert {name: rooms for name, rooms in twice.items() if len(rooms) > 1} == {}


def test_no_file_is_longer_than_its_reader_can_hold() -> None:
    longer = {path.name: lines for path in PACKAGE.rglob("*.py") if (lines := len(path.read_text().splitlines())) > 350}
    assert longer == {}
