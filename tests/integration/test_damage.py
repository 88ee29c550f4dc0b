"""What is read back is what was written: damage of any file is found, told, and undone by running the suite again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY

from lthbench.lease import Lease
from lthbench.runner.inspection import inspect_store, repair
from lthbench.runner.local import run_plan
from lthbench.runner.settings import Settings
from lthbench.runner.watcher import Watcher
from lthbench.suite.load import load_suite
from lthbench.suite.plan import Plan, make_plan
from lthbench.tasks.paths import CHECKPOINT, LEASE, MASK, RESULT, SCRATCH, SPEC, weights_file
from lthbench.tasks.result import Artefact, read_result, seal
from lthbench.tasks.spec import MaskSpec, Task, TrainSpec
from lthbench.tasks.store import Store, StoreError
from lthbench.tasks.tensor_files import read_tensors, write_tensors

SUITE = (
    TINY.split("    arms:")[0]
    + """\
    arms: {early: {}}
    experiments:
      imp: {levels: 1, rewind: 1ep}
      stability: {spawns: [1ep], points: 3, num_train: 50}
"""
)


class Told(Watcher):
    """Remembers what people are told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def told(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """A plan and a store where it has run, to be copied."""
    folder = tmp_path_factory.mktemp("damage")
    (folder / "suite.yaml").write_text(SUITE)
    plan = make_plan(load_suite(folder / "suite.yaml"))
    Store(folder / "store").check()
    assert not run_plan(plan, Settings(folder / "store"), 0).failed
    return plan, folder / "store"


@pytest.fixture
def copied(ran: tuple[Plan, Path], tmp_path: Path) -> tuple[Plan, Store]:
    shutil.copytree(ran[1], tmp_path / "store")
    return ran[0], Store(tmp_path / "store")


def run_again(plan: Plan, store: Store) -> tuple[list[str], list[str]]:
    """Run until nothing is missing, as `lthbench run` does; the keys that ran, and what was told."""
    told, ran = Told(), []
    while missing := Store(store.root, told.told).missing({key: plan.kept(key) for key in plan.tasks}):
        outcome = run_plan(plan, Settings(store.root), 0, told, missing=missing)
        assert not outcome.failed, outcome.failed
        assert outcome.ran
        ran += outcome.ran
    return ran, told.texts


def bits(plan: Plan, store: Store) -> dict[str, Any]:
    """All that was measured and written, without times."""
    names = ("metrics", "artefacts", "inputs", "status", "curves")
    return {key: {name: (store.result(key) or {}).get(name) for name in names} for key in plan.tasks}


def flip(path: Path) -> None:
    """Turn one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def task_of(plan: Plan, kind: type, **fields: object) -> Task:
    return next(
        task
        for task in plan.tasks.values()
        if isinstance(task.spec, kind) and all(getattr(task.spec, name) == value for name, value in fields.items())
    )


def artefacts(plan: Plan, store: Store) -> list[Path]:
    return [
        store.folder(key) / name for key in plan.tasks for name in (store.result(key) or {"artefacts": {}})["artefacts"]
    ]


def test_every_file_of_a_task_has_its_digest_in_the_result(copied: tuple[Plan, Store]) -> None:
    plan, store = copied
    written = {p for p in store.root.glob("tasks/*/*/*") if p.name not in (RESULT, SPEC)}
    assert written == set(artefacts(plan, store)) and any("-" in p.name for p in written), "kept steps too"
    for key in plan.tasks:
        for name, artefact in read_result(store.folder(key), key)["artefacts"].items():
            assert Artefact.of((store.folder(key) / name).read_bytes()) == Artefact(**artefact)
        assert not store.inspect(key)


def test_equal_tensors_are_equal_files(tmp_path: Path, ran: tuple[Plan, Path]) -> None:
    # In another process the order of a hash map would be another one; one entry has no order.
    path = next(ran[1].glob("tasks/*/*/weights.safetensors"))
    size = int.from_bytes(path.read_bytes()[:8], "little")
    assert list(json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]) == ["lthbench"]
    assert write_tensors(tmp_path / "copy", *read_tensors(path)) == Artefact.of(path.read_bytes())


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [delete, empty, cut])
def test_a_file_that_is_gone_or_of_another_size_makes_its_task_undone_and_running_again_heals_it(
    damage: Callable[[Path], None], copied: tuple[Plan, Store]
) -> None:
    plan, store = copied
    before = bits(plan, store)
    dense, mask = task_of(plan, TrainSpec, mask=None), task_of(plan, MaskSpec)
    for path in (store.folder(dense.key) / weights_file(5), store.folder(mask.key) / MASK):
        damage(path)
    wanted = {key: plan.kept(key) for key in plan.tasks}
    assert set(store.missing(wanted)) == {dense.key, mask.key}
    assert run_again(plan, store)[0] == [dense.key, mask.key], "equal bits leave their users done"
    assert bits(plan, store) == before and not store.missing(wanted)


def test_a_flipped_bit_is_found_where_the_file_is_read_and_named_and_undone(copied: tuple[Plan, Store]) -> None:
    plan, store = copied
    before = bits(plan, store)
    dense, mask = task_of(plan, TrainSpec, mask=None), task_of(plan, MaskSpec)
    flipped = store.folder(dense.key) / weights_file(None)
    flip(flipped)
    shutil.rmtree(store.folder(mask.key))
    ran, told = run_again(plan, store)
    assert ran == [dense.key, mask.key]
    assert any(f"{flipped}: is not what was written" in text for text in told)
    assert bits(plan, store) == before
    assert flipped.with_name(flipped.name + ".damaged").exists(), "set aside, not lost"


def test_each_kind_of_file_is_checked_where_a_task_reads_it(copied: tuple[Plan, Store]) -> None:
    plan, store = copied
    before = bits(plan, store)
    ticket = next(t for t in plan.tasks.values() if isinstance(t.spec, TrainSpec) and t.spec.mask)
    mask, dense = task_of(plan, MaskSpec), task_of(plan, TrainSpec, mask=None)
    for path in (
        store.folder(mask.key) / MASK,
        store.folder(dense.key) / weights_file(5),
        store.folder(dense.key) / SPEC,  # of which the mask takes where training started
        store.folder(dense.key) / RESULT,
    ):
        flip(path)
        shutil.rmtree(store.folder(ticket.key), ignore_errors=True)
        if path.name == SPEC:
            shutil.rmtree(store.folder(mask.key))
        _, told = run_again(plan, store)
        assert any(str(path) in text for text in told), path.name
        assert bits(plan, store) == before, path.name


def test_who_read_bits_that_are_others_by_now_is_not_done_any_more(copied: tuple[Plan, Store]) -> None:
    plan, store = copied
    dense = task_of(plan, TrainSpec, mask=None)
    users = {key for key, task in plan.tasks.items() if dense.key in [t.key for t in task.inputs]}
    folder = store.folder(dense.key)
    weights, note = read_tensors(folder / weights_file(None))
    weights["fc1.weight"][0, 0] += 1  # as another processor may round
    result = read_result(folder, dense.key)
    changed = {weights_file(None): write_tensors(folder / weights_file(None), weights, note).model_dump()}
    (folder / RESULT).write_text(json.dumps(seal(result | {"artefacts": result["artefacts"] | changed})))
    missing = store.missing({key: plan.kept(key) for key in plan.tasks})
    readers = {
        key for key in users if weights_file(None) in read_result(store.folder(key), key)["inputs"][dense.key]["read"]
    }
    assert set(missing) == readers and readers and readers < users, "who read other files of it stays done"


def test_a_disk_that_damages_what_was_just_written_is_told_instead_of_tried_for_ever(
    copied: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    import lthbench.tasks.context as context

    plan, store = copied
    dense, mask = task_of(plan, TrainSpec, mask=None), task_of(plan, MaskSpec)
    shutil.rmtree(store.folder(mask.key))
    real = context.read_tensors

    def damaging(path: Path, *content: Any) -> Any:
        if path == store.folder(dense.key) / weights_file(None):
            flip(path)
        return real(path, *content)

    monkeypatch.setattr(context, "read_tensors", damaging)
    outcome = run_plan(plan, Settings(store.root), 0, missing=[mask.key])
    assert list(outcome.failed) == [mask.key] and "is the disk sound?" in outcome.failed[mask.key]


def listed(content: dict[str, Any]) -> Any:
    return [1]


def without_environment(content: dict[str, Any]) -> Any:
    return {name: value for name, value in content.items() if name != "environment"}


def number(value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content | {"metrics": content["metrics"] | {"test_accuracy": value}}


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (listed, "Input should be an object"),
        (without_environment, "environment: Field required"),
        (number("0.5"), "metrics.test_accuracy: Input should be a valid number"),
        (number(None), "metrics.test_accuracy: Input should be a valid number"),
        (number(True), "metrics.test_accuracy: Input should be a valid number"),
        (number(7.5), "metrics.test_accuracy is 7.5, which is not a fraction"),
        (number(0.5), "its digest is another"),
        (lambda content: content | {"key": "0" * 32}, f"is the result of task {'0' * 32}"),
        (lambda content: content | {"status": "fine"}, "status"),
        (lambda content: content | {"artefacts": {"../../x": {"size": 1, "sha256": "0" * 64}}}, "artefacts"),
        (lambda content: content | {"finished": "today"}, "finished"),
        (lambda content: content | {"seconds": -1}, "seconds"),
    ],
)
def test_json_that_is_no_result_of_this_task_is_told_and_run_again(
    changed: Callable[[dict[str, Any]], Any], why: str, copied: tuple[Plan, Store]
) -> None:
    plan, store = copied
    before = bits(plan, store)
    ticket = next(t for t in plan.tasks.values() if isinstance(t.spec, TrainSpec) and t.spec.mask)
    path = store.folder(ticket.key) / RESULT
    path.write_text(json.dumps(changed(json.loads(path.read_text()))))
    with pytest.raises(StoreError, match="doctor") as told:
        store.result(ticket.key)
    assert str(path) in str(told.value) and why in str(told.value)
    ran, texts = run_again(plan, store)
    assert ran == [ticket.key] and any(str(path) in text for text in texts)
    assert bits(plan, store) == before


def test_the_result_of_another_task_is_none_of_this_one(copied: tuple[Plan, Store]) -> None:
    plan, store = copied
    one, other = [task.key for task in plan.tasks.values() if isinstance(task.spec, TrainSpec)][:2]
    shutil.copy(store.folder(one) / RESULT, store.folder(other) / RESULT)
    with pytest.raises(StoreError, match=f"is the result of task {one}"):
        store.is_done(other)


def test_what_a_killed_process_left_of_a_task_is_deleted_and_what_it_goes_on_from_is_not(
    copied: tuple[Plan, Store],
) -> None:
    plan, store = copied
    done, unfinished = list(plan.tasks)[:2]
    (store.folder(unfinished) / RESULT).unlink()
    left = [store.folder(done) / CHECKPOINT, store.folder(done) / f"{SCRATCH}dead" / CHECKPOINT]
    stays = [store.folder(unfinished) / CHECKPOINT, store.folder(done) / f"{SCRATCH}alive" / ".mask.tmp"]
    for path in (*left, *stays):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for path in (*left, stays[0]):
        os.utime(path, (0, 0))  # nobody is still at work on it
    found = inspect_store(store)
    assert found.abandoned == sorted(left)
    repair(store, found, lambda text: None)
    assert not any(path.exists() for path in left) and all(path.exists() for path in stays)


def test_the_lease_of_a_dead_process_is_named_and_deleted_and_a_live_ones_is_neither(
    copied: tuple[Plan, Store],
) -> None:
    plan, store = copied
    here, taking, far, waiting, held = (store.folder(key) / LEASE for key in list(plan.tasks)[:5])
    dies = "import os, sys; from pathlib import Path; from lthbench.lease import Lease\n"
    dies += "for path in sys.argv[1:]: assert Lease(Path(path)).try_acquire()\nos._exit(9)"
    gate = taking.with_name(f"{LEASE}.{'0' * 32}")
    subprocess.run([sys.executable, "-c", dies, here, taking, gate], check=False)
    for path in (far, waiting):
        path.write_text(json.dumps({"owner": "f", "machine": "far away", "pid": 1}))
    os.utime(far, (0, 0))
    scratch = [far.with_name(f"{SCRATCH}f"), far.with_name(f"{SCRATCH}e"), held.with_name(f"{SCRATCH}e")]
    for folder in scratch:
        folder.mkdir()
        os.utime(folder, (0, 0))
    with Lease(held) as lease:
        scratch.append(held.with_name(f"{SCRATCH}{lease.owner}"))
        scratch[-1].mkdir()
        os.utime(scratch[-1], (0, 0))
        found = inspect_store(store)
        assert found.abandoned == sorted([here, taking, gate, far, *scratch[1:3]])
        repair(store, found, lambda text: None)
        lease.check()
    assert waiting.exists() and scratch[3].exists(), "of machines that were seen a moment ago nobody knows"
    assert inspect_store(store).abandoned == [scratch[0], scratch[3]] and not held.exists()
    for folder in scratch[::3]:
        folder.rmdir()
    assert not inspect_store(store).abandoned and sorted(store.root.rglob(f"{LEASE}*")) == [waiting]
