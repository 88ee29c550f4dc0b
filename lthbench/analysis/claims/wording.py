"""Findings in words: a sentence made from an effect and from what a test compares."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lthbench.analysis.claims.verdict import Effect
from lthbench.analysis.quantity import digits_of, quantity
from lthbench.experiments.controls import CONTROLS
from lthbench.suite.claim_tests import Selection

# A variant of an experiment -> the networks that it measures, with {0} for the arm.
_NOUNS: tuple[tuple[str, str], ...] = (
    (r"ticket", "{0}tickets"),
    (r"dense", "{0}dense networks"),
    *((kind, control.noun) for kind, control in CONTROLS.items()),
    (r"native ticket", "native {0}tickets"),
    (r"mask of ([^*]+)\*?", "{0}trainings on masks of {1}"),
    (r"ticket, budget (.+)", "{0}tickets of {1} of the search budget"),
    (r"(ticket|random), ANY per class", "{1} on few images"),
    (r"(ticket|random), (.+) per class", "{1} on {2} images per class"),
    (r"probe of ([^,]+), estimated", "probes of {1}"),
    (r"probe of ([^,]+), (.+)", "probes of {1} (normalisation {2})"),
    (r"probe (ticket|random|native ticket) on ANY", "probes of {1} on other data"),
    (r"probe (ticket|random|native ticket) on (.+)", "probes of {1} on {2}"),
    (r"train (ticket|random|native ticket) on ANY", "{1} trained on other data"),
    (r"train (ticket|random|native ticket) on (.+)", "{1} trained on {2}"),
    (r"pull ANY in (search|training)", "{0}tickets with a pull in the {1}"),
    (r"(pull .+) in both", "{0}tickets with {1} in search and training"),
    (r"(pull .+) in (search|training)", "{0}tickets with {1} in the {2}"),
    (r"weight-decay for (pull .+)", "{0}tickets with weight decay instead of {1}"),
    (r"other-init for (pull .+)", "{0}tickets pulled to another initialisation, for {1}"),
    (r"early-stopping for (pull .+)", "{0}tickets of searches stopped early, for {1}"),
    (r"low-lr for (pull .+)", "{0}tickets of searches at a lower rate, for {1}"),
    (r"barrier", "barriers of {0}networks"),
    (r"ANY: ticket", "{0}tickets of varied recipes"),
    (r"ANY(: .+)?", "{0}dense networks of varied recipes"),
)


def named(selection: Selection, chosen: str | None = None) -> str:
    """The networks of a selection as a plural: `rewound late tickets`."""
    whose = "" if selection.arm == "*" else f"{selection.arm.lstrip('=')} "
    if selection.rewound:
        whose = f"rewound {whose}"
    variant = selection.variant.replace("{chosen}", chosen or "of the chosen strength")
    # Wildcards, except at the end of a name.
    return _noun(re.sub(r"\{\w+\}|^\*|(?<= )\*", "ANY", variant), whose)


def _noun(variant: str, whose: str) -> str:
    for pattern, words in _NOUNS:
        if match := re.fullmatch(pattern, variant):
            return words.format(whose, *(_noun(g, whose) if g in _NETWORKS else g for g in match.groups("")))
    return f"{whose}'{variant}'"


# Networks that stand within the names of others, such as those of probes.
_NETWORKS = {"ticket", "dense", "native ticket", *CONTROLS}


def together(selections: Sequence[Selection], chosen: str | None = None) -> str:
    """Several selections as one side of a comparison."""
    return " and ".join(dict.fromkeys(named(selection, chosen) for selection in selections))


def compared(effect: Effect, n: str, subject: str, reference: str, metric: str) -> str:
    """`late tickets are 0.73 pp above late dense networks (-0.02 to +1.48, n = 3)`; both sides are plurals.

    Args:
        metric: named where it is not the accuracy; empty where the sides name it.
    """
    size = f"{abs(effect.value):.{digits_of(effect)}f} {effect.unit}".rstrip()
    where = "above" if effect.value >= 0 else "below"
    of = "" if metric in ("", "test_accuracy") else f" in {quantity(metric).label}"
    if effect.value == 0:
        return f"{subject} are level with {reference}{of} {spread(effect, n)}"
    return f"{subject} are {size} {where} {reference}{of} {spread(effect, n)}"


def level_of(effect: Effect, n: str, subject: str, metric: str) -> str:
    """`late tickets have a test accuracy of 91.20 pp (90.10 to 92.30, n = 3)`."""
    size = f"{effect.value:.{digits_of(effect)}f} {effect.unit}".rstrip()
    return f"{subject} have a {quantity(metric).label} of {size} {spread(effect, n)}"


def sooner(effect: Effect, n: str, subject: str, reference: str, metric: str) -> str:
    """`early tickets are 40 iterations ahead of early dense networks in steps to converge (n = 3)`."""
    size = f"{abs(effect.value):.{digits_of(effect)}f} {effect.unit}".rstrip()
    where = "level with" if effect.value == 0 else f"{size} {'ahead of' if effect.value < 0 else 'behind'}"
    return f"{subject} are {where} {reference} in {quantity(metric).label} {spread(effect, n)}"


def spread(effect: Effect, n: str) -> str:
    """The interval and n of a finding, in brackets."""
    if effect.low is None or effect.high is None:
        return f"({n})"
    low, high = (f"{end:+.{digits_of(effect)}f}".replace("inf", "∞") for end in (effect.low, effect.high))
    return f"({low} to {high}, {n})"
