"""Golden results in their own environment: the same bits agree, planted faults are named, and reasons are asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Call, run_here

import lthbench.runner.environment
import lthbench.tasks.mask
import lthbench.tasks.network
import lthbench.training.batches
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.tasks.spec import num_survivors
from lthbench.tasks.store import Store
from lthbench.training.streams import stream

REPOSITORY = Path(__file__).parents[2]
FIRST = "lenet-garments"

SMALL = f"""\
title: every pair of the tour, in small
replicates: 2
include: [{REPOSITORY}/suites/tour.yaml]
micro: {{steps: 24, batch_size: 8, num_train: 32, num_test: 40, validation: 10}}
experiments:
  imp: {{levels: 2}}
  stability: {{spawns: [0it], points: 3}}
  onset: {{grid: [0it, 8it], points: 3, threshold: 1.0e-6}}
"""

Verify = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture
def lthbench_(call: Call) -> Verify:
    """Call a command; verify's comparisons are read from its JSON."""

    def run(*arguments: str | Path) -> tuple[int, list[dict[str, Any]], str]:
        code, out, err = call(*arguments)
        return code, json.loads(out) if "--json" in arguments and out else [], out + err

    return run


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a suite that has run, to be read only."""
    folder = tmp_path_factory.mktemp("sound")
    (folder / "small.yaml").write_text(SMALL)
    suite, store = load_suite(folder / "small.yaml"), Store(folder / "store")
    run_here(make_plan(suite), store.root)
    run_here(make_plan(suite, result_of=store.result), store.root)
    return folder


@pytest.fixture
def small(sound: Path, tmp_path: Path, lthbench_: Verify) -> Path:
    """A suite that has run in `store` beside it, and whose results are golden."""
    suite = tmp_path / "small.yaml"
    suite.write_text(SMALL)
    (tmp_path / "store").symlink_to(sound / "store")
    code, _, text = lthbench_("verify", suite, "--store", tmp_path / "store", "--update", "--reason", "first of all")
    assert code == 0, text
    return suite


def one_too_few(total: int, rate: float, level: int) -> int:
    return num_survivors(total, rate, level) - 1


def swapped_stream(a: str, b: str) -> Any:
    """The streams with two purposes exchanged."""
    names = {a: b, b: a}
    return lambda seed, purpose, *counters: stream(seed, names.get(purpose, purpose), *counters)


# A module, what is replaced in it, the fault, and the first task and quantity that it touches.
FAULTS = {
    "one weight too many is pruned": (
        lthbench.tasks.mask, "num_survivors", one_too_few, "late 0: mask of level 1", ("density",),
    ),
    "data order is drawn from the augmentation's stream": (
        lthbench.training.batches, "stream", swapped_stream("order", "augment"), "early 0: dense of level 0",
        ("first_epoch_loss", "last_epoch_loss", "distance"),
    ),
    "the body is initialised from the head's stream": (
        lthbench.tasks.network, "stream", swapped_stream("init", "head"), "early 0: dense of level 0", ("start",),
    ),
}  # fmt: skip


def test_the_same_results_agree_bit_for_bit_and_need_no_update(small: Path, lthbench_: Verify) -> None:
    store = ("--store", small.parent / "store")
    code, (bitwise, statistical), _ = lthbench_("verify", small, *store, "--json")
    assert (code, bitwise["state"], statistical["state"]) == (0, "agreed", "agreed")
    assert bitwise["num_compared"] == bitwise["num_tasks"] == statistical["num_compared"]
    (file,) = (small.parent / "golden" / "small").iterdir()
    content = file.read_text()
    tasks = json.loads(content)["tasks"]
    assert len(tasks) == bitwise["num_tasks"]
    assert sum(line.startswith('{"key"') for line in content.splitlines()) == len(tasks), "one line per task"
    code, _, text = lthbench_("verify", small, *store, "--update", "--reason", "again")
    assert (code, str(file) in text, file.read_text() == content) == (0, True, True)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_bit_for_bit(
    fault: str, small: Path, tmp_path: Path, lthbench_: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name, wrong, task, what = FAULTS[fault]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, wrong)
        assert lthbench_("run", small, "--store", tmp_path / "s", "--workers", "0", "--device", "cpu")[0] == 0
    code, (bitwise, _), _ = lthbench_("verify", small, "--store", tmp_path / "s", "--json")
    assert (code, bitwise["state"]) == (1, "differs")
    first = bitwise["differences"][0]
    task = task.replace("late", "early")  # tickets of every arm here
    assert first["task"] == f"{FIRST} {task}"
    _, _, text = lthbench_("verify", small, "--store", tmp_path / "s")
    assert f"first: {first['task']}" in text and "--update --reason 'WHY'" in text
    if "density" in what:
        assert f"density: recorded {first['recorded']}" in text or "mask: recorded" in text


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def run_with_changed_default(*arguments: str) -> None:
    """Run a command of a program in which a step schedule falls by half, not to a tenth, unless it says otherwise."""
    changed = (
        "from lthbench.training import recipe\n"
        "recipe.Schedule.model_fields['gamma'].default = 0.5\n"
        "recipe.Schedule.model_rebuild(force=True); recipe.Recipe.model_rebuild(force=True)\n"
        "from lthbench.cli import main\n"
        "main()\n"
    )
    done = run_python(changed, *arguments)
    assert done.returncode == 0, done.stderr


def test_a_changed_default_is_named_though_no_key_changes(small: Path, tmp_path: Path, lthbench_: Verify) -> None:
    options = (str(small), "--store", str(tmp_path / "s"))
    run_with_changed_default("run", *options, "--workers", "0", "--device", "cpu")
    code, (bitwise, _), _ = lthbench_("verify", *options, "--json")
    assert (code, bitwise["state"]) == (1, "differs")
    of_first = [d["what"] for d in bitwise["differences"] if d["key"] == bitwise["differences"][0]["key"]]
    assert bitwise["differences"][0]["task"] == f"{FIRST} early 0: dense of level 0"
    assert {"weights", "last_epoch_loss"} <= set(of_first) and not {"task", "start", "first_epoch_loss"} & set(of_first)


def test_results_are_recorded_over_others_with_a_reason_only(
    small: Path, tmp_path: Path, lthbench_: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = (small.parent / "golden" / "small").iterdir()
    before = file.read_text()
    other = tmp_path / "golden" / "small" / "elsewhere.json"
    other.write_text(before.replace('"threads": 1', '"threads": 64'))
    with monkeypatch.context() as patch:
        patch.setattr(lthbench.tasks.mask, "num_survivors", one_too_few)
        assert lthbench_("run", small, "--store", tmp_path / "s", "--workers", "0", "--device", "cpu")[0] == 0
    update = ("verify", small, "--store", tmp_path / "s", "--update")
    for reason in ((), ("--reason", " ")):
        code, _, text = lthbench_(*update, *reason)
        assert (code, "with a reason only" in text, file.read_text() == before) == (2, True, True)
    code, _, text = lthbench_(*update, "--reason", "prune one more", "--keep-others")
    assert code == 0 and str(other) not in text and other.exists()
    file.write_text(before)
    code, _, text = lthbench_(*update, "--reason", "prune one more")
    assert code == 0 and str(other) in text and not other.exists(), "results of before are not kept as golden"
    history = json.loads(file.read_text())["history"]
    assert [entry["reason"] for entry in history] == ["first of all", "prune one more"]
    assert all(entry["date"] and entry["lthbench"] for entry in history)
    assert lthbench_("verify", small, "--store", tmp_path / "s")[0] == 0


def test_results_of_a_part_are_compared_and_never_recorded(small: Path, tmp_path: Path, lthbench_: Verify) -> None:
    part = (small, "--store", tmp_path / "part", "--arm", "late")
    assert lthbench_("run", *part, "--workers", "0", "--device", "cpu")[0] == 0
    assert lthbench_("verify", *part)[0] == 0
    code, _, text = lthbench_("verify", *part[:3])
    assert (code, "tasks are not run" in text) == (2, True)
    code, _, text = lthbench_("verify", *part, "--update", "--reason", "why")
    assert (code, "leave out --arm late" in text) == (2, True)
    code, _, text = lthbench_("verify", *part[:3], "--update", "--reason", "why")
    assert (code, "tasks are not run" in text) == (2, True)


def test_pairs_may_be_recorded_in_different_environments(small: Path, lthbench_: Verify) -> None:
    """A suite that no single machine has run whole: each pair's golden results are of where it was run."""
    folder, verify = small.parent / "golden" / "small", ("verify", small, "--store", small.parent / "store")
    (here,) = folder.iterdir()
    whole = here.read_text()
    names = list(load_suite(small).pairs)
    elsewhere = folder / "elsewhere.json"
    elsewhere.write_text(whole.replace('"threads": 1', '"threads": 64'))
    here.unlink()
    code, _, text = lthbench_(*verify, "--pair", names[0], "--update", "--reason", "one pair here")
    assert code == 0, text
    assert {task["task"].split()[0] for task in json.loads(here.read_text())["tasks"]} == {names[0]}
    assert elsewhere.read_text() == whole.replace('"threads": 1', '"threads": 64'), "they agree, so both stay"
    # Bits decide of the pair that is recorded here, and the test of all.
    code, (bitwise, statistical), _ = lthbench_(*verify, "--json")
    assert (code, bitwise["state"], statistical["state"]) == (0, "agreed", "agreed")
    assert 0 < bitwise["num_compared"] < statistical["num_compared"] == statistical["num_tasks"]
    code, (bitwise, _), _ = lthbench_(*verify, "--pair", names[1], "--json")
    assert (code, bitwise["state"]) == (0, "no golden")
    # Recording the others completes this environment's file, and removes of other files what no longer agrees.
    content = json.loads(elsewhere.read_text())
    for task in content["tasks"]:
        if task["task"].startswith(names[1]) and "density" in task["metrics"]:
            task["metrics"]["density"] /= 2
    elsewhere.write_text(json.dumps(content))
    rest = [word for name in names[1:] for word in ("--pair", name)]
    code, _, text = lthbench_(*verify, *rest, "--update", "--reason", "the others")
    assert code == 0 and str(elsewhere) in text, text
    assert {task["task"].split()[0] for task in json.loads(elsewhere.read_text())["tasks"]} == {names[0]}
    content, first = json.loads(here.read_text()), json.loads(whole)
    assert sorted(map(str, content["tasks"])) == sorted(map(str, first["tasks"]))
    assert [entry["reason"] for entry in content["history"]] == ["one pair here", "the others"]


