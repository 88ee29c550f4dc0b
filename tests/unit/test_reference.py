"""Numbers of other papers: read with their sources, and compared by Welch's test."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import TINY
from scipy import stats
from synthetic_store import put_result

from lthbench.analysis.published import References, calibrate, read_references
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.store import Store

SHIPPED = Path(__file__).parents[2] / "suites" / "golden" / "references.yaml"


def references(**row: object) -> References:
    fields = {"source": "a", "pair": "tiny", "arm": "early", "variant": "dense", "metric": "test_accuracy", **row}
    return References.model_validate({"sources": {"a": {"cite": "A", "peer_reviewed": True}}, "rows": [fields]})


def test_the_shipped_numbers_have_sources_and_only_reviewed_ones_are_marked_as_reviewed() -> None:
    shipped = read_references(SHIPPED)
    assert {row.source for row in shipped.rows} == set(shipped.sources)
    assert [name for name, source in shipped.sources.items() if not source.peer_reviewed] == ["warmup-report"]
    accuracies = [v for row in shipped.rows if row.metric == "test_accuracy" for v in row.values.values()]
    assert all(50 < (v[0] if isinstance(v, tuple) else v) < 100 for v in accuracies)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("- source: liu", "- source: lui", "no source is called 'lui'"),
        ("n: 246", "runs: 246", "runs"),
        ("[91.71, 0.23]", "[91.71, -0.23]", "greater than 0"),
        ("step: 12ep", "step: 12", "write 500it, 160ep or 3ep50it"),
    ],
)
def test_a_bad_file_of_numbers_is_reported_with_its_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "references.yaml"
    path.write_text(SHIPPED.read_text().replace(old, new))
    with pytest.raises(SuiteError, match=r"references\.yaml:") as error:
        read_references(path)
    assert message in str(error.value)


def test_numbers_of_one_replicate_or_of_no_such_pair_are_not_compared(tiny_run: tuple[Plan, Store]) -> None:
    (one,) = calibrate(*tiny_run, references(values={0: 80.0}))
    assert (one.state, one.reason) == ("not run", "1 of 2 replicates")
    (none,) = calibrate(*tiny_run, references(pair="large", values={0: 80.0}))
    assert (none.state, none.reason) == ("not run", "not in the suite")


def planted(folder: Path, accuracies: list[float], barrier: float) -> tuple[Plan, Store]:
    """A store in which dense networks have these accuracies, one per replicate, and all lines this barrier."""
    text = TINY.replace("replicates: 1", f"replicates: {len(accuracies)}")
    (folder / "tiny.yaml").write_text(text + "      onset: {grid: [0it, 1ep, 2ep], arms: [early]}\n")
    suite, store = load_suite(folder / "tiny.yaml"), Store(folder / "store")
    store.check()
    plan = make_plan(suite, result_of=store.result)
    while missing := [key for key in plan.tasks if store.result(key) is None]:
        for key in missing:
            accuracy = accuracies[plan.cells[key].replicate]
            barriers = {"test_barrier": barrier, "validation_barrier": barrier}
            metrics = {"test_accuracy": accuracy, "density": 1.0, **barriers, "distance_relative": 1.0}
            put_result(store, plan.tasks[key], metrics=metrics, epoch_losses=[1.0, 1.0, 1.0])
        plan = make_plan(suite, result_of=store.result)
    return plan, store


@pytest.mark.parametrize(("mean", "state"), [(91.7, "agrees"), (93.0, "differs")])
def test_ours_and_theirs_are_compared_by_welchs_test(mean: float, state: str, tmp_path: Path) -> None:
    ours = [91.5, 91.9, 91.4]
    plan, store = planted(tmp_path, [a / 100 for a in ours], 0.0)
    (found,) = calibrate(plan, store, references(values={0: (mean, 0.2)}, n=10))
    test = stats.ttest_ind_from_stats(found.our_mean, found.our_deviation, 3, mean, 0.2, 10, equal_var=False)
    assert (found.state, found.our_n) == (state, 3)
    assert found.p == pytest.approx(test.pvalue)
    assert found.low is not None and found.high is not None and found.our_mean is not None
    assert (found.low + found.high) / 2 == pytest.approx(found.our_mean - mean)
    assert (found.low <= 0 <= found.high) == (state == "agrees")


def test_a_number_without_a_spread_is_compared_as_one_value(tmp_path: Path) -> None:
    ours = [91.5, 91.9, 91.4]
    plan, store = planted(tmp_path, [a / 100 for a in ours], 0.0)
    (found,) = calibrate(plan, store, references(values={0: 92.5}))
    assert found.p == pytest.approx(stats.ttest_1samp(ours, 92.5).pvalue)


def test_more_rows_ask_for_more_evidence(tmp_path: Path) -> None:
    plan, store = planted(tmp_path, [0.915, 0.919, 0.914], 0.0)
    (alone,) = calibrate(plan, store, references(values={0: 92.5}))
    both = calibrate(plan, store, references(values={0: 92.5, 1: 91.6}, variant="dense"))
    assert alone.p is not None and both[0].p == alone.p, "a row that is not run asks for nothing"
    row = references(values={0: 92.5}).rows[0]
    twice = References(sources=references(values={0: 1.0}).sources, rows=[row, row])
    assert [c.p for c in calibrate(plan, store, twice)] == pytest.approx([2 * alone.p] * 2)


@pytest.mark.parametrize(
    ("barrier", "published", "state"),
    [(0.0, 0, "agrees"), (0.0, 3, "differs"), (0.5, 500, "agrees"), (0.5, 2, "differs")],
)
def test_an_onset_agrees_where_ours_encloses_it(barrier: float, published: float, state: str, tmp_path: Path) -> None:
    plan, store = planted(tmp_path, [0.9, 0.9], barrier)
    (found,) = calibrate(plan, store, references(variant="onset", metric="onset", values={0: published}))
    assert (found.state, found.our_n) == (state, 2), found
