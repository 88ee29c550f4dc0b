"""Verdicts that were seen are recorded: more replicates after a look are a second look, which is reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_verdicts import GREATER, suite, tickets

from lthbench.analysis.claims.judge import judge, level_of
from lthbench.analysis.claims.looks import FOLDER, read_looks, record_looks
from lthbench.analysis.claims.verdict import Verdict
from lthbench.analysis.report import verdict_table
from lthbench.tasks.store import Store, StoreError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.check()
    return made


def look(folder: Path, store: Store, replicates: int, looks: int = 1) -> Verdict:
    """The verdict of a suite of so many replicates, which is recorded."""
    folder.mkdir(exist_ok=True)
    loaded = suite(folder, GREATER, replicates, "a").model_copy(update={"looks": looks})
    points = tickets("a", 8, np.random.default_rng(0), 0.05)
    points = [point for point in points if point.replicate < replicates]
    found = judge(loaded, points, {}, "s.yaml", read_looks(store))
    record_looks(store, found, level_of(loaded))
    return found[0]


def test_more_replicates_after_a_look_are_an_uncorrected_look(store: Store, tmp_path: Path) -> None:
    first = look(tmp_path, store, 3)
    assert first.caution == "" and first.looks == ()
    assert look(tmp_path, store, 3).caution == "", "the same numbers seen again are one look"
    second = look(tmp_path, store, 6)
    assert second.looks == (3,)
    assert (
        "uncorrected look: seen before with 3 replicates planned" in second.caution
        and "may err in 10 %" in second.caution
    )
    assert "uncorrected look" in verdict_table.notes(second), "tables of the report say it too"
    third = look(tmp_path, store, 8)
    assert "with 3, 6 replicates" in third.caution and "15 %" in third.caution


def test_looks_that_were_declared_from_the_first_on_are_corrected(store: Store, tmp_path: Path) -> None:
    look(tmp_path, store, 3, looks=2)
    second = look(tmp_path, store, 6, looks=2)
    assert second.looks == (3,) and "uncorrected" not in second.caution
    assert second.effect is not None and second.effect.confidence == 0.95, "each look has half the error rate"
    assert "uncorrected" in look(tmp_path, store, 8, looks=2).caution, "a third was not declared"


def test_looks_that_are_declared_after_the_first_do_not_undo_it(store: Store, tmp_path: Path) -> None:
    look(tmp_path, store, 3)
    assert "may err in 7.5 %" in look(tmp_path, store, 6, looks=2).caution


def test_other_numbers_are_no_second_look(store: Store, tmp_path: Path) -> None:
    look(tmp_path, store, 3)
    loaded = suite(tmp_path, GREATER, 6, "a")
    others = [replace(p, key=f"other {p.key}") for p in tickets("a", 6, np.random.default_rng(1), 0.0)]
    assert judge(loaded, others, {}, "s.yaml", read_looks(store))[0].looks == ()


def test_reading_creates_no_store_and_damaged_records_are_reported(store: Store, tmp_path: Path) -> None:
    nowhere = Store(tmp_path / "nowhere")
    look(tmp_path, nowhere, 3)
    assert not nowhere.root.exists()
    look(tmp_path, store, 3)
    (record,) = (store.root / FOLDER).iterdir()
    store.check()
    record.write_text(record.read_text()[:-20])
    with pytest.raises(StoreError, match="is not a record of verdicts"):
        read_looks(store)
