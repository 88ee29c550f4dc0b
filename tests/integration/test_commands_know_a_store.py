"""Commands that read a store tell where there is none, make nothing, and propose commands for the same store."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Call

from lthbench import api
from lthbench.api import OpenSuite
from lthbench.cli.app import again
from lthbench.suite.plan import Plan
from lthbench.tasks.store import LAYOUT, MARKER, Store

READING = [
    ("status",), ("results",), ("results", "--json"), ("verdicts",), ("watch",), ("report",), ("verify",),
    ("export", "tensorboard", "--out", "out"), ("cancel",), ("verify", "--artefacts"), ("gc",), ("gc", "--yes"),
    ("ticket", "export", "--pair", "tiny", "--arm", "early", "--level", "1", "--out", "out"),
]  # fmt: skip


@pytest.fixture
def call(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Calls a command in an empty folder; its code, stdout and stderr."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    return call


def absent(root: Path) -> str:
    return "is not there"


def empty(root: Path) -> str:
    root.mkdir()
    return "is not a store"


def foreign(root: Path) -> str:
    root.mkdir()
    (root / "thesis.tex").touch()
    return "is not empty and no store"


def of_another_layout(root: Path) -> str:
    root.mkdir()
    (root / MARKER).write_text(f"{int(LAYOUT) + 1}\n")
    return "of another version"


def marked_by_a_folder(root: Path) -> str:
    (root / MARKER).mkdir(parents=True)
    return "is not a regular file"


def file(root: Path) -> str:
    root.write_text("x")
    return "cannot be used as store"


@pytest.mark.parametrize("command", READING, ids=" ".join)
@pytest.mark.parametrize("place", [absent, empty, foreign, of_another_layout, marked_by_a_folder, file])
def test_a_command_that_reads_tells_where_there_is_no_store_and_makes_nothing(
    command: tuple[str, ...], place: Callable[[Path], str], call: Call, tiny_suite: Path, tmp_path: Path
) -> None:
    if command[1:2] == ("tensorboard",):
        pytest.importorskip("tensorboard")
    root = tmp_path / "there"
    why = place(root)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = call(*command, tiny_suite, "--store", root)
    assert (code, why in err, str(root) in err, out) == (2, True, True, "")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", [("run", "--workers", 0), ("submit", "--cluster", "debug"), ("plan",)])
@pytest.mark.parametrize("place", [foreign, of_another_layout, marked_by_a_folder, file])
def test_no_command_takes_what_is_no_store_for_one(
    command: tuple[object, ...], place: Callable[[Path], str], call: Call, tiny_suite: Path, tmp_path: Path
) -> None:
    root = tmp_path / "there"
    why = place(root)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = call(*command, tiny_suite, "--store", root)
    assert (code, why in err, str(root) in err) == (2, True, True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", [absent, empty])
def test_plan_needs_no_store_and_makes_none(
    place: Callable[[Path], str], call: Call, tiny_suite: Path, tmp_path: Path
) -> None:
    place(tmp_path / "there")
    before = sorted(tmp_path.rglob("*"))
    assert call("plan", tiny_suite, "--store", tmp_path / "there")[0] == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_a_report_before_the_first_run_does_not_keep_a_store_from_being_made(
    call: Call, tiny_suite: Path, tmp_path: Path
) -> None:
    assert call("report", tiny_suite, "--store", tmp_path / "there")[0] == 2
    assert call("run", tiny_suite, "--store", tmp_path / "there", "--workers", 0, "--levels", 0)[0] == 0


def test_proposed_commands_are_for_the_store_and_data_that_were_given(
    call: Call, tiny_suite: Path, tmp_path: Path
) -> None:
    root = tmp_path / "my store"
    named = f"{tiny_suite} --csv --store '{root}'"
    out = call("run", tiny_suite, "--store", root, "--workers", 0, "--levels", 0, "--only", "imp")[1]
    assert f"`lthbench results {named}`" in out
    assert f"--store '{root}'" in call("verify", tiny_suite, "--store", root)[2]
    told = call("verdicts", tiny_suite, f"--store={root}")[1]
    assert "lthbench run" not in told or f"'--store={root}'" in told


def test_doctor_reads_every_file_of_a_store_and_sets_aside_what_is_damaged(
    call: Call, tiny_suite: Path, tiny_run: tuple[Plan, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lthbench.bench.doctor.examine", lambda store, data: [])  # the installation takes seconds
    root = tmp_path / "store"
    shutil.copytree(tiny_run[1].root, root)
    assert call("doctor", "--store", root)[0] == 0
    assert call("verify", tiny_suite, "--store", root, "--artefacts")[0] == 0
    paths = sorted(root.glob("tasks/*/*/mask.safetensors"))[:1] + sorted(root.glob("tasks/*/*/weights-*"))[:1]
    for path in paths:
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert call("status", tiny_suite, "--store", root)[0] == 0, "which looks at sizes"
    for command in (("doctor", "--store", root), ("verify", tiny_suite, "--store", root, "--artefacts")):
        code, _, err = call(*command)
        assert code == 1 and all(f"{path}: is not what was written" in err for path in paths)
    assert "--repair" in call("doctor", "--store", root)[1]
    code, _, err = call("doctor", "--store", root, "--repair")
    assert code == 0 and all(str(path) in err for path in paths)
    assert call("run", tiny_suite, "--store", root, "--workers", 0)[0] == 0
    assert call("verify", tiny_suite, "--store", root, "--artefacts")[0] == 0
    assert "set aside" in call("doctor", "--store", root)[1], "what was damaged is there to be looked at"


def test_repair_needs_to_be_told_the_store(call: Call, tmp_path: Path) -> None:
    assert call("doctor", "--repair")[0] == 2
    assert call("doctor", "--repair", "--store", tmp_path / "typo")[0] == 2


@pytest.mark.parametrize(("words", "plans"), [((), 1), (("--arm", "early"), 2)])
def test_a_run_plans_the_suite_once_for_results_verdicts_and_report(
    words: tuple[str, ...], plans: int, call: Call, tiny_run: tuple[Plan, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Plan] = []
    make_plan = api.make_plan

    def counted(*given: Any) -> Plan:
        made.append(make_plan(*given))
        return made[-1]

    reported: list[Plan | None] = []

    def report(opened: OpenSuite, planned: Plan | None = None) -> Path:
        reported.append(planned)
        return opened.path

    monkeypatch.setattr(api, "make_plan", counted)
    monkeypatch.setattr(api, "report", report)
    root = tiny_run[1].root
    code, _, err = call("run", root.parent / "tiny.yaml", "--store", root, "--report", *words)
    assert code == 0, err
    assert len(made) == plans and reported == [made[-1]]
    assert made[-1].tasks.keys() == tiny_run[0].tasks.keys()


def test_a_proposed_cancel_has_no_option_that_cancel_does_not_know(
    monkeypatch: pytest.MonkeyPatch, tiny_suite: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["lthbench", "submit", str(tiny_suite), "--allow-outside", "--store", "s"])
    assert again("cancel", tiny_suite) == f"lthbench cancel {tiny_suite} --store s"
    assert again("status", tiny_suite) == f"lthbench status {tiny_suite} --store s --allow-outside"
