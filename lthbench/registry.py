"""What suites call by name and plugins may add to: which plugin brought which name, and what that makes of task keys.

Each registry is a dictionary of its own room (MODELS, CRITERIA, OPTIMIZERS, SCHEDULES, AUGMENTATIONS, EXPERIMENTS); the
`register_*` function beside it adds to it by `add` while a plugin is loaded (`lthbench.plugins`). Names that ship with
the package have no owner here, and leave no trace in keys.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lthbench.names import unknown

Entry = TypeVar("Entry")
Used = tuple[str, str]
"""A kind, as `model`, and a name of it that a specification has."""


class PluginError(Exception):
    """A plugin that cannot be used; the message names it, the name at fault, and the cure."""


@dataclass(frozen=True)
class Plugin:
    """Code of a user's that registers names.

    Attributes:
        name: of its module.
        version: its `__version__`, or that of the distribution that has it; empty without either.
        digest: of its sources, 32 hex digits of SHA-256.
        place: the file that was loaded.
    """

    name: str
    version: str
    digest: str
    place: str

    def __str__(self) -> str:
        return f"plugin {self.name}"

    @property
    def identity(self) -> dict[str, str]:
        """What task keys hold of it."""
        return {"sha256": self.digest, **({"version": self.version} if self.version else {})}


LOADED: dict[str, Plugin] = {}
_owners: dict[Used, str] = {}
_loading: list[tuple[str, list[tuple[dict[str, Any], str, str]]]] = []


@contextlib.contextmanager
def loading(plugin: str) -> Iterator[list[tuple[dict[str, Any], str, str]]]:
    """While it lasts, what is registered is a plugin's; where it ends in an exception, nothing is.

    Yields:
        what was registered: registry, kind and name.
    """
    added: list[tuple[dict[str, Any], str, str]] = []
    _loading.append((plugin, added))
    try:
        yield added
    except BaseException:
        for registry, kind, name in added:
            del registry[name], _owners[kind, name]
        raise
    finally:
        _loading.pop()


def add(kind: str, registry: dict[str, Entry], name: str, entry: Entry) -> None:
    """Add an entry of the plugin that is being loaded.

    Raises:
        PluginError: the name is taken or invalid, or no plugin is being loaded.
    """
    if not _loading:
        raise PluginError(
            f"{kind} '{name}' is registered outside a plugin: name its file by --plugin, or load it by "
            "lthbench.plugins.load_plugins"
        )
    plugin, added = _loading[-1]
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise PluginError(
            f"plugin {plugin}: {name!r} is not a valid name of a {kind}; use letters, digits and . _ + -, the first "
            "a letter or digit"
        )
    if name in registry:
        taken = f"plugin {_owners[kind, name]}" if (kind, name) in _owners else "lthbench"
        raise PluginError(f"plugin {plugin}: {taken} has a {kind} called '{name}' already; choose another name")
    registry[name] = entry
    _owners[kind, name] = plugin
    added.append((registry, kind, name))


def owner(kind: str, name: str) -> Plugin | None:
    """The plugin that brought a name; None for what ships with the package."""
    plugin = _owners.get((kind, name))
    return LOADED.get(plugin) if plugin is not None else None


def told(kind: str, name: str) -> str:
    """A name for errors: `criterion 'mine' of plugin my_models`."""
    plugin = _owners.get((kind, name))
    return f"{kind} '{name}'" + (f" of plugin {plugin}" if plugin is not None else "")


def identities(used: Iterable[Used]) -> dict[str, dict[str, str]]:
    """Of what a specification uses, the plugins that it needs: name -> digest and version."""
    if not _owners:
        return {}
    plugins = (owner(*each) for each in used)
    return {plugin.name: plugin.identity for plugin in plugins if plugin is not None}


def require(wanted: Mapping[str, Mapping[str, str]]) -> None:
    """Make sure that the plugins of a specification are loaded as they were when it was made.

    Raises:
        PluginError: one is missing, or is another version.
    """
    for name, identity in wanted.items():
        plugin = LOADED.get(name)
        if plugin is None:
            raise PluginError(f"the task needs plugin {name}, which is not loaded; did you forget --plugin?")
        if plugin.identity != identity:
            raise PluginError(
                f"the task was made with plugin {name} {short(identity)}, and {plugin.place} is "
                f"{short(plugin.identity)}; go back to that version, or plan again with this one"
            )


def short(identity: Mapping[str, str]) -> str:
    """A version and digest for people: `1.0 (3f2a7c01)`."""
    return f"{identity.get('version', '')} ({identity['sha256'][:8]})".strip() if identity else "absent"


def unknown_name(kind: str, name: str, registry: Iterable[str]) -> str:
    """The message for a name that a registry does not have: the nearest that it has, and where others come from."""
    message = unknown(kind, name, registry)
    if message.endswith("?"):
        return message.removesuffix("?") + ", or forget --plugin?"
    return f"{message}; did you forget --plugin?"
