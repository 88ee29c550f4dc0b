"""How measured numbers are shown: the name of a metric, its unit and digits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lthbench.analysis.claims.verdict import Effect
from lthbench.analysis.stats.summary import Interval


@dataclass(frozen=True)
class Quantity:
    """A metric as shown: `scale` times its value, with so many `digits` and a `unit`."""

    label: str
    scale: float = 1.0
    digits: int = 3
    unit: str = ""

    def number(self, value: float) -> str:
        rounded = round(value * self.scale, self.digits) + 0.0  # no minus before a zero
        return f"{rounded:.{self.digits}f}"


_LABELS = {
    "distance": "learning distance",
    "distance_rms": "learning distance per root of a weight",
    "distance_relative": "relative learning distance",
    "distance_angle": "learning distance as an angle",
    "search_distance": "relative learning distance in mask search",
    "noise_scale": "noise scale lr N / (B (1 - momentum))",
    "share_to_converge": "convergence",
    "onset": "onset of stability",
    "onset_epoch": "onset of stability",
    "onset_share": "onset of stability",
    "onset_above": "last unstable step",
    "onset_above_epoch": "last unstable step",
    "onset_above_share": "last unstable step",
}


def quantity(metric: str) -> Quantity:
    """The quantity of a metric of the results table; accuracies, errors and barriers of error are shown in percent."""
    label = _LABELS.get(metric, metric.replace("_", " "))
    if metric.endswith(("accuracy", "barrier")) and "loss" not in metric:
        return Quantity(label, 100, 2, "%")
    if metric in ("onset", "onset_above"):
        return Quantity(label, digits=0, unit="it")
    if metric in ("onset_epoch", "onset_above_epoch"):
        return Quantity(label, digits=1, unit="ep")
    if metric in ("onset_share", "onset_above_share", "share_to_converge", "share_unconverged"):
        return Quantity(label, 100, 2, "% of training")
    if metric in ("search_epochs", "empty_layers", "dead_units"):
        return Quantity(label, digits=1)
    return Quantity(label)


def interval_text(metric: str, interval: Interval) -> str:
    """A mean with the half width of its interval (none if n is 1) and its unit."""
    q = quantity(metric)
    width = "" if interval.half_width is None else f" ± {q.number(interval.half_width)}"
    return f"{q.number(interval.mean)}{width}" + (f" {q.unit}" if q.unit else "")


def digits_of(effect: Effect) -> int:
    """The number of digits of an effect; a narrow interval has more."""
    digits = 0 if effect.unit == "iterations" else 2
    if effect.low is None or effect.high is None:
        return digits
    width = effect.high - effect.low
    if digits and 0 < width < math.inf:
        return min(6, max(2, 1 - math.floor(math.log10(width))))
    return digits


def effect_text(effect: Effect) -> str:
    """An effect with its interval (if there is one) and its unit."""
    digits = digits_of(effect)
    if effect.low is None or effect.high is None:
        return f"{effect.value:+.{digits}f} {effect.unit}".rstrip()
    low, high = (f"{end:+.{digits}f}".replace("inf", "∞") for end in (effect.low, effect.high))
    return f"{effect.value:+.{digits}f} ({low} to {high}) {effect.unit}".rstrip()


def p_text(p: float | None) -> str:
    """A p value as papers write it; empty if there is none."""
    return "" if p is None else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0") if p < 1 else "1"
