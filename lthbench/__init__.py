"""lthbench: a reproducibility benchmark for lottery tickets and their distance from initialisation."""

__version__ = "0.1.0"
