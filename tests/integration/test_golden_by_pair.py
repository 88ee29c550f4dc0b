"""Golden results that are recorded pair by pair: what is replaced, what stays, and what no longer belongs there."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

import pytest
from conftest import Call, run_here

from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan


def pair(width: int, engine: str = "torch") -> str:
    return f"""
    model: {{name: lenet-300-100, width: {width}}}
    data: {{name: fashion-mnist-10k, validation: 100, num_train: 64, num_test: 100}}
    recipe: {{steps: 4it, batch_size: 32, engine: {engine}, optimizer: {{name: sgd, lr: 0.05}}}}
    arms: {{early: {{}}}}
    experiments: {{imp: {{levels: 1}}}}
"""


def suite_of(**pairs: str) -> str:
    return "title: t\nreplicates: 1\npairs:\n" + "".join(f"  {name}:{text}" for name, text in pairs.items())


A, B, C = pair(4), pair(5), pair(6, "blocked")
THREE = suite_of(a=A, b=B, c=C)
UPDATE = ("--update", "--reason", "x")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a suite of three pairs, to be read only."""
    folder = tmp_path_factory.mktemp("ran")
    (folder / "s.yaml").write_text(THREE)
    run_here(make_plan(load_suite(folder / "s.yaml")), folder / "store")
    return folder / "store"


class Recorded:
    """`lthbench verify` of a suite that has run, and its golden files."""

    def __init__(self, folder: Path, store: Path, call: Call) -> None:
        self.suite, self.folder, self.store, self.call = folder / "s.yaml", folder / "golden" / "s", store, call
        self.suite.write_text(THREE)

    def verify(self, *words: str) -> tuple[int, str, str]:
        return self.call("verify", self.suite, "--store", self.store, *words)

    def pairs(self) -> dict[str, list[str]]:
        """Name of a file -> its pairs."""
        texts = {path.name: json.loads(path.read_text()) for path in self.folder.glob("*.json")}
        return {name: sorted({task["task"].split()[0] for task in c["tasks"]}) for name, c in texts.items()}

    def elsewhere(self, kept: Collection[str], changed: Collection[str] = ()) -> Path:
        """Record some pairs in another environment, some of them with other results; return the file of this one."""
        (here,) = self.folder.glob("*.json")
        content = json.loads(here.read_text())
        content["environment"]["threads"] = 64
        content["tasks"] = [task for task in content["tasks"] if task["task"].split()[0] in kept]
        for task in content["tasks"]:
            if task["task"].split()[0] in changed and "density" in task["metrics"]:
                task["metrics"]["density"] /= 2
        (self.folder / "elsewhere.json").write_text(json.dumps(content))
        return here


@pytest.fixture
def recorded(ran: Path, tmp_path: Path, call: Call) -> Recorded:
    return Recorded(tmp_path, ran, call)


def test_a_pair_that_the_suite_no_longer_has_goes_with_the_next_update(recorded: Recorded) -> None:
    assert recorded.verify(*UPDATE)[0] == 0
    recorded.suite.write_text(suite_of(b=B, c=C))
    assert recorded.verify()[0] == 1, "it is recorded and no longer planned"
    assert recorded.verify(*UPDATE)[0] == 0
    assert list(recorded.pairs().values()) == [["b", "c"]]
    assert recorded.verify()[0] == 0


def test_a_renamed_pair_is_recorded_once_and_can_be_recorded_anew(recorded: Recorded) -> None:
    recorded.suite.write_text(suite_of(a=A))
    assert recorded.verify(*UPDATE)[0] == 0
    recorded.suite.write_text(suite_of(z=A))
    assert recorded.verify(*UPDATE)[0] == 0
    assert list(recorded.pairs().values()) == [["z"]]
    (here,) = recorded.folder.glob("*.json")
    here.write_text(here.read_text().replace('"test_accuracy": 0', '"test_accuracy": 1'))
    assert recorded.verify()[0] == 1
    assert recorded.verify(*UPDATE)[0] == 0
    assert recorded.verify()[0] == 0


def test_recording_a_pair_for_the_first_time_keeps_what_agrees_elsewhere(recorded: Recorded) -> None:
    assert recorded.verify(*UPDATE)[0] == 0
    recorded.elsewhere("a").unlink()
    assert recorded.verify("--pair", "a", "--pair", "b", *UPDATE)[0] == 0
    assert recorded.pairs()["elsewhere.json"] == ["a"]


def test_of_several_pairs_those_that_differ_are_removed_elsewhere_and_no_others(recorded: Recorded) -> None:
    assert recorded.verify(*UPDATE)[0] == 0
    recorded.elsewhere("ab", changed="b").unlink()
    assert recorded.verify("--pair", "a", "--pair", "b", *UPDATE)[0] == 0
    assert recorded.pairs()["elsewhere.json"] == ["a"]


def test_a_pair_that_differs_elsewhere_is_removed_though_another_agrees_here_bit_for_bit(recorded: Recorded) -> None:
    assert recorded.verify(*UPDATE)[0] == 0
    recorded.elsewhere("ab", changed="b").unlink()
    assert recorded.verify("--pair", "a", *UPDATE)[0] == 0
    assert recorded.verify(*UPDATE)[0] == 0
    assert recorded.pairs()["elsewhere.json"] == ["a"]


def test_a_part_without_blocked_trainings_asks_for_no_kernels_of_theirs(recorded: Recorded) -> None:
    assert recorded.verify(*UPDATE)[0] == 0
    (here,) = recorded.folder.glob("*.json")
    before = here.read_text()
    _, out, _ = recorded.verify("--pair", "a", "--json")
    assert [comparison["state"] for comparison in json.loads(out)] == ["agreed", "agreed"]
    assert recorded.verify("--pair", "a", *UPDATE)[0] == 0
    assert here.read_text() == before, "the same results change nothing"


def test_the_command_that_would_record_a_part_names_its_pairs(recorded: Recorded) -> None:
    _, _, err = recorded.verify("--pair", "a")
    assert "--pair a" in err
