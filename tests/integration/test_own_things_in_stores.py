"""A user's own data sets and plugins in stores: compared, and cleaned up by the suites that name them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, Call, run_here

from lthbench import api
from lthbench.analysis import two_stores
from lthbench.data.commands import add_data
from lthbench.data.own_sets import know_own_sets
from lthbench.data.own_sources import Wanted
from lthbench.registry import PluginError
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.store import Store


@pytest.fixture
def own_run(tmp_path: Path) -> Iterator[tuple[Path, Path, Store]]:
    """A suite on an own data set, its data folder, and the store of its results, in a process that knows no own set."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 256, (400, 8, 8), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.arange(400) % 4)
    add_data("mine", tmp_path / "data", Wanted(arrays=(tmp_path / "images.npy", tmp_path / "labels.npy")))
    suite = tmp_path / "own.yaml"
    text = TINY[: TINY.index("      rewound:")].replace("levels: 2", "levels: 1")
    suite.write_text(text.replace("fashion-mnist-10k, validation: 100, num_train: 300", "mine"))
    _, store = run_here(make_plan(load_suite(suite)), tmp_path / "store", tmp_path / "data")
    know_own_sets(Path("/nonexistent"))
    yield suite, tmp_path / "data", store
    know_own_sets(Path("/nonexistent"))


def test_a_store_of_an_own_data_set_is_compared_and_cleaned_up_by_its_suite(
    own_run: tuple[Path, Path, Store], call: Call
) -> None:
    suite, data, store = own_run
    shutil.copytree(store.root, other := store.root.with_name("other"))
    for options in ((), ("--suite", suite, "--data", data)):
        code, out, err = call("compare", store.root, other, *options)
        assert (code, "tasks that both have done agree" in out) == (0, True), out + err
    code, out, err = call("gc", suite, "--store", store.root, "--data", data)
    assert (code, "needed by none of them: nothing" in out) == (0, True), out + err
    know_own_sets(Path("/nonexistent"))
    code, _, err = call("gc", suite, "--store", store.root)
    assert (code, "no data set is called 'mine'" in err and "--data" in err) == (2, True), err


def test_python_names_the_data_folder_of_an_own_data_set(own_run: tuple[Path, Path, Store]) -> None:
    suite, data, store = own_run
    opened = api.load_suite(suite, store.root, data=data)
    assert all(opened.store.is_done(key) for key in api.plan(opened).tasks)


def test_bits_are_compared_without_the_plugin_that_made_them(
    tiny_run: tuple[Plan, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_run[1].root, tmp_path / "other")

    def not_loaded(text: str) -> None:
        raise PluginError("the task needs plugin mine, which is not loaded")

    monkeypatch.setattr(two_stores, "parse_spec", not_loaded)
    assert two_stores.compare_stores(tiny_run[1], Store(tmp_path / "other"), None).num_common == len(tiny_run[0].tasks)
