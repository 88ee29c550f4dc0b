"""How much of a run is done and how long the rest takes: stable, and true where small tasks cost what large ones do."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from lthbench.runner import progress
from lthbench.runner.pace import FEWEST, Pace, in_words
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan


@pytest.fixture
def plan(tiny_suite: Path) -> Plan:
    return make_plan(load_suite(tiny_suite))


def seconds_of(plan: Plan, key: str) -> float:
    """A machine on which every task costs two seconds, and one more for each 10,000 image passes."""
    return 2.0 + plan.cost[key] / 1e4


def test_before_anything_is_done_no_time_is_shown(plan: Plan) -> None:
    assert Pace().seconds_left(plan, plan.tasks, {}, at_once=2) is None
    assert Pace().part(plan, (), plan.tasks, {}) == 0


def test_the_time_of_one_worker_at_a_steady_pace_is_the_time_that_it_takes(plan: Plan) -> None:
    pace, now, errors = Pace(), 1e9, []
    keys = list(plan.tasks)
    for position, key in enumerate(keys):
        now += seconds_of(plan, key)
        pace.finished(plan, key, seconds_of(plan, key), now)
        left = keys[position + 1 :]
        if position >= len(keys) // 2 and left:
            true = sum(seconds_of(plan, k) for k in left)
            told = pace.seconds_left(plan, left, {}, at_once=1, now=now)
            assert told is not None
            errors.append(abs(told - true) / true)
    assert max(errors) < 0.25
    assert pace.part(plan, keys, (), {}) == 1.0


def test_many_small_tasks_at_the_end_do_not_count_as_nothing(plan: Plan) -> None:
    """By image passes alone, masks and short trainings would be 2 seconds, and 100 percent, for a minute."""
    pace, keys = Pace(), sorted(plan.tasks, key=lambda key: -plan.cost[key])
    now = 1e9
    half = len(keys) // 2
    for key in keys[:half]:
        now += seconds_of(plan, key)
        pace.finished(plan, key, seconds_of(plan, key), now)
    small = keys[half:]
    told = pace.seconds_left(plan, small, {}, at_once=1, now=now)
    by_cost = sum(plan.cost[k] for k in small) / sum(plan.cost.values())
    assert pace.part(plan, keys[:half], small, {}) < 1 - by_cost
    assert told is not None and told > 0.3 * sum(seconds_of(plan, k) for k in small)


def test_a_machine_that_becomes_half_as_fast_is_seen_within_minutes(plan: Plan) -> None:
    pace, key, now = Pace(), next(iter(plan.tasks)), 1e9
    for seconds in [1.0] * 200 + [2.0] * 100:
        now += seconds
        pace.finished(plan, key, seconds, now)
    assert pace.seconds_left(plan, [key], {}, at_once=1, now=now) == pytest.approx(2.0, rel=0.1)


def test_after_a_long_standstill_the_old_rate_promises_nothing(plan: Plan) -> None:
    pace, key, now = Pace(), next(iter(plan.tasks)), 1e9
    for _ in range(3 * FEWEST):
        now += 0.5
        pace.finished(plan, key, 1.0, now)  # two workers
    busy = pace.seconds_left(plan, [key] * 1, {}, at_once=1, now=now)
    idle = pace.seconds_left(plan, [key] * 1, {}, at_once=1, now=now + 1e5)
    assert busy == pytest.approx(1.0) and idle == pytest.approx(1.0)  # no less than the longest chain


@pytest.mark.parametrize(
    "seconds, words",
    [
        (0.2, "about 5 seconds"),
        (43, "about 45 seconds"),
        (60, "about a minute"),
        (240, "about 4 minutes"),
        (100, "about 1.7 minutes"),
        (3600 * 3, "about 3 hours"),
        (3600 * 24 * 12, "about 12 days"),
    ],
)
def test_times_are_shown_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_what_was_shown_as_done_stays_done_and_names_the_part_that_it_is_of(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_EVERY", 0.0)
    keys, shares = list(plan.tasks), iter([0.2, 0.9, 0.6, 0.95])
    monkeypatch.setattr(Pace, "part", lambda *_: next(shares))
    console, seen = Console(file=io.StringIO()), []
    first = progress.RunProgress(plan, keys, console)
    for key in keys[:4]:
        first.started(key, 0)
        first.finished(key, 0, "ok")
        seen.append(first.described.partition(" (")[0])
    assert seen == ["20 % of the work", "90 % of the work", "90 % of the work", "95 % of the work"]
    later = progress.RunProgress(plan, keys[:2], console, first.pace, number=2)
    assert later.described.startswith("0 % of part 2 (0 of 2 tasks), about ")
