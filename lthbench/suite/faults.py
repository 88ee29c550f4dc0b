"""Faults of files that users write, told with file, line, key and the nearest valid name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from lthbench.suite.located import Located, SuiteError


def check_keys(node: Located, known: Iterable[str]) -> None:
    """Refuse a mapping with a key that is none of `known`."""
    for key, child in node.value.items():
        if key not in known:
            raise SuiteError(f"{child.place}: {key}: unknown key{nearest(key, known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where a known name is near, else the list of known names."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(known)}"


def explain(error: ValidationError, tree: Located, prefix: tuple[str, ...], model: type[BaseModel]) -> list[str]:
    """One line per fault of a validation: place, key, what was expected, and the nearest valid name."""
    lines: dict[tuple[str, str | int, str], str] = {}
    faults = error.errors(include_url=False)
    misspelt = {
        (fault["loc"][:-1], near)
        for fault in faults
        if fault["type"] == "extra_forbidden"
        for near in difflib.get_close_matches(str(fault["loc"][-1]), _fields_at(model, fault["loc"][:-1]), n=1)
    }
    for fault in faults:
        where = fault["loc"]
        if fault["type"] == "missing" and (where[:-1], where[-1]) in misspelt:
            continue
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = "unknown key" + nearest(str(where[-1]), _fields_at(model, where[:-1]))
        elif fault["type"] == "missing":
            message = f"is required{_beside(tree.at(where[:-1]))}"
        elif isinstance(fault["input"], str | int | float | bool | None) and fault["type"] != "value_error":
            message += f", found {fault['input']!r}"
        keys = [*map(str, prefix), *_keys_of(tree, where, fault["type"] == "missing")]
        # What arms share is validated in each of them: its fault is told once.
        place = tree.at(where).place
        lines.setdefault((place, where[-1] if where else "", message), f"{place}: {'.'.join(keys)}: {message}")
    return list(lines.values())


def _keys_of(tree: Located, path: tuple[str | int, ...], last_is_missing: bool) -> Iterator[str]:
    """The parts of a place without the tags of unions, which pydantic puts into it and the file has not."""
    for position, part in enumerate(path):
        if not isinstance(tree.value, dict) or part in tree.value or (last_is_missing and position == len(path) - 1):
            yield str(part)
        tree = tree.at((part,))


def _beside(node: Located) -> str:
    keys = list(node.value) if isinstance(node.value, dict) else []
    return f" beside {', '.join(keys)}" if keys else ""


def _fields_at(model: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The fields that pydantic models at a path have; keys of mappings, indices and union tags are passed over."""
    models = [model]
    for part in path:
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        if annotations:
            models = [found for a in annotations for found in _models_in(a)]
    return sorted({name for m in models for name in m.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return [found for arg in typing.get_args(annotation) for found in _models_in(arg)]
    return []
