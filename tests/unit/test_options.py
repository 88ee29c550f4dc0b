"""Options that several commands have are declared once; what is planned and run for them, and how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import typer
from test_part import PARTS
from typer.testing import CliRunner

from lthbench.api import Source
from lthbench.cli import app
from lthbench.cli.parameters import Only, with_options
from lthbench.cli.submit import Profile
from lthbench.options import Option, declared, words
from lthbench.runner.execution import Local
from lthbench.runner.queue import Outcome
from lthbench.runner.rounds import run_in_rounds
from lthbench.runner.settings import RunOptions, Settings
from lthbench.runner.slurm.lane_job import JobSpec
from lthbench.runner.slurm.lanes import LaneOwner
from lthbench.suite.plan import Plan
from lthbench.suite.subset import Subset

SHARED = {f"--{how.flag.split('/')[0][2:]}": how for kind in (Source, Subset, RunOptions, Local, Profile)
          for _, how in declared(kind) if how.flag}  # fmt: skip


def commands_of(command: Any) -> Iterator[Any]:
    for below in getattr(command, "commands", {}).values():
        yield from commands_of(below) if hasattr(below, "commands") else [below]


def test_no_command_declares_an_option_anew_that_several_commands_have() -> None:
    others = {
        ("kernels", "--threads"), ("prepare", "--workers"), ("add", "--workers"),  # several numbers of them; threads
        ("export", "--pair"), ("export", "--arm"), ("export", "--device"), ("import", "--pair"),  # of a ticket: one
    }  # fmt: skip
    for command in commands_of(typer.main.get_command(app)):
        for parameter in command.params:
            for flag in parameter.opts:
                if flag in SHARED and (command.name, flag) not in others:
                    assert parameter.help == SHARED[flag].help, (command.name, flag)


def call(command: Callable[..., None], *arguments: str) -> None:
    small = typer.Typer()
    small.command()(with_options(command))
    result = CliRunner().invoke(small, list(arguments))
    assert result.exit_code == 0, result.output


@dataclass(frozen=True)
class More(Subset):
    seed: Annotated[int, Option("Another seed.", "--seed", min=0)] = 0


def test_a_new_field_of_a_shared_dataclass_is_an_option_of_every_command_that_has_it() -> None:
    found: list[Any] = []

    def first(part: More, number: int = 0) -> None:
        found.append((part, number))

    def second(part: Annotated[More, Only("seed", "pairs")]) -> None:
        found.append(part)

    call(first, "--seed", "3", "--pair", "a", "--pair", "b", "--number", "2")
    call(second, "--seed", "4")
    assert found == [(More(pairs=("a", "b"), seed=3), 2), More(seed=4)]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: " ".join(part.options()))
def test_the_words_of_a_part_are_read_back_as_the_part(part: Subset) -> None:
    found: list[Subset] = []

    def command(part: Subset) -> None:
        found.append(part)

    call(command, *words(part))
    assert found == [part]


def test_a_worker_has_a_device_that_is_there_and_a_job_looks_for_it_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="'auto' is not a device of a machine"):
        Settings(tmp_path, device="auto")  # type: ignore[arg-type]
    order = JobSpec(tmp_path, Subset(), LaneOwner("a", "b", 0, "imp"), {}, tmp_path, RunOptions(data=tmp_path), 1.0)
    for there, device in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr("torch.cuda.is_available", lambda there=there: there)
        monkeypatch.setattr("torch.cuda.device_count", lambda there=there: int(there))
        sent = JobSpec.parse(order.text())
        assert sent == order and sent.options.device == "auto"
        assert sent.options.settings(sent.store) == Settings(tmp_path, data=tmp_path, device=device)  # type: ignore[arg-type]


def rounds(known: list[list[str]], failing: str = "") -> tuple[list[list[str]], Outcome]:
    """What each round of a plan is given that has more tasks each time, of which some fail."""
    done: set[str] = set()
    given: list[list[str]] = []

    def missing(keys: Any) -> list[str]:
        return [key for key in keys if key not in done]

    def run(plan: Plan, missing: list[str]) -> Outcome:
        given.append(missing)
        ran = [key for key in missing if key not in failing]
        done.update(ran)
        return Outcome(ran, {key: "why" for key in missing if key in failing})

    plans = iter([SimpleNamespace(tasks=tasks, kept=lambda key: ()) for tasks in known])
    store: Any = SimpleNamespace(missing=missing)
    return given, run_in_rounds(lambda: next(plans), store, run)[1]  # type: ignore[arg-type, return-value]


def test_what_results_make_known_is_run_until_nothing_is_missing() -> None:
    given, outcome = rounds([["a"], ["a", "b", "c"], ["a", "b", "c"]])
    assert given == [["a"], ["b", "c"]] and outcome == Outcome(["a", "b", "c"])


def test_a_failed_task_does_not_keep_what_became_known_from_running() -> None:
    given, outcome = rounds([["a", "x"], ["a", "x", "b"], ["a", "x", "b"]], failing="x")
    assert given == [["a", "x"], ["x", "b"]]
    assert outcome == Outcome(["a", "b"], {"x": "why"})


def test_a_round_in_which_nothing_runs_is_the_last() -> None:
    assert rounds([["x"]], failing="x") == ([["x"]], Outcome(failed={"x": "why"}))
