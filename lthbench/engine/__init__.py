"""Networks made fast, and the networks of a linear interpolation path evaluated together."""

from lthbench.engine.linear_path import LinearPathResult, evaluate_linear_path

__all__ = ["LinearPathResult", "evaluate_linear_path"]
