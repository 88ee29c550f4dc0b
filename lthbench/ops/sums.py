"""Sums whose bits are those of every version of Python."""

from __future__ import annotations

from collections.abc import Iterable


def sum_in_order(values: Iterable[float]) -> float:
    """The sum from left to right, each addition rounded: what `sum` gave before Python 3.12, which compensates."""
    total = 0.0
    for value in values:
        total += value
    return total
