"""YAML as a tree that remembers file and line of every value, read so that nothing in it can do harm.

Only plain mappings, sequences and scalars are accepted: no tags, no anchors, no duplicate keys, at most 1 MiB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
_PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}


class SuiteError(Exception):
    """A suite that cannot be used; each line of the message names file, line, key and cure."""


@dataclass(frozen=True)
class Located:
    """A value (a scalar, a list of Located, or a dict of them) and where it was written."""

    value: Any
    file: Path
    line: int

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def get(self, key: str) -> Located | None:
        """The child under a key, or None where there is none or this is no mapping."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def child(self, key: str, default: Any) -> Located:
        """The child under a key, or `default` placed here; a child of another type than the default is an error."""
        found = self.get(key)
        if found is None:
            return Located(default, self.file, self.line)
        if not isinstance(found.value, type(default)):
            kind = "a mapping" if isinstance(default, dict) else "a list"
            raise SuiteError(f"{found.place}: {key}: expected {kind}, found {found.plain()!r}")
        return found

    def at(self, path: tuple[str | int, ...]) -> Located:
        """The deepest value along a path; parts that lead nowhere are passed over."""
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
        """This mapping with the entries of `over` laid over it; where both name a different kind, `over` alone.

        A mapping whose `name` is changed is replaced whole: the options of one optimizer are not another's.
        """
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
        SuiteError: the file is missing, too large, empty, not YAML, or uses what is not allowed.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise SuiteError(f"{path}: the file has {size:,} bytes; a suite has at most {MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror}); give the path of a suite") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        depth = 0
        for event in yaml.parse(text, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise SuiteError(f"{path}:{_line(event.start_mark)}: nested too deeply; a suite has few levels")
            anchor = getattr(event, "anchor", None)
            if anchor is not None:
                line = _line(event.start_mark)
                raise SuiteError(
                    f"{path}:{line}: anchor or alias '{anchor}': not allowed in suites; use extends or include"
                )
        node = yaml.compose(text, yaml.SafeLoader)
        if node is None:
            raise SuiteError(f"{path}: the file is empty; a suite has title, replicates and pairs")
        return _locate(node, path)
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark)
        raise SuiteError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise SuiteError(f"{path}: not valid YAML: {error}") from error


def _line(mark: Any) -> int:
    return int(mark.line) + 1 if mark is not None else 1


def _locate(node: yaml.Node, path: Path) -> Located:
    line = _line(node.start_mark)
    if node.tag not in _PLAIN:
        raise SuiteError(f"{path}:{line}: tag {node.tag}: not allowed; suites hold plain values only")
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Located] = {}
        for key_node, value_node in node.value:
            key_line = _line(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                raise SuiteError(f"{path}:{key_line}: a key must be a plain word")
            if key_node.value in mapping:
                raise SuiteError(f"{path}:{key_line}: {key_node.value}: the key is given twice")
            mapping[key_node.value] = _locate(value_node, path)
        return Located(mapping, path, line)
    if isinstance(node, yaml.SequenceNode):
        return Located([_locate(child, path) for child in node.value], path, line)
    try:
        return Located(yaml.SafeLoader("").construct_object(node), path, line)
    except ValueError as error:
        raise SuiteError(f"{path}:{line}: {node.value}: {error}") from error
