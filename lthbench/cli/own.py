"""Where commands that take several suites or stores find what these name of a user's own."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.data.own_sets import know_own_sets
from lthbench.plugins import PluginOptions, load_plugins
from lthbench.runner.settings import DataFolder


@dataclass(frozen=True, kw_only=True)
class Own(DataFolder, PluginOptions):
    """A user's own data sets and plugins, which suites and tasks may name."""

    def know(self) -> None:
        """Load the plugins, and let specifications name the own data sets."""
        load_plugins(self.plugins)
        know_own_sets(self.data)
