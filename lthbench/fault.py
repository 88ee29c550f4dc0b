"""`Fault`: an error in something that a user wrote, with the path of its key; and pydantic's errors as faults.

Models say what their own fields may be by annotations and validators, which see one value at a time. What fields of
several models must be to each other (milestones and the images of an epoch, a crop and the size of images) is
reported by their method `faults`, which yields faults with paths from the model itself; the object that holds the
model prefixes its own path by `under`, and the loader of suites turns paths into file, line and key.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from lthbench.names import close, nearest, suggestion

Path = tuple[str | int, ...]


class Fault(NamedTuple):
    """What is wrong at a key, and what to do about it.

    Attributes:
        path: keys and positions that lead to the value; of a key that is missing, to where it should be.
        message: what was expected and found, without the key.
    """

    path: Path
    message: str

    def under(self, *path: str | int) -> Fault:
        """The same fault, its path prefixed."""
        return Fault((*path, *self.path), self.message)


def under(faults: Iterable[Fault], *path: str | int) -> Iterator[Fault]:
    """Faults of a nested model, their paths prefixed with where it is nested."""
    return (fault.under(*path) for fault in faults)


_WHOLE, _NUMBER, _TEXT, _MAPPING = (
    "a whole number",
    "a number",
    "text, in quotes where it looks like none",
    "a mapping",
)
# What validation expected, by the type of its error; in braces what its context says.
_EXPECTED = {
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": _TEXT,
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "literal_error": "{expected}",
    "greater_than": "a number greater than {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number less than {lt}",
    "less_than_equal": "a number of at most {le}",
    "finite_number": "a finite number",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_short": "at least {min_length} characters",
    "string_too_long": "at most {max_length} characters",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entries",
}


def validation_faults(
    error: ValidationError, model: type[BaseModel], value: Any, written: Callable[[Path], str]
) -> list[Fault]:
    """The errors of a validation as faults, one per value.

    Args:
        model: what was validated.
        value: what it was validated from: mappings, lists and scalars.
        written: path -> the value there as the user wrote it.
    """
    details = error.errors(include_url=False)
    messages: dict[Path, str] = {}
    expected: dict[Path, list[str]] = {}  # alternatives of a union are faults of one value
    lacking: dict[Path, int] = {}  # lists of a fixed length -> the entries that they must have
    misspelt = {
        (detail["loc"][:-1], near)
        for detail in details
        if detail["type"] == "extra_forbidden"
        for near in close(str(detail["loc"][-1]), _fields_at(model, detail["loc"][:-1]))
    }
    for detail in details:
        loc, context = detail["loc"], detail.get("ctx", {})
        path = _path(loc, value)
        match detail["type"]:
            case "extra_forbidden":
                messages[path] = "unknown key" + nearest(str(loc[-1]), _fields_at(model, loc[:-1]))
            case "missing" if isinstance(loc[-1], int):
                whole = _path(loc[:-1], value)
                lacking[whole] = max(lacking.get(whole, 0), loc[-1] + 1)
            case "missing":
                if (loc[:-1], loc[-1]) not in misspelt:
                    absent = (*_path(loc[:-1], value), loc[-1])
                    messages[absent] = f"is required{_beside(value, loc[:-1])}"
            case "union_tag_not_found":
                tag = (*path, context["discriminator"].strip("'"))
                messages[tag] = f"is required{_beside(value, loc)}"
            case "union_tag_invalid":
                tag = (*path, context["discriminator"].strip("'"))
                tags = context["expected_tags"].replace("'", "").split(", ")
                guess = suggestion(context["tag"], tags)
                what = ", ".join(tags[:-1]) + f" or {tags[-1]}"
                messages[tag] = f"expected {what}, found {written(tag)}{guess}"
            case "value_error":
                message, text = str(context["error"]), written(path)
                told = re.search(rf"(?<![\w.]){re.escape(text.strip(chr(39)))}(?![\w.:])", message)
                is_told = told or loc[-1:] == ("[key]",) or isinstance(detail["input"], dict | list | tuple)
                messages[path] = message if is_told else f"{message}, found {text}"
            case kind:
                limits = {name: _whole(limit) for name, limit in context.items()}
                expected.setdefault(path, []).append(_EXPECTED.get(kind, "another value").format(**limits))
    for path, number in lacking.items():
        expected[path] = [f"{number} entries"]
    for path, alternatives in expected.items():
        deeper = [p for p in (*messages, *expected) if len(p) > len(path) and p[: len(path)] == path]
        if not deeper:
            what = " or ".join(dict.fromkeys(alternatives))
            what = what.replace(" 1 entries", " 1 entry").replace(" 1 characters", " 1 character")
            messages[path] = f"expected {what}, found {written(path)}"
    return [Fault(path, message) for path, message in messages.items()]


def _path(loc: tuple[str | int, ...], value: Any) -> Path:
    """The user's part of a pydantic location: without the tags of unions and the marker of keys."""
    path: list[str | int] = []
    for part in loc:
        is_list = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if is_list or (isinstance(value, dict) and part in value):
            value = value[part]
            path.append(part)
    return tuple(path)


def _whole(limit: Any) -> Any:
    """A limit, whole numbers without the .0."""
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def _beside(value: Any, loc: tuple[str | int, ...]) -> str:
    for part in _path(loc, value):
        value = value[part]
    return f" beside {', '.join(value)}" if isinstance(value, dict) and value else ""


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The fields of the model at a place; for a discriminated union, of the chosen model."""
    models = [model]
    for part in loc:
        annotations = [m.model_fields[part].annotation for m in models if part in m.model_fields]
        if annotations:
            models = [found for a in annotations for found in _models_in(a)]
        elif tagged := [m for m in models if _has_tag(m, part)]:
            models = tagged
    return sorted({name for m in models for name in m.model_fields})


def _has_tag(model: type[BaseModel], tag: str | int) -> bool:
    return any(tag in typing.get_args(field.annotation) for field in model.model_fields.values())


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        return [found for arg in typing.get_args(annotation) for found in _models_in(arg)]
    return []
