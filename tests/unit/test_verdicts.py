"""Verdicts on planted numbers: an effect is found, none is not, at the stated rates, and what is unknown stays so."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import World, sensitivity, suite_text, world
from scipy import stats

from lthbench.analysis.claims.configuration_tests import rank
from lthbench.analysis.claims.decide import among_pairs
from lthbench.analysis.claims.evidence import Evidence
from lthbench.analysis.claims.judge import judge
from lthbench.analysis.claims.mixed_rows import model_rows
from lthbench.analysis.claims.verdict import DECIDED, OUTCOMES, Verdict
from lthbench.analysis.points import MeasuredPoint
from lthbench.analysis.quantity import p_text
from lthbench.analysis.report import verdict_table
from lthbench.analysis.stats.paired import power_equivalence, power_one_sided
from lthbench.cli import verdicts as printing
from lthbench.experiments.cell import FIRST_SELECTION_REPLICATE
from lthbench.suite.claim_tests import Mixed, Rank
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.schema import Suite

CLAIMS = Path(__file__).parents[2] / "suites" / "claims"
NOISE = 0.002  # of an accuracy; a mean of two levels of a difference of two has this spread, too
SIMULATIONS = 400

GREATER = """\
C1:
  sentence: Tickets beat reinitialisations.
  origin: inferred
  experiments: [imp, controls]
  tests:
    - {what: higher, test: contrast, plus: {early: ticket}, minus: {early: reinit}, margin: 0.4}
