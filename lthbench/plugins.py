"""Plugins: a user's own models, criteria, optimizers, schedules, augmentations and experiments, without a fork.

    from lthbench.plugins import register_model

    @register_model("tiny-cnn", width=8)
    class TinyCNN(nn.Module):
        def __init__(self, image_shape, num_classes, width): ...

A plugin is a Python file or a module, and is code: it is loaded where its user names it, by `--plugin`, by
LTHBENCH_PLUGINS or by installing a distribution with entry points in the group `lthbench.plugins`, and never because a
suite or a result names it. Suites then use its names as all others. The key of a task that uses one of them holds the
plugin's name, version and digest, so that what another version gave is another result; the digest is of the file and
of all that it imports from its own folder (a module: from its own package), comments included.

An experiment yields tasks and reads their results: its code is no part of their keys, which have what is run.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Annotated, NamedTuple

from lthbench.data.augmentations import register_augmentation
from lthbench.experiments import (
    Arm,
    Cell,
    Experiment,
    Measurement,
    register_experiment,
)
from lthbench.experiments.experiment import ACCURACY, BARRIER, DISTANCE, PrunedLevels
from lthbench.models.spec import register_model
from lthbench.options import Option
from lthbench.registry import LOADED, Plugin, PluginError, loading
from lthbench.tasks.criteria import Layer, register_criterion
from lthbench.training.recipe import register_optimizer
from lthbench.training.schedule import register_schedule

__all__ = [
    "ACCURACY",
    "BARRIER",
    "DISTANCE",
    "Arm",
    "Cell",
    "Experiment",
    "Layer",
    "Measurement",
    "PluginError",
    "PrunedLevels",
    "load_plugins",
    "register_augmentation",
    "register_criterion",
    "register_experiment",
    "register_model",
    "register_optimizer",
    "register_schedule",
]


@dataclass(frozen=True, kw_only=True)
class PluginOptions:
    """Which plugins a command loads, beside those of LTHBENCH_PLUGINS and installed ones."""

    plugins: Annotated[
        tuple[str, ...],
        Option(
            "Load your own models, criteria or experiments from a Python file or module (repeatable).",
            "--plugin",
            metavar="PLUGIN",
        ),
    ] = ()


VARIABLE = "LTHBENCH_PLUGINS"
GROUP = "lthbench.plugins"

_loaded: dict[str, Plugin] = {}  # by reference


class _Module(NamedTuple):
    """What a plugin is imported from: the folder in which imports are looked for, its module there, and its file."""

    root: Path
    name: str
    file: Path
    reference: str

    @property
    def is_file(self) -> bool:
        return self.reference.endswith(".py")


def load_plugins(named: Iterable[str] = (), *, exactly: bool = False) -> tuple[str, ...]:
    """Load plugins, each once in a process.

    Args:
        named: files (`my_models.py`) and modules (`package.module`, installed or below the current folder).
        exactly: these alone, as for a process that works for another; else those of LTHBENCH_PLUGINS (separated by
            commas, or as PATH is) and of installed entry points too.

    Returns:
        References to all of them, by which another process on this file system loads the same.

    Raises:
        PluginError: one cannot be imported or registers nothing, or a name is taken.
    """
    wanted = list(named)
    if not exactly:
        wanted += filter(None, re.split(f"[,{re.escape(os.pathsep)}]", os.environ.get(VARIABLE, "")))
        wanted += sorted(point.value.partition(":")[0] for point in importlib.metadata.entry_points(group=GROUP))
    return tuple(dict.fromkeys(_load(text.strip()) for text in wanted))


def _load(text: str) -> str:
    module = _find(text)
    if module.reference in _loaded:
        return module.reference
    other = LOADED.get(module.name)
    if other is not None or (module.is_file and module.name in sys.modules):
        place = other.place if other is not None else getattr(sys.modules[module.name], "__file__", None) or "Python"
        raise PluginError(f"plugin {text}: {place} is a module called '{module.name}' too; rename one of them")
    digest = _digest(text, module)
    try:
        with loading(module.name) as added:
            imported = _import(module)
            if not added:
                raise PluginError(f"plugin {text}: registers nothing; call register_model or the like when imported")
    except PluginError:
        sys.modules.pop(module.name, None)
        raise
    except Exception as error:
        sys.modules.pop(module.name, None)
        raise PluginError(
            f"plugin {text}: cannot be imported: {_place(error, module)}{type(error).__name__}: {error}; mend it, or "
            "leave it out"
        ) from error
    plugin = Plugin(module.name, _version(module, imported), digest, str(module.file))
    LOADED[module.name] = _loaded[module.reference] = plugin
    return module.reference


def _find(text: str) -> _Module:
    """The module that is meant by a file, a dotted name, or a folder and a dotted name (as references may have it)."""
    folder, _, last = text.rpartition(os.sep)
    if last.endswith(".py"):
        path = Path(text).expanduser().resolve()
        if not path.is_file():
            raise PluginError(
                f"plugin {text}: there is no such file; give a Python file, or a module as package.module"
            )
        if "." in path.stem:
            raise PluginError(f"plugin {text}: the name has a dot, which no module has; rename the file")
        return _Module(path.parent, path.stem, path, str(path))
    top = last.partition(".")[0]
    root, is_installed = Path(folder) if folder else Path.cwd(), False
    found = None
    with contextlib.suppress(ImportError, ValueError):
        found = None if folder else importlib.util.find_spec(top)
        is_installed = found is not None
        found = found or PathFinder.find_spec(top, [str(root)])
    if found is None:
        raise PluginError(
            f"plugin {text}: there is no such module, installed or in {root}; give a Python file as my_models.py, or "
            "a module as package.module"
        )
    if found.submodule_search_locations:
        root = Path(next(iter(found.submodule_search_locations))).parent
    elif found.origin:
        root = Path(found.origin).parent
    file = next(reversed(list(_files(last, root))), None)
    if file is None:
        raise PluginError(f"plugin {text}: {root / top} has no source file of {last}; give the name of a module")
    return _Module(root, last, file, last if is_installed else f"{root.resolve()}{os.sep}{last}")


def _import(module: _Module) -> ModuleType:
    if str(module.root) not in sys.path:
        sys.path.append(str(module.root))  # for what it imports from its folder
    if not module.is_file:
        return importlib.import_module(module.name)
    spec = importlib.util.spec_from_file_location(module.name, module.file)
    assert spec is not None and spec.loader is not None
    imported = sys.modules[module.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(imported)
    return imported


def _version(module: _Module, imported: ModuleType) -> str:
    if version := getattr(imported, "__version__", ""):
        return str(version)
    for distribution in importlib.metadata.packages_distributions().get(module.name.partition(".")[0], ()):
        return importlib.metadata.version(distribution) if not module.is_file else ""
    return ""


def _place(error: Exception, module: _Module) -> str:
    """The last line of the plugin's own that an error went through."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    own = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(module.root)]
    return f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""