def test_an_environment_that_is_not_recorded_is_told_and_the_test_decides(small: Path, lthbench_: Verify) -> None:
    (file,) = (small.parent / "golden" / "small").iterdir()
    file.write_text(file.read_text().replace('"threads": 1', '"threads": 64'))
    code, (bitwise, statistical), _ = lthbench_("verify", small, "--store", small.parent / "store", "--json")
    assert (code, bitwise["state"], statistical["state"]) == (0, "no golden", "agreed")
    assert bitwise["environment"] == [["threads", 64, 1]]


def test_where_the_blocked_engine_chooses_other_kernels_than_recorded_the_test_decides(
    tmp_path: Path, tiny_suite: Path, lthbench_: Verify, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = ("--engine", "blocked", "--golden", tmp_path / "golden")
    for policy, store, state in (("older", "a", "no golden"), ("newer", "b", "no golden"), ("newer", "b", "agreed")):
        monkeypatch.setattr(lthbench.runner.environment, "policy_digest", lambda policy=policy: policy)
        options = (tiny_suite, "--store", tmp_path / store, *blocked)
        code, _, text = lthbench_("run", *options[:-2], "--executor", "debug", "--no-report")
        assert code == 0, text
        code, comparisons, text = lthbench_("verify", *options, "--json")
        assert comparisons == [] or comparisons[0]["state"] == state, text
        assert lthbench_("verify", *options, "--update", "--reason", f"{policy} thresholds")[0] == 0
    (recorded,) = (tmp_path / "golden").glob("*.json")
    content = json.loads(recorded.read_text())
    assert (content["policy"], len(content["history"])) == ("newer", 2)


def test_tasks_that_were_chosen_by_results_may_be_others_in_another_environment(small: Path, lthbench_: Verify) -> None:
    (file,) = (small.parent / "golden" / "small").iterdir()
    options = ("verify", small, "--store", small.parent / "store", "--json")
    text = file.read_text()
    golden = json.loads(text)
    assert any(task.get("chosen") for task in golden["tasks"])
    other = {**golden["tasks"][0], "key": "f" * 32, "chosen": True}
    golden["tasks"] = [task for task in golden["tasks"] if not task.get("chosen")] + [other]
    golden["environment"]["threads"] = 64
    file.write_text(json.dumps(golden))
    code, (_, statistical), _ = lthbench_(*options)
    assert (code, statistical["state"]) == (0, "agreed")
    assert statistical["num_compared"] < statistical["num_run"] == statistical["num_tasks"]
    golden["environment"]["threads"] = 1
    file.write_text(json.dumps(golden))
    assert lthbench_(*options)[0] == 1, "the same environment chooses the same"
    del other["chosen"]
    golden["environment"]["threads"] = 64
    file.write_text(json.dumps(golden))
    assert lthbench_(*options)[0] == 1, "what is not chosen is in every plan"


def test_a_suite_whose_tasks_are_others_than_recorded_differs(small: Path, lthbench_: Verify) -> None:
    small.write_text(small.read_text().replace("levels: 2", "levels: 1"))
    code, (bitwise, _), _ = lthbench_("verify", small, "--store", small.parent / "store", "--json")
    assert (code, {d["what"] for d in bitwise["differences"]}) == (1, {"task"})
    assert all(d["found"] is None and "level 2" in d["task"] for d in bitwise["differences"])
    gone = len({d["key"] for d in bitwise["differences"]})
    assert (
        f"0 of {bitwise['num_tasks']} tasks differ and {gone} that are recorded are no longer planned"
        in bitwise["reason"]
    )


def test_a_task_that_has_another_key_than_recorded_is_counted_once(small: Path, lthbench_: Verify) -> None:
    (file,) = (small.parent / "golden" / "small").iterdir()
    golden = json.loads(file.read_text())
    for number, task in enumerate(golden["tasks"]):  # as where a schema version has changed every key
        task["key"] = f"{number:032x}"
    file.write_text(json.dumps(golden))
    code, (bitwise, _), _ = lthbench_("verify", small, "--store", small.parent / "store", "--json")
    number = len(golden["tasks"])
    assert (code, bitwise["state"]) == (1, "differs")
    assert bitwise["reason"].startswith(f"{number} of {number} tasks differ and {number} that are recorded")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-10], "restore the file"),
        (lambda text: text.replace('"status"', '"state"'), "status"),
        (lambda text: text.replace("first of all", ""), "reason"),
    ],
)
def test_a_damaged_golden_file_is_named(
    damage: Callable[[str], str], message: str, small: Path, lthbench_: Verify
) -> None:
    (file,) = (small.parent / "golden" / "small").iterdir()
    file.write_text(damage(file.read_text()))
    code, _, text = lthbench_("verify", small, "--store", small.parent / "store")
    assert (code, str(file) in text, message in text) == (2, True, True), text


def test_a_suite_without_golden_results_says_how_to_record_them(
    tiny_suite: Path, tmp_path: Path, lthbench_: Verify
) -> None:
    code, _, text = lthbench_("verify", tiny_suite, "--store", tmp_path / "store")
    assert (code, "lthbench run" in text or "--update" in text) == (2, True)