"""
EQUIVALENT = GREATER.replace("margin", "expected: equivalent, margin")


def suite(folder: Path, claims: str, replicates: int, *pairs: str) -> Suite:
    (folder / "claims.yaml").write_text(claims)
    (folder / "suite.yaml").write_text(suite_text("claims.yaml", replicates, *pairs))
    return load_suite(folder / "suite.yaml")


def tickets(pair: str, replicates: int, random: np.random.Generator, effect: float) -> list[MeasuredPoint]:
    """Tickets and reinitialisations that differ by an effect, in percentage points."""
    w = World(pair, replicates, random, NOISE)
    for level in (1, 2):
        w.add("imp", "early", "ticket", level, test_accuracy=0.9 + effect / 100)
        w.add("controls", "early", "reinit", level, test_accuracy=0.9)
    return w.points


def rates(loaded: Suite, *effects: float, n: int = SIMULATIONS) -> list[list[Verdict]]:
    """The verdicts of many simulated suites, whose pairs have these effects."""
    random = np.random.default_rng(20260101)
    found = []
    for _ in range(n):
        points = [
            point
            for pair, effect in zip(loaded.pairs, effects, strict=True)
            for point in tickets(pair, loaded.replicates, random, effect)
        ]
        found.append([v for v in judge(loaded, points, {}, "suite.yaml") if v.pair])
    return found


def assert_rate(count: int, expected: float, n: int = SIMULATIONS, at_most: bool = False) -> None:
    """A count of n that is expected with a probability; wrong by chance once in a thousand."""
    low, high = stats.binom.ppf([0.0005, 0.9995], n, expected)
    assert (at_most or low <= count) and count <= high, f"{count} of {n}, expected {expected:.0%}"


def test_a_planted_effect_is_found_with_the_stated_power(tmp_path: Path) -> None:
    found = [v for (v,) in rates(suite(tmp_path, GREATER, 8, "a"), 0.2)]
    assert_rate(sum(v.outcome == "supported" for v in found), power_one_sided(0.2, 0.2, 8, 0.05))
    inconclusive = [v for v in found if v.outcome == "inconclusive"]
    assert inconclusive and all(v.outlook is not None for v in inconclusive)


def test_without_an_effect_a_claim_is_supported_and_contradicted_once_in_twenty(tmp_path: Path) -> None:
    found = [v for (v,) in rates(suite(tmp_path, GREATER, 5, "a"), 0)]
    for outcome in ("supported", "contradicted"):
        assert_rate(sum(v.outcome == outcome for v in found), 0.05)
    # What lies within the margin on both sides but holds no zero has a sign, and is not negligible.
    within = power_equivalence(0.4, 0.2, 5, 0.05)
    assert_rate(sum(v.outcome == "negligible" for v in found), within, at_most=True)
    assert sum(v.outcome == "negligible" for v in found) > 0.8 * within * len(found)


def test_an_effect_as_large_as_the_margin_is_negligible_at_most_once_in_twenty(tmp_path: Path) -> None:
    found = [v for (v,) in rates(suite(tmp_path, GREATER, 4, "a"), 0.4)]
    assert_rate(sum(v.outcome in ("negligible", "contradicted") for v in found), 0.05, at_most=True)


@pytest.mark.parametrize(("effect", "rate"), [(0.4, 0.05), (0.0, power_equivalence(0.4, 0.2, 6, 0.05))])
def test_equivalence_holds_at_its_rates(effect: float, rate: float, tmp_path: Path) -> None:
    found = [v for (v,) in rates(suite(tmp_path, EQUIVALENT, 6, "a"), effect)]
    assert_rate(sum(v.outcome == "supported" for v in found), rate)


def test_over_pairs_any_false_support_comes_once_in_twenty(tmp_path: Path) -> None:
    found = rates(suite(tmp_path, GREATER, 5, "a", "b", "c", "d"), 1.0, 0, 0, 0)
    assert_rate(sum(any(v.outcome == "supported" for v in row[1:]) for row in found), 0.05, at_most=True)
    assert_rate(sum(row[0].outcome == "supported" for row in found), power_one_sided(1.0, 0.2, 5, 0.05 / 4))


def test_two_looks_share_the_error_rate(tmp_path: Path) -> None:
    suite(tmp_path, GREATER, 5, "a")
    path = tmp_path / "suite.yaml"
    path.write_text(path.read_text().replace("title", "looks: 2\ntitle"))
    found = [v for (v,) in rates(load_suite(path), 0)]
    assert_rate(sum(v.outcome == "supported" for v in found), 0.025)


def test_onsets_that_do_not_differ_are_told_apart_at_most_once_in_twenty(tmp_path: Path) -> None:
    loaded, random, outcomes = suite(tmp_path, ONSETS, 5, "a"), np.random.default_rng(5), []
    for planted in (False, True):
        for _ in range(150):
            w = World("a", 5, random)
            for arm in ("early", "late"):
                for r in range(5):
                    onset = random.choice([0, 10, 20, 40]) * (1 + 4 * (planted and arm == "late"))
                    for step in (0, 10, 20, 40, 80):
                        w.add("onset", arm, "barrier", 0, step, only=r, test_barrier=0.2 * (step < onset))
            outcomes.append(judge(loaded, w.points, {}, "s.yaml")[0].outcome)
    assert_rate(outcomes[:150].count("supported"), 0.05, 150, at_most=True)
    assert outcomes[150:].count("supported") > 2 * outcomes[:150].count("supported")


def test_rows_of_one_mask_lineage_do_not_count_as_independent(tmp_path: Path) -> None:
    """All levels of an arm and replicate share a deviation, which Wald's test of the mixed model takes for evidence."""
    claims = """\
C5:
  sentence: Early tickets are better.
  origin: inferred
  experiments: [imp]
  tests:
    - what: better
      test: mixed
      rows: {early: {of: {early: ticket}}, late: {of: {late: ticket}}}
      fixed: [early, log density]
      tested: early
"""
    loaded, random = suite(tmp_path, claims, 5, "a"), np.random.default_rng(6)
    supported = wald = 0
    for _ in range(150):
        w = World("a", 5, random, 0.001)
        for arm in ("early", "late"):
            for r in range(5):
                lineage = float(random.normal(0, 0.004))
                for level in (1, 2):
                    w.add("imp", arm, "ticket", level, only=r, test_accuracy=0.9 + lineage)
        (verdict,) = judge(loaded, w.points, {}, "s.yaml")
        (part,) = verdict.parts
        assert part.also is not None and part.effect is not None
        supported += verdict.outcome == "supported"
        wald += part.also[1] <= 0.1 and part.effect.value > 0
    assert_rate(supported, 0.05, 150)
    assert wald > supported


PAPER = dict.fromkeys([f"C{n}" for n in range(1, 24)], "supported") | {"C21": "inconclusive"}
# Without any effect: half a search is as good as a whole one, late tickets hold no features, onsets are as planted.
TRUE_ANYWAY = {"C3", "C15", "C18"}