def _digest(text: str, module: _Module) -> str:
    """32 hex digits of SHA-256 of the sources, each after its path below the root and its length."""
    sha = hashlib.sha256()
    try:
        for path in sorted(_sources(module)):
            content = path.read_bytes()
            sha.update(f"{path.relative_to(module.root).as_posix()} {len(content)}\n".encode() + content)
    except (OSError, SyntaxError, ValueError) as error:
        raise PluginError(
            f"plugin {text}: cannot be read: {_place(error, module)}{type(error).__name__}: {error}; mend it, or leave "
            "it out"
        ) from error
    return sha.hexdigest()[:32]


def _sources(module: _Module) -> set[Path]:
    """The plugin's file and those that it imports from its root, directly or not; a module's from its package alone."""
    found: set[Path] = set()
    pending = [module.name]
    top = module.name.partition(".")[0]
    while pending:
        name = pending.pop()
        if not module.is_file and name.partition(".")[0] != top:
            continue
        for path in _files(name, module.root):
            if path not in found:
                found.add(path)
                pending += _imported(path, module.root)
    return found


def _files(name: str, root: Path) -> Iterator[Path]:
    """The files that importing a dotted name from a root runs, those of packages first."""
    folder = root
    for part in name.split("."):
        for path in (folder / f"{part}.py", folder / part / "__init__.py"):
            if path.is_file():
                yield path
        folder /= part


def _imported(path: Path, root: Path) -> Iterator[str]:
    """What a file imports, wherever in it, as dotted names from a root."""
    package = path.parent.relative_to(root).parts
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            yield from filter(None, [base])
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)
