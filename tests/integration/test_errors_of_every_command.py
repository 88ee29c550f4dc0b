"""Every command under errors of the system: one line and its exit code, never a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from lthbench.cli import app, main

SUITE = "lthbench.suite.load.read_yaml"
# Command -> what follows it ({s}: a suite, {d}: a folder), and a function that it calls.
COMMANDS = {
    "plan": ("{s} --store {d}", SUITE),
    "run": ("{s} --store {d}", SUITE),
    "submit": ("{s} --store {d}", SUITE),
    "cancel": ("{s} --store {d}", "lthbench.runner.scheduler.queued"),
    "status": ("{s} --store {d}", SUITE),
    "watch": ("{s} --store {d}", SUITE),
    "results": ("{s} --store {d}", SUITE),
    "verdicts": ("{s} --store {d}", SUITE),
    "verify": ("{s} --store {d}", SUITE),
    "report": ("{s} --store {d} --out {d}/out", SUITE),
    "export tensorboard": ("{s} --store {d} --out {d}/out", SUITE),
    "export mlflow": ("{s} --store {d} --out {d}/out", SUITE),
    "bench training": ("{s}", SUITE),
    "bench kernels": ("", "lthbench.runner.bench.kernel_rows"),
    "doctor": ("", "lthbench.runner.doctor.examine"),
    "data list": ("--data {d}", "lthbench.data.commands.list_data"),
    "data check": ("--data {d}", "lthbench.data.commands.check_data"),
    "data download": ("mnist --data {d}", "lthbench.data.commands.download_data"),
    "data prepare": ("tinyimagenet --data {d}", "lthbench.data.commands.prepare_data"),
}


def names_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield " ".join(path)
    for name, below in getattr(command, "commands", {}).items():
        yield from names_of(below, (*path, name))


def test_every_command_is_here() -> None:
    assert set(names_of(typer.main.get_command(app))) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((OSError(number, os.strerror(number), "/somewhere"), 2)
          for number in (errno.ENOSPC, errno.EACCES, errno.EIO, errno.ENOLCK, errno.ESTALE)),
        (KeyboardInterrupt(), 130),
    ],
    ids=["full", "forbidden", "broken", "no locks", "stale", "Ctrl-C"],
)  # fmt: skip
def test_an_error_of_the_system_ends_a_command_with_one_line(
    command: str, error: BaseException, code: int, tmp_path: Path, tiny_suite: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def refuse(*_: object, **__: object) -> None:
        raise error

    words, target = COMMANDS[command]
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "lthbench-store").write_text("2\n")
    monkeypatch.setattr(target, refuse)
    arguments = words.format(s=tiny_suite, d=tmp_path / "store").split()
    monkeypatch.setattr(sys, "argv", ["lthbench", *command.split(), *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err.strip().splitlines()
    assert ended.value.code == code, told
    told = [line for line in told if "%" not in line]  # the bar of how far it came
    assert told == ([f"lthbench: /somewhere: {error.strerror}"] if isinstance(error, OSError) else [])
