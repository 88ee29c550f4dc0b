"""Two stores, and two arms of one: what differs is found, where it begins, and what does not differ is not told of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Call

from lthbench.analysis.golden.files import Comparison, Difference
from lthbench.analysis.side_by_side import arms_side_by_side, pairs_side_by_side
from lthbench.analysis.table import ResultRow
from lthbench.analysis.two_stores import TwoStores, compare_stores
from lthbench.experiments import Cell
from lthbench.experiments.cell import FIRST_SELECTION_REPLICATE
from lthbench.suite.plan import Plan
from lthbench.tasks.paths import RESULT
from lthbench.tasks.result import seal
from lthbench.tasks.store import Store


@pytest.fixture
def other(tiny_run: tuple[Plan, Store], tmp_path: Path) -> Store:
    """A copy of a store, to be changed."""
    shutil.copytree(tiny_run[1].root, tmp_path / "other")
    return Store(tmp_path / "other")


def change(store: Store, key: str, how: Callable[[dict[str, Any]], None]) -> None:
    """Change a result as another computation would have it."""
    path = store.folder(key) / RESULT
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(seal(content)))


def less_accurate(result: dict[str, Any]) -> None:
    result["metrics"]["test_accuracy"] -= 0.3


def of_another_torch(result: dict[str, Any]) -> None:
    result["environment"]["torch"] = "0.0"


def test_equal_stores_agree_bit_for_bit_and_by_the_test(
    tiny_run: tuple[Plan, Store], other: Store, call: Call, tiny_suite: Path
) -> None:
    number = len(tiny_run[0].tasks)
    code, out, _ = call("compare", tiny_run[1].root, other.root, "--suite", tiny_suite)
    assert code == 0 and f"bitwise: {number} of {number} tasks" in out and "statistical: agreed" in out
    assert call("compare", tiny_run[1].root, other.root)[:2] == (0, out.splitlines()[0] + "\n")


def test_the_first_task_that_differs_is_one_that_needs_no_other_that_does(
    tiny_run: tuple[Plan, Store], other: Store, cell: Cell, call: Call, tiny_suite: Path
) -> None:
    chain = [cell.ticket(2), cell.dense(), cell.mask(2), cell.ticket(1), cell.mask(1)]
    for task in chain:
        assert task is not None
        change(other, task.key, lambda result: result["metrics"].update(density=0.5))
    found = compare_stores(tiny_run[1], other)
    assert found.differences[0].key == cell.dense().key
    assert {d.key for d in found.differences} == {task.key for task in chain if task is not None}
    code, out, _ = call("compare", tiny_run[1].root, other.root, "--suite", tiny_suite)
    assert code == 1 and "first: tiny early 0: dense of level 0" in out and str(other.folder(cell.dense().key)) in out
    assert "density: A 1.0, B 0.5" in out


@pytest.mark.parametrize("what", ["weights", "start"])
def test_a_digest_alone_is_a_difference(tiny_run: tuple[Plan, Store], other: Store, cell: Cell, what: str) -> None:
    change(other, cell.dense().key, lambda result: result["digests"].update({what: "0" * 64}))
    found = compare_stores(tiny_run[1], other)
    assert [(d.what, d.found) for d in found.differences] == [(what, "0" * 16)] and found.differ


def test_times_and_who_kept_which_steps_are_no_difference(
    tiny_run: tuple[Plan, Store], other: Store, cell: Cell
) -> None:
    def later(result: dict[str, Any]) -> None:
        result["seconds"] += 1.0
        result["finished"] = "2099-01-01T00:00:00+00:00"

    change(other, cell.dense().key, later)
    assert not compare_stores(tiny_run[1], other).differences


def test_in_another_environment_the_test_decides_where_it_could_test_any() -> None:
    digest = (Difference("0" * 32, "dense", "weights", "a", "b"),)
    for environment, state, num_tests, differ in (
        ((), "agreed", 9, True),
        ((("torch", "1", "2"),), "agreed", 9, False),
        ((("torch", "1", "2"),), "differs", 9, True),
        ((("torch", "1", "2"),), "agreed", 0, True),
    ):
        tested = Comparison("statistical", state, "", num_tests=num_tests)  # type: ignore[arg-type]
        assert TwoStores(1, (), (), digest, environment, tested).differ is differ


def test_of_single_replicates_in_another_environment_nothing_is_called_agreement(
    tiny_run: tuple[Plan, Store], other: Store, call: Call, tiny_suite: Path, cell: Cell
) -> None:
    for key in tiny_run[0].tasks:
        change(other, key, of_another_torch)
    stores = (tiny_run[1].root, other.root)
    assert call("compare", *stores, "--suite", tiny_suite)[0] == 0, "bit for bit the same"
    change(other, cell.dense().key, lambda result: result["digests"].update(weights="0" * 64))
    code, out, _ = call("compare", *stores, "--suite", tiny_suite)
    assert code == 1 and "torch: A" in out and "B '0.0'" in out and "can say nothing of single replicates" in out
    code, out, _ = call("compare", *stores)
    assert code == 1 and "--suite SUITE compares by a test" in out


def test_what_only_one_store_has_done_is_told_and_is_no_agreement(
    tiny_run: tuple[Plan, Store], other: Store, call: Call, cell: Cell, tmp_path: Path
) -> None:
    (other.folder(cell.ticket(2).key) / RESULT).unlink()
    code, _, err = call("compare", tiny_run[1].root, other.root)
    assert code == 2 and f"1 in {tiny_run[1].root}" in err
    Store(tmp_path / "empty").check()
    code, _, err = call("compare", tiny_run[1].root, tmp_path / "empty")
    assert code == 2 and "no task in common" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{s}",), "give two stores, or one with --suite and either --arms A B or --pairs P Q"),
        (("{s}", "--suite", "{t}"), "give two stores"),
        (("{s}", "{s}", "--arms", "early", "late"), "give one store"),
        (("{s}", "--suite", "{t}", "--arms", "early", "lat"), "no arm is called 'lat'; did you mean 'late'?"),
        (("{s}", "--suite", "{t}", "--pairs", "tiny", "tony"), "no pair is called 'tony'; did you mean 'tiny'?"),
        (("{s}", "--suite", "{t}", "--arms", "early", "late", "--metric", "acc"), "no metric that both have is called"),
        (("{s}", "nowhere"), "nowhere: is not there"),
    ],
)
def test_what_cannot_be_compared_is_told(
    words: tuple[str, ...], message: str, tiny_run: tuple[Plan, Store], tiny_suite: Path, call: Call
) -> None:
    given = [word.format(s=tiny_run[1].root, t=tiny_suite) for word in words]
    code, out, err = call("compare", *given)
    assert (code, out) == (2, "") and message in err


def row(arm: str, replicate: int, value: float, *, pair: str = "p", share: float = 0.0, step: int = 0) -> ResultRow:
    return ResultRow(
        pair, "imp", arm, replicate, "ticket", 3, 0.2, step, 1.0, share, "test_accuracy", value, f"{arm}{replicate}"
    )


def test_arms_are_compared_by_replicate_over_those_that_both_have() -> None:
    # What replicates share (an easy initialisation, say) is much; the arms differ by .01, .02 and .03.
    rows = [row("a", r, base + d) for r, base, d in ((0, 0.2, 0.01), (1, 0.5, 0.02), (2, 0.8, 0.03), (3, 0.1, 0.0))]
    rows += [row("b", r, base) for r, base in ((0, 0.2), (1, 0.5), (2, 0.8))]
    (found,) = arms_side_by_side(rows, "a", "b")
    assert found.n == 3 and found.effect == pytest.approx(0.02)
    # 4.303, Student's t at 2 degrees, times .01 / sqrt(3)
    assert (found.low, found.high) == (pytest.approx(0.02 - 0.02484, abs=1e-5), pytest.approx(0.02 + 0.02484, abs=1e-5))
    (swapped,) = arms_side_by_side(rows, "b", "a")
    assert (swapped.effect, swapped.low) == (-found.effect, pytest.approx(-(found.high or 0)))


def test_values_of_one_replicate_count_once_and_selection_replicates_do_not() -> None:
    rows = [row("a", 0, 0.5), row("a", 0, 0.7), row("b", 0, 0.5)]
    rows += [row(arm, FIRST_SELECTION_REPLICATE, 1.0) for arm in "ab"]
    (found,) = arms_side_by_side(rows, "a", "b")
    assert (found.n, found.effect, found.low) == (1, pytest.approx(0.1), None)


def test_points_of_training_are_met_by_their_share() -> None:
    rows = [row("a", 0, 0.5, share=0.1, step=100), row("b", 0, 0.4, share=0.1, step=10), row("b", 0, 0.3, share=0.2)]
    (found,) = arms_side_by_side(rows, "a", "b")
    assert (found.share, found.mean_b) == (0.1, 0.4)


def test_pairs_are_compared_arm_by_arm() -> None:
    rows = [row(arm, 0, value, pair=pair) for pair, value in (("p", 0.9), ("q", 0.6)) for arm in ("early", "late")]
    rows.append(row("other", 0, 0.1, pair="q"))
    found = pairs_side_by_side(rows, "p", "q")
    assert [(each.where, round(each.effect, 6)) for each in found] == [("early", 0.3), ("late", 0.3)]


def test_two_arms_are_shown_level_by_level(tiny_run: tuple[Plan, Store], tiny_suite: Path, call: Call) -> None:
    code, out, _ = call("compare", tiny_run[1].root, "--suite", tiny_suite, "--arms", "early", "late")
    assert code == 0 and "early - late" in out
    words = ("compare", tiny_run[1].root, "--suite", tiny_suite, "--arms", "early", "late", "--metric", "train_loss")
    found = json.loads(call(*words, "--json")[1])
    assert {each["metric"] for each in found} == {"train_loss"} and {0, 1, 2} <= {each["level"] for each in found}
