"""Where commands that take several suites or stores find what these name, and what suites may include."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.data.own_sets import know_own_sets
from lthbench.plugins import PluginOptions, load_plugins
from lthbench.runner.settings import DataFolder
from lthbench.suite.load import IncludeOptions


@dataclass(frozen=True, kw_only=True)
class Own(DataFolder, PluginOptions, IncludeOptions):
    """A user's own data sets and plugins, which suites and tasks may name, and the files that suites may include."""

    def know(self) -> None:
        """Load the plugins, and let specifications name the own data sets."""
        load_plugins(self.plugins)
        know_own_sets(self.data)
