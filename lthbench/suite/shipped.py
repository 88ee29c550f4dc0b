"""Where the suites are that ship with the package, their claims and their golden results."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped_suites() -> Path:
    """`suites/` of a checkout, or the copy that an installed wheel has of it within the package."""
    inside = _PACKAGE / "suites"
    return inside if inside.is_dir() else _PACKAGE.parent / "suites"


def find_suite(named: Path) -> Path:
    """The suite file that is meant: a path, or the bare name of a shipped suite, as `quick`, where no file has it."""
    shipped = shipped_suites() / f"{named}.yaml"
    return shipped if named.name == str(named) and not named.exists() and shipped.is_file() else named
