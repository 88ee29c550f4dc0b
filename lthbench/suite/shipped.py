"""Where the shipped suites, their claims and their golden results are."""

from __future__ import annotations

from pathlib import Path

from lthbench.names import unknown
from lthbench.suite.yaml_tree import SuiteError

_PACKAGE = Path(__file__).parents[1]


def shipped_suites() -> Path:
    """`suites/` of a checkout, or the copy that an installed wheel has of it within the package."""
    inside = _PACKAGE / "suites"
    return inside if inside.is_dir() else _PACKAGE.parent / "suites"


def find_suite(named: Path) -> Path:
    """The file of a suite: a path, or the bare name of a shipped suite, as `quick`, if no such file exists.

    Raises:
        SuiteError: a bare name is that of no file here and of no shipped suite.
    """
    if named.name != str(named) or named.exists():
        return named
    names = sorted(file.stem for file in shipped_suites().glob("*.yaml"))
    if str(named) not in names:
        raise SuiteError(f"{named}: there is no such file here, and {unknown('shipped suite', str(named), names)}")
    return shipped_suites() / f"{named}.yaml"


def by_engine(suite: Path, other_engine: str | None) -> str:
    """What folders of a suite's results are called: its file's name, and behind it an engine that it does not name."""
    return suite.stem + (f"-{other_engine}" if other_engine else "")
