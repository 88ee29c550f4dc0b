"""Faults of files that users write, as messages with file, line, key and the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from lthbench.documents import on_one_line
from lthbench.fault import Fault, Path, validation_faults
from lthbench.names import nearest
from lthbench.suite.yaml_tree import Located, SuiteError

__all__ = ["check_keys", "explain", "nearest", "read_as", "told"]

Model = TypeVar("Model", bound=BaseModel)


def check_keys(node: Located, known: Iterable[str]) -> None:
    """Refuse a mapping with a key that is not in `known`."""
    for key, child in node.value.items():
        if key not in known:
            raise SuiteError(f"{child.place}: {key}: unknown key{nearest(key, known)}")


def read_as(model: type[Model], node: Located, prefix: Path = ()) -> Model:
    """A file's content as a validated value; truth values and text are not taken for numbers.

    Raises:
        SuiteError: one line per fault.
    """
    try:
        return model.model_validate(node.plain(), strict=True)
    except ValidationError as error:
        raise SuiteError("\n".join(explain(error, node, prefix, model))) from error


def explain(error: ValidationError, tree: Located, prefix: Path, model: type[BaseModel]) -> list[str]:
    """One line per fault of a validation: place, key, what was expected, and the nearest valid name."""
    return told(validation_faults(error, model, tree.plain(), lambda path: tree.at(path).written), tree, prefix)


def told(faults: Iterable[Fault], tree: Located, prefix: Path = ()) -> list[str]:
    """One line per fault: place, key and message. A fault that arms share is reported once."""
    lines: dict[object, str] = {}
    for path, message in faults:
        node, key = tree.at(path), ".".join(map(str, (*prefix, *path)))
        shared = (node.place, path[-1:], message) if isinstance(node.value, dict) else id(node)
        lines.setdefault(shared, on_one_line(f"{node.place}: {key}: {message}" if key else f"{node.place}: {message}"))
    return list(lines.values())
