"""YAML as a tree that remembers file and line of every value, read safely.

Only plain mappings, sequences and scalars are accepted: no tags, no anchors, no duplicate keys, at most 1 MiB.
Scalars follow the core schema of YAML 1.2.2 (chapter 10.3): 010 is ten, 1:30, yes and on are text. (PyYAML's own, YAML
1.1, reads them as 8, 90 and truth values.)
"""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
_SHOWN = 60
_TAG = "tag:yaml.org,2002:"
# What a plain scalar is, in the order of the core schema; anything else is text.
_CORE = {
    "null": re.compile(r"null|Null|NULL|~|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.nan|\.NaN|\.NAN"),
}


class SuiteError(Exception):
    """A suite that cannot be used; each line of the message names file, line, key and cure."""


@dataclass(frozen=True)
class Located:
    """A value (a scalar, a list of Located, or a dict of them) and where it was written.

    Attributes:
        text: a scalar as it was written; what is text, in quotes.
    """

    value: Any
    file: Path
    line: int
    text: str = ""

    def plain(self) -> Any:
        """The plain value, its lists as tuples."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return tuple(child.plain() for child in self.value)
        return self.value

    @property
    def written(self) -> str:
        """The value as it was written, shortened, on one line."""
        if isinstance(self.value, dict):
            text = "{" + ", ".join(f"{key}: {child.written}" for key, child in self.value.items()) + "}"
        elif isinstance(self.value, list):
            text = "[" + ", ".join(child.written for child in self.value) + "]"
        else:
            text = self.text or "nothing"
        return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."

    def get(self, key: str) -> Located | None:
        """The child under a key; None without one, or if this is not a mapping."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def child(self, key: str, default: Any) -> Located:
        """The child under a key, or `default` placed here; a child of another type than the default is an error."""
        found = self.get(key)
        if found is None:
            return Located(default, self.file, self.line)
        if not isinstance(found.value, type(default)):
            kind = "a mapping" if isinstance(default, dict) else "a list"
            raise SuiteError(f"{found.place}: {key}: expected {kind}, found {found.written}")
        return found

    def at(self, path: tuple[str | int, ...]) -> Located:
        """The deepest value along a path; parts that do not exist are skipped."""
        node = self
        for part in path:
            if isinstance(node.value, dict):
                node = node.value.get(part, node)
            elif isinstance(node.value, list) and isinstance(part, int):
                node = node.value[part]
        return node

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def merged(self, over: Located) -> Located:
        """This mapping overridden by the entries of `over`; if both name a different kind, `over` alone.

        A mapping whose `name` is changed is replaced whole: the options of one optimizer are not another's. A value
        that should be a mapping and is not is kept, so that its fault is reported once, in its place.
        """
        if isinstance(over.value, dict) and not isinstance(self.value, dict | None):
            return self
        if not (isinstance(self.value, dict) and isinstance(over.value, dict)):
            return over
        names = self.get("name"), over.get("name")
        if names[0] and names[1] and names[0].value != names[1].value:
            return over
        result = dict(self.value)
        for key, child in over.value.items():
            result[key] = result[key].merged(child) if key in result else child
        return Located(result, self.file, self.line)


def read_yaml(path: Path) -> Located:
    """Read one YAML file.

    Raises:
        SuiteError: the file is missing, no regular file, too large, empty, not YAML, or uses what is not allowed.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SuiteError(f"{path}: is not a regular file; give the path of a suite")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SuiteError(f"{path}: the file is too large; a suite has at most {MAX_BYTES:,} bytes")
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise SuiteError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
        why = error.strerror if isinstance(error, OSError) else error
        raise SuiteError(f"{path}: cannot be read ({why}); give the path of a suite") from error
    try:
        loader = _Loader(text, path)
        node = loader.get_single_node()
        if node is None:
            raise SuiteError(f"{path}: the file is empty; a suite has title, replicates and pairs")
        return _locate(node, path)
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark)
        raise SuiteError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise SuiteError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


class _Loader(yaml.SafeLoader):
    """Composes nodes whose plain scalars follow the core schema; it stops at anchors and deep nesting."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path, self.depth = path, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        line = _line(event.start_mark)
        if (anchor := getattr(event, "anchor", None)) is not None:
            raise SuiteError(
                f"{self.path}:{line}: anchor or alias '{anchor}': not allowed in suites; use extends or include"
            )
        if (tag := getattr(event, "tag", None)) is not None:
            raise SuiteError(f"{self.path}:{line}: tag {tag}: not allowed; suites hold plain values only")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SuiteError(f"{self.path}:{line}: nested too deeply; a suite has few levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is not yaml.ScalarNode:
            return str(super().resolve(kind, value, implicit))
        plain = implicit[0]
        return _TAG + next((name for name, form in _CORE.items() if plain and form.fullmatch(value)), "str")


def _line(mark: Any) -> int:
    return int(mark.line) + 1 if mark is not None else 1


def _locate(node: yaml.Node, path: Path) -> Located:
    line = _line(node.start_mark)
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Located] = {}
        for key_node, value_node in node.value:
            key_line = _line(key_node.start_mark)
            if not (isinstance(key_node, yaml.ScalarNode) and key_node.value.isprintable()):
                raise SuiteError(f"{path}:{key_line}: a key must be a plain word")
            if key_node.value in mapping:
                raise SuiteError(f"{path}:{key_line}: {key_node.value}: the key is given twice")
            mapping[key_node.value] = _locate(value_node, path)
        return Located(mapping, path, line)
    if isinstance(node, yaml.SequenceNode):
        return Located([_locate(child, path) for child in node.value], path, line)
    if re.search("[\ud800-\udfff]", node.value):
        raise SuiteError(f"{path}:{line}: the text has half of a character; write it without \\u")
    try:
        value = _scalar(node.tag.removeprefix(_TAG), node.value)
    except ValueError as error:
        raise SuiteError(f"{path}:{line}: {node.value[:_SHOWN]}: {error}") from error
    return Located(value, path, line, repr(value) if isinstance(value, str) else node.value)


def _scalar(kind: str, text: str) -> Any:
    """The value of a scalar of the core schema."""
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            if len(text) > _SHOWN:
                raise ValueError("the number is too long")
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        case "float":
            return float(re.sub(r"\.(inf|nan)", r"\1", text.lower()))
    return text
