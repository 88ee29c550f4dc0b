"""Build of lthbench; everything that is not the extension stands in pyproject.toml."""

from setuptools import setup

setup()