@pytest.mark.parametrize("is_true", [True, False])
def test_the_claims_of_the_paper_hold_where_they_are_planted_and_nowhere_else(is_true: bool, tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(suite_text(str(CLAIMS), 6, "swin-tinyimagenet"))
    loaded, random, n = load_suite(tmp_path / "suite.yaml"), np.random.default_rng(7), 10
    outcomes: dict[str, list[str]] = {}
    for _ in range(n):
        points = world("swin-tinyimagenet", 6, random, is_true=is_true)
        for verdict in judge(loaded, points, {("swin-tinyimagenet", "onset"): 40.0}, "suite.yaml"):
            outcomes.setdefault(verdict.claim, []).append(verdict.outcome)
            for part in verdict.parts:
                assert bool(part.finding) == (part.effect is not None)
                assert not re.search(r"[{}']|ANY|(?<!k)\*", part.finding), part.finding
            if verdict.claim == "C10":
                told = re.search(
                    r"each alone, .*: moved (\S+), log noise (\S+), unstable (\S+)", verdict.parts[0].reason
                )
                assert told is not None
                assert not is_true or float(told[1]) > max(float(told[2]), float(told[3]))
    assert list(outcomes) == list(PAPER)
    for claim, found in outcomes.items():
        if is_true:
            assert found.count(PAPER[claim]) >= n - 2, f"{claim}: {found}"
            assert "contradicted" not in found, claim
        elif claim in TRUE_ANYWAY:
            assert found.count("supported") >= n - 3, f"{claim}: {found}"
        else:
            assert found.count("supported") <= stats.binom.ppf(0.9995, n, 0.05), f"{claim}: {found}"


def one(loaded: Suite, points: list[MeasuredPoint]) -> Verdict:
    return judge(loaded, points, {}, "suites/mine.yaml")[0]


@pytest.mark.parametrize(
    ("effect", "expected", "outcome", "found"),
    [
        (0.5, "expected: less, than: -0.5", "contradicted", r"early tickets are 0\.[45]\d pp above reinit"),
        (0.5, "margin: 0.4", "supported", r"early tickets are 0\.[45]\d pp above reinit"),
        (-0.5, "margin: 0.4", "contradicted", r"early tickets are 0\.[45]\d pp below reinit"),
        (0.0, "margin: 0.6", "negligible", r"early tickets are 0\.\d+ pp (above|below) reinit"),
    ],
)
def test_a_verdict_says_what_was_found_and_not_what_was_tested(
    effect: float, expected: str, outcome: str, found: str, tmp_path: Path
) -> None:
    loaded = suite(tmp_path, GREATER.replace("margin: 0.4", expected), 5, "a")
    verdict = one(loaded, tickets("a", 5, np.random.default_rng(4), effect))
    assert verdict.outcome == outcome
    assert re.match(found, verdict.finding) and "n = 5)" in verdict.finding, verdict.finding
    assert "higher" not in verdict.finding + verdict.reason, "that is what was tested"
    effect_there = verdict.effect
    assert effect_there is not None and effect_there.low is not None and effect_there.high is not None
    assert f"({effect_there.low:+.2f} to {effect_there.high:+.2f}" in verdict.finding
    # The same sentence, and the same p, stand in every table and in JSON.
    grid = verdict_table.lines([verdict])
    line = dict(zip(grid.columns, grid.rows[0], strict=True))
    assert line["finding"] == verdict.finding == asdict(verdict)["finding"]
    assert line["p (Holm)"] == p_text(asdict(verdict)["p"])
    assert verdict.p == getattr(verdict.p_values, outcome)
    with printing.out.capture() as captured:
        printing.print_verdicts([verdict])
    assert re.sub(r"\s+", "", verdict.finding) in re.sub(r"[\s│]+", "", captured.get())


def test_an_open_verdict_gives_a_half_width_and_no_n_that_would_settle_it(tmp_path: Path) -> None:
    # Without an effect, an n that is promised to decide would find something in one of ten suites.
    loaded = suite(tmp_path, GREATER, 3, "a")
    verdict = next(v for v in (one(loaded, tickets("a", 3, np.random.default_rng(seed), 0.2)) for seed in range(99))
                   if v.outcome == "inconclusive")  # fmt: skip
    outlook, effect = verdict.outlook, verdict.effect
    assert outlook is not None and effect is not None and effect.low is not None and effect.high is not None
    assert outlook.half_width == pytest.approx((effect.high - effect.low) / 2)
    assert outlook.n is not None and 3 < outlook.n <= 50
    spread = outlook.half_width * 3**0.5 / stats.t.ppf(0.95, 2)
    widths = [stats.t.ppf(0.95, n - 1) * spread / n**0.5 for n in (outlook.n - 1, outlook.n)]
    # Half the margin: wherever an interval of that width lies, it is decided.
    assert widths[1] <= 0.4 / 2 < widths[0] and outlook.half_width_then == pytest.approx(widths[1])
    among = among_pairs(verdict.parts[0], 0.05, 4)
    assert among is not None and among.n is not None and among.n > outlook.n, "Holm leaves each of four pairs less"
    no_margin = one(suite(tmp_path, GREATER.replace("margin: 0.4", "margin: 0"), 3, "a"),
                    tickets("a", 3, np.random.default_rng(0), 0.0))  # fmt: skip
    assert no_margin.outlook is not None and no_margin.outlook.n is None
    assert "without a margin no n can be named" in no_margin.outlook.text


def test_a_claim_with_a_part_that_is_not_applicable_is_at_most_contradicted(tmp_path: Path) -> None:
    claims = GREATER + GREATER.splitlines()[-1].replace("higher", "than late").replace("early: reinit", "late: ticket")
    loaded = suite(tmp_path, claims, 5, "a")
    early = {"early": loaded.pairs["a"].arms["early"]}
    loaded = loaded.model_copy(update={"pairs": {"a": loaded.pairs["a"].model_copy(update={"arms": early})}})
    for effect, outcome in ((2.0, "not applicable"), (-2.0, "contradicted")):
        verdict = one(loaded, tickets("a", 5, np.random.default_rng(0), effect))
        assert (verdict.outcome, verdict.parts[1].outcome) == (outcome, "not applicable")


def test_a_claim_about_a_class_of_arms_that_the_suite_does_not_have_is_not_applicable(tmp_path: Path) -> None:
    loaded = suite(tmp_path, GREATER, 3, "a", "b")
    without = loaded.pairs["a"].arms["early"].model_copy(update={"stability_class": None})
    pairs = {"a": loaded.pairs["a"].model_copy(update={"arms": {"other": without}}), "b": loaded.pairs["b"]}
    loaded, random = loaded.model_copy(update={"pairs": pairs}), np.random.default_rng(0)
    points = [point for pair in "ab" for point in tickets(pair, 3, random, 2.0)]
    on_a, on_b, on_all = judge(loaded, points, {}, "s.yaml")
    assert (on_a.outcome, on_a.effect, on_a.n) == ("not applicable", None, 0)
    assert "no arm is early-stable" in on_a.reason
    assert on_b.p == on_b.p_alone.supported, "it is not in the family of Holm's adjustment"
    assert on_all.outcome == on_b.outcome and "rests on 1 of the 1 pairs" in on_all.reason


def test_nothing_is_decided_before_all_replicates_are_done(tmp_path: Path) -> None:
    loaded = suite(tmp_path, GREATER, 5, "a")
    points = tickets("a", 5, np.random.default_rng(0), 2.0)
    assert one(loaded, points).outcome == "supported"
    partly = [replace(p, status="missing", numbers={}) if p.replicate > 2 else p for p in points]
    verdict = one(loaded, partly)
    assert (verdict.outcome, verdict.n, verdict.planned, verdict.p) == ("inconclusive", 3, 5, None)
    assert "3 of 5 replicates done" in verdict.reason and verdict.effect is not None
    assert verdict.command == "lthbench run suites/mine.yaml --pair a --only imp --only rewound --only controls"
    nothing = one(loaded, [replace(p, status="missing", numbers={}) for p in points])
    assert (nothing.outcome, nothing.command) == ("not run", verdict.command)


RANKS = """\
C1:
  sentence: Recipes with a higher accuracy have more noise.
  origin: inferred
  experiments: [sensitivity]
  tests:
    - what: accuracy and noise rise together
      test: rank
      method: spearman
      of: [{x: {late: "{config}"}, y: {arm: late, variant: "{config}: onset", metric: noise_scale}}]
"""


def test_a_rank_correlation_that_is_not_whole_yet_waits_for_the_replicates_of_the_suite(tmp_path: Path) -> None:
    loaded = suite(tmp_path, RANKS, 3, "a").model_copy(update={"first_replicate": 1000})
    (test,) = loaded.claims["C1"].tests
    assert isinstance(test, Rank)
    w = World("a", 3, np.random.default_rng(0))
    sensitivity(w, is_true=True)
    # One recipe has no noise scale, which may come as long as a task of the experiment is not done.
    points = [replace(p, replicate=p.replicate + 1000) for p in w.points]
    points = [replace(p, numbers={}) if p.variant == "optimizer.lr = 5: onset" else p for p in points]
    points = [replace(p, status="missing") if p.variant == "optimizer.lr = 7: ticket" else p for p in points]
    evidence = Evidence("a", loaded.pairs["a"], loaded.tested(), points)
    part = rank(test, evidence, 0.05)
    assert (part.outcome, part.n) == ("inconclusive", 11) and "not all replicates are done" in part.reason
    assert evidence.lacking.missing == {1000, 1001, 1002}


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_missing_or_diverged_no_verdict_fails_or_comes_too_early(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    (tmp_path / "suite.yaml").write_text(suite_text(str(CLAIMS), 4, "swin-tinyimagenet"))
    loaded = load_suite(tmp_path / "suite.yaml")
    points = world("swin-tinyimagenet", 4, random, is_true=True)
    part = random.uniform(0.001, 0.9)
    harmed = []
    for point in points:
        fate = random.choice(["ok", "missing", "diverged", "gone"], p=[1 - part, part / 2, part / 4, part / 4])
        if fate != "gone":
            harmed.append(point if fate == "ok" else replace(point, status=fate, numbers={}))
    for verdict in judge(loaded, harmed, {}, "suite.yaml"):
        decided = [p for p in verdict.parts if p.outcome in DECIDED and p.of == "replicates"]
        assert all(part.n == 4 for part in decided if not part.test.startswith("as C"))
        assert verdict.outcome != "supported" or verdict.n == 4
        assert verdict.n <= verdict.planned
        assert verdict.outcome in OUTCOMES
        assert verdict.reason or verdict.finding


def test_a_diverged_replicate_leaves_a_claim_undecided_and_is_named(tmp_path: Path) -> None:
    loaded = suite(tmp_path, GREATER, 5, "a")
    points = tickets("a", 5, np.random.default_rng(0), 2.0)
    points = [
        replace(p, status="diverged", numbers={"test_accuracy": 0.1})
        if p.replicate == 3 and p.variant == "ticket" and p.level == 2
        else p
        for p in points
    ]
    verdict = one(loaded, points)
    assert verdict.outcome == "inconclusive"
    assert "early ticket at level 2 diverged in replicate 3" in verdict.reason
    assert verdict.effect is not None and verdict.effect.value == pytest.approx(2, abs=0.5), (
        "a diverged one is left out"
    )


def test_what_the_suite_does_not_measure_is_not_run_with_the_command_that_would(tmp_path: Path) -> None:
    loaded = suite(tmp_path, GREATER, 5, "a")
    points = [p for p in tickets("a", 5, np.random.default_rng(0), 2.0) if p.variant != "reinit"]
    verdict = one(loaded, points)
    assert (verdict.outcome, verdict.reason) == ("not run", "no 'reinit' of early")
    assert verdict.command == "lthbench run suites/mine.yaml --pair a --only imp --only rewound --only controls"
    assert verdict.lacks == "let a in suites/mine.yaml measure what is missing: no 'reinit' of early"


@pytest.mark.parametrize("replicates", [1, 2, 3])
def test_replicates_without_spread_decide_nothing(replicates: int, tmp_path: Path) -> None:
    loaded = suite(tmp_path, GREATER + "", replicates, "a")
    points = [
        replace(p, numbers={"test_accuracy": 0.95 if p.variant == "ticket" else 0.9})
        for p in tickets("a", replicates, np.random.default_rng(0), 0)
    ]
    verdict = one(loaded, points)
    assert (verdict.outcome, verdict.p) == ("inconclusive", None)
    assert ("no spread" in verdict.reason) == (replicates == 1)


def test_measured_onsets_and_not_names_say_which_arms_are_early_stable(tmp_path: Path) -> None:
    loaded = suite(tmp_path, GREATER, 3, "a")
    points = tickets("a", 3, np.random.default_rng(0), 2.0)

    def with_onsets(late: int, first: int = 0) -> list[MeasuredPoint]:
        w = World("a", 3, np.random.default_rng(0))
        for arm, onset in (("early", 10), ("late", late)):
            for step in (0, 10, 20, 40):
                for r in range(first, first + 3):
                    w.add("onset", arm, "barrier", 0, step, only=r, test_barrier=0.2 * (step < onset))
        return points + w.points

    said = "early: early; late: late (by the suite's `class`; onsets are not measured)"
    assert one(loaded, points).arms == said
    told = one(loaded, with_onsets(40)).arms
    assert told.endswith("(by measured onsets of the tested replicates, for want of selection replicates)")
    told = one(loaded, with_onsets(40, FIRST_SELECTION_REPLICATE)).arms
    assert told == "early: early; late: late (by measured onsets of selection replicates)"
    verdict = one(loaded, with_onsets(10))
    assert (verdict.outcome, "no arm is early-stable" in verdict.reason) == ("not applicable", True)


def test_arms_are_of_the_class_that_the_suite_gives_them_and_not_of_their_names(tmp_path: Path) -> None:
    suite(tmp_path, GREATER, 3, "a")
    path = tmp_path / "suite.yaml"
    path.write_text(path.read_text().replace("{class: early}", "{}"))
    points = tickets("a", 3, np.random.default_rng(0), 2.0)
    verdict = one(load_suite(path), points)
    assert (verdict.outcome, verdict.reason) == (
        "not applicable",
        "no arm is early-stable, by the suite's `class`; onsets are not measured",
    )
    path.write_text(path.read_text().replace("class: late", "class: early"))
    renamed = [replace(point, arm="late") for point in points]
    assert one(load_suite(path), renamed).outcome == "supported"


ONSETS = """\
C3:
  sentence: The early arm is stable first.
  origin: inferred
  experiments: [onset]
  classes: stated
  tests: [{what: first, test: onset, earlier: {early: barrier}, later: {late: barrier}}]
"""


def test_onsets_are_compared_as_shares_of_training_whatever_the_batches(tmp_path: Path) -> None:
    """Both are stable from the fourth of 200 epochs; in iterations one is 8 times as far as the other."""
    loaded = suite(tmp_path, ONSETS, 5, "a")

    def points(late_share: float) -> list[MeasuredPoint]:
        return [
            MeasuredPoint(
                *("a", "onset", arm, r, "barrier", 0, None, epoch * per_epoch, "ok"),
                *({"validation_barrier": 0.5 * (epoch < 4)}, f"{arm}{r}{epoch}"),
                share=epoch / 200 * (late_share if arm == "late" else 1),
            )
            for arm, per_epoch in (("early", 44), ("late", 352))
            for r in range(5)
            for epoch in (0, 1, 2, 4, 8)
        ]

    verdict = one(loaded, points(1))
    assert verdict.outcome == "inconclusive" and verdict.effect is not None and verdict.effect.value == 0
    verdict = one(loaded, points(8))
    assert verdict.outcome == "supported"
    assert "early networks are 10.50 % of training ahead of late networks" in verdict.finding


def test_an_onset_where_stability_is_not_monotone_lies_somewhere_between(tmp_path: Path) -> None:
    w = World("a", 3, np.random.default_rng(0))
    for arm, pattern in (("early", "SSUSS"), ("late", "UUUSS")):
        for at, state in enumerate(pattern):
            w.add("onset", arm, "barrier", 0, 400 * at, test_barrier=0.2 * (state == "U"))
    verdict = one(suite(tmp_path, ONSETS, 3, "a"), w.points)
    assert verdict.outcome == "inconclusive"
    assert "not monotone in replicate 0, 1, 2" in verdict.parts[0].reason


def test_onsets_are_determined_by_validation_images_alone(tmp_path: Path) -> None:
    w = World("a", 3, np.random.default_rng(0))
    for arm in ("early", "late"):
        for step in (0, 40, 80):
            w.add("onset", arm, "barrier", 0, step, test_barrier=0.2 * (arm == "late" and step < 80))
    assert one(suite(tmp_path, ONSETS, 3, "a"), w.points).outcome == "supported"
    same = [replace(p, numbers=p.numbers | {"validation_barrier": 0.0}) for p in w.points]
    assert one(suite(tmp_path, ONSETS, 3, "a"), same).outcome == "inconclusive"


def planned_as_one_recipe(folder: Path) -> tuple[Suite, list[MeasuredPoint]]:
    """A suite whose arm `late` stands in a sensitivity experiment as it is, and its measurements, a number per task."""
    (folder / "suite.yaml").write_text(f"""\
title: t
replicates: 2
claims: [{CLAIMS}]
pairs:
  p:
    model: {{name: lenet-300-100, width: 10}}
    data: {{name: fashion-mnist-10k, validation: 100, num_train: 200}}
    recipe: {{steps: 3ep, batch_size: 64, optimizer: {{name: sgd, lr: 0.05}}}}
    arms: {{late: {{class: late}}, twin: {{}}}}
    claim_levels: {{range: [1, 2]}}
    experiments:
      imp: {{levels: 2}}
      onset: {{grid: [0it, 2it]}}
      sensitivity: {{vary: {{optimizer.lr: [0.01, 0.02, 0.1]}}, levels: [1], grid: [0it, 2it]}}
""")
    loaded, points = load_suite(folder / "suite.yaml"), []
    for placed in make_plan(loaded).measurements:
        measurement, cell = placed.measurement, placed.cell
        number = int(measurement.task.key[:6], 16) / 2**24
        numbers = {"test_accuracy": number, "distance_relative": number, "noise_scale": 5 + number,
                   "onset_above_share": 0.1, "validation_barrier": 0.0}  # fmt: skip
        level = measurement.level or 0
        for variant in {measurement.variant, measurement.variant.replace("barrier", "onset")}:
            points.append(
                MeasuredPoint("p", placed.experiment, cell.arm, cell.replicate, variant, level, 0.8**level,
                      measurement.step, "ok", numbers, measurement.task.key, share=0.0)
            )  # fmt: skip
    return loaded, points


def test_a_training_of_several_names_is_one_row_and_its_recipe_one_configuration(tmp_path: Path) -> None:
    loaded, points = planned_as_one_recipe(tmp_path)
    test = loaded.claims["C10"].tests[0]
    assert isinstance(test, Mixed)
    rows = model_rows(test, Evidence("p", loaded.pairs["p"], loaded.tested(), points))
    # Level 1 of four recipes, level 2 of the arm's own: of `late`, and of `twin`, which is the same recipe.
    assert len(rows) == 2 * 5 and len({row["value"] for row in rows}) == len(rows)
    configurations = {(row["level"], row["configuration"]) for row in rows if row["configuration"].endswith("as it is")}
    assert configurations == {(1, "recipe/late/as it is"), (2, "recipe/late/as it is")}
    assert len({row["configuration"] for row in rows}) == 4


def test_a_rank_correlation_counts_a_training_of_several_names_once(tmp_path: Path) -> None:
    loaded, points = planned_as_one_recipe(tmp_path)
    (verdict,) = [v for v in judge(loaded, points, {}, "s.yaml") if v.claim == "C7"]
    assert [part.n for part in verdict.parts] == [4, 4]


def test_a_recipe_without_a_noise_scale_is_left_out_and_reported(tmp_path: Path) -> None:
    loaded, points = planned_as_one_recipe(tmp_path)

    def without(point: MeasuredPoint) -> MeasuredPoint:
        if "optimizer.lr = 0.1" not in point.variant:
            return point
        return replace(point, numbers={k: v for k, v in point.numbers.items() if k != "noise_scale"})

    verdicts = {v.claim: v for v in judge(loaded, [without(p) for p in points], {}, "s.yaml")}
    told = "1 left out without noise scale: recipe/late/optimizer.lr = 0.1"
    assert told in verdicts["C10"].parts[0].reason
    assert "left out without noise scale" in verdicts["C23"].parts[3].reason and verdicts["C23"].parts[3].n == 3


@pytest.mark.parametrize("status", ["diverged", "at chance"])
def test_a_configuration_that_failed_is_left_out_and_takes_no_other_with_it(status: Any, tmp_path: Path) -> None:
    loaded, points = planned_as_one_recipe(tmp_path)
    failed = [replace(p, status=status) if "optimizer.lr = 0.01" in p.variant else p for p in points]
    (verdict,) = [v for v in judge(loaded, failed, {}, "s.yaml") if v.claim == "C7"]
    assert [part.n for part in verdict.parts] == [3, 3]
    assert "1 left out without test accuracy: late optimizer.lr = 0.01" in verdict.parts[0].reason


def test_a_recipe_that_learns_nothing_decides_nothing_and_is_named(tmp_path: Path) -> None:
    loaded = suite(tmp_path, GREATER, 5, "a")
    points = tickets("a", 5, np.random.default_rng(0), 2.0)
    assert one(loaded, points).outcome == "supported"
    verdict = one(loaded, [replace(p, status="at chance") if p.replicate == 3 else p for p in points])
    assert verdict.outcome == "inconclusive"
    assert re.search("the dense network of early .* is at chance in replicate 3", verdict.reason), verdict.reason


@pytest.mark.parametrize(
    ("over_pairs", "effects", "outcome"),
    [
        ("every", (2, 2, 2), "supported"),
        ("every", (-2, -2, -2), "contradicted"),
        ("every", (0, 0, 0), "negligible"),
        ("every", (2, 2, -2), "inconclusive"),
        ("several", (2, 2, 0), "supported"),
        ("several", (-2, -2, 0), "contradicted"),
        ("several", (2, 0, 0), "negligible"),
        ("several", (2, 2, -2, -2), "inconclusive"),
    ],
)
def test_over_all_pairs_every_outcome_is_that_of_every_pair_or_of_several(
    over_pairs: str, effects: tuple[float, ...], outcome: str, tmp_path: Path
) -> None:
    claims = GREATER.replace("  tests:", f"  over_pairs: {over_pairs}\n  tests:")
    names = "abcd"[: len(effects)]
    loaded, random = suite(tmp_path, claims, 6, *names), np.random.default_rng(2)
    points = [p for pair, effect in zip(loaded.pairs, effects, strict=True) for p in tickets(pair, 6, random, effect)]
    found = judge(loaded, points, {}, "s.yaml")
    assert [v.pair for v in found] == [*names, None]
    assert found[-1].outcome == outcome
    for kind, on in (("contradicted", [e < 0 for e in effects]), ("negligible", [e == 0 for e in effects])):
        assert (f"{kind} on {sum(on)}" in found[-1].finding) == any(on)
    # Clopper & Pearson.
    interval = {(3, 3): "29% to 100%", (2, 3): "9% to 99%", (1, 3): "1% to 91%", (0, 3): "0% to 71%"}
    told = interval.get((sum(e > 0 for e in effects), len(effects)), "")
    assert told in found[-1].finding, found[-1].finding
    assert f"rests on {len(effects)} of the {len(effects)} pairs" in found[-1].reason


def test_a_pair_where_the_suite_does_not_measure_a_claim_costs_the_others_nothing(tmp_path: Path) -> None:
    loaded, random = suite(tmp_path, GREATER, 5, "a", "b"), np.random.default_rng(3)
    verdicts = judge(loaded, tickets("a", 5, random, 1.0), {}, "s.yaml")
    assert [v.outcome for v in verdicts] == ["supported", "not run", "supported"]
    assert verdicts[0].p_alone == verdicts[0].p_values
    assert "rests on 1 of the 1 pairs" in verdicts[-1].reason
    not_yet = [replace(p, status="missing", numbers={}) for p in tickets("b", 5, random, 1.0)]
    verdicts = judge(loaded, tickets("a", 5, random, 1.0) + not_yet, {}, "s.yaml")
    alone = verdicts[0].p_alone.supported
    assert alone is not None and verdicts[0].p == 2 * alone, "one that is planned does"
    assert verdicts[-1].outcome == "inconclusive"


def test_what_holds_alone_may_not_hold_among_several_pairs(tmp_path: Path) -> None:
    loaded = suite(tmp_path, GREATER, 3, "a", "b", "c", "d")
    random = np.random.default_rng(3)
    points = [p for pair, e in zip("abcd", (0.4, 0, 0, 0), strict=True) for p in tickets(pair, 3, random, e)]
    verdict = one(loaded, points)
    alone = verdict.p_alone.supported
    assert alone is not None and verdict.p == pytest.approx(4 * alone)
    assert alone <= 0.05 < verdict.p
    assert verdict.effect is not None and verdict.effect.low is not None and verdict.effect.low > 0
    assert (verdict.outcome, verdict.reason) == (
        "inconclusive",
        "holds alone, but not after Holm's adjustment over 4 pairs",
    )


def test_numbers_and_keys_of_a_verdict_are_those_of_its_tasks(tmp_path: Path) -> None:
    loaded = suite(tmp_path, GREATER, 4, "a")
    points = tickets("a", 4, np.random.default_rng(1), 0.5)
    difference = [
        100
        * np.mean(
            [(1 if p.variant == "ticket" else -1) * 2 * p.numbers["test_accuracy"] for p in points if p.replicate == r]
        )
        for r in range(4)
    ]
    verdict = one(loaded, points)
    expected = stats.ttest_1samp(difference, 0, alternative="greater")
    assert verdict.effect is not None and verdict.effect.value == pytest.approx(np.mean(difference))
    interval = stats.ttest_1samp(difference, 0).confidence_interval(0.90)
    assert (verdict.effect.low, verdict.effect.high) == pytest.approx((interval.low, interval.high))
    assert verdict.p == verdict.p_alone.supported == pytest.approx(expected.pvalue)
    assert set(verdict.keys) == {p.key for p in points}
    assert verdict.parts[0].also is not None and verdict.parts[0].also[0] == "Wilcoxon"


def test_a_waiting_time_over_levels_leaves_out_a_replicate_that_failed_at_one(tmp_path: Path) -> None:
    claim = """\
C1:
  sentence: Tickets are faster.
  origin: inferred
  experiments: [convergence]
  tests:
    - {what: sooner, test: waiting, shorter: {early: ticket}, longer: {early: reinit}, metric: share_to_converge,
       censored: share_unconverged, levels: range}
"""
    loaded = suite(tmp_path, claim, 3, "a")
    points = [
        MeasuredPoint("a", "convergence", "early", r, variant, level, 0.5, 0,
                      "diverged" if (r, variant, level) == (2, "ticket", 2) else "ok",
                      {"share_unconverged": 0.1, "share_to_converge": 0.15 + level / 10}, f"{variant}{r}{level}")
        for r in range(3) for variant in ("ticket", "reinit") for level in (1, 2)
    ]  # fmt: skip
    verdict = one(loaded, points)
    assert (verdict.outcome, verdict.parts[0].n) == ("inconclusive", 2)
