"""Every command under errors of the system: one line and its exit code, never a traceback."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import matplotlib.font_manager  # noqa: F401  (keeps files in a home directory, as MLflow does)
import mlflow.tracking  # noqa: F401
import pytest
import typer
from conftest import TINY

from lthbench.__main__ import main
from lthbench.cli import app
from lthbench.cli.app import out
from lthbench.suite.calibration import Calibration
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store

SUITE = "lthbench.suite.load.read_yaml"
# Command -> what follows it ({s}: a suite, {d}: a folder), and a function that it calls.
COMMANDS = {
    "plan": ("{s} --store {d}", SUITE),
    "run": ("{s} --store {d}", SUITE),
    "submit": ("{s} --store {d}", SUITE),
    "cancel": ("{s} --store {d}", "lthbench.runner.slurm.scheduler.queued"),
    "status": ("{s} --store {d}", SUITE),
    "watch": ("{s} --store {d}", SUITE),
    "results": ("{s} --store {d}", SUITE),
    "verdicts": ("{s} --store {d}", SUITE),
    "verify": ("{s} --store {d}", SUITE),
    "report": ("{s} --store {d} --no-figures --out {d}/out", SUITE),
    "compare": ("{d} --suite {s} --arms early late", SUITE),
    "gc": ("{s} --store {d}", SUITE),
    "ticket export": ("{s} --store {d} --pair tiny --arm early --level 1 --out {d}/out", SUITE),
    "ticket import": ("{d}/mask.pth {s} --store {d} --name snip", SUITE),
    "export tensorboard": ("{s} --store {d} --out {d}/out", SUITE),
    "export mlflow": ("{s} --store {d} --out {d}/out", SUITE),
    "schema": ("--json", "lthbench.suite.json_schema.suite_schema"),
    "bench training": ("{s}", SUITE),
    "bench engine": ("--model lenet-300-100", "lthbench.bench.engine_speed.network_points"),
    "bench kernels": ("", "lthbench.bench.kernels.kernel_rows"),
    "doctor": ("", "lthbench.bench.doctor.examine"),
    "data list": ("--data {d}", "lthbench.data.commands.list_data"),
    "data check": ("--data {d}", "lthbench.data.commands.check_data"),
    "data download": ("mnist --data {d}", "lthbench.data.commands.download_data"),
    "data add": ("pictures --folder {d} --data {d}", "lthbench.data.commands.add_data"),
    "data prepare": ("tinyimagenet --data {d}", "lthbench.data.commands.prepare_data"),
}


def names_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield " ".join(path)
    for name, below in getattr(command, "commands", {}).items():
        yield from names_of(below, (*path, name))


def test_every_command_is_here() -> None:
    assert set(names_of(typer.main.get_command(app))) == set(COMMANDS)


def call(monkeypatch: pytest.MonkeyPatch, command: str, *arguments: str) -> int | str | None:
    """Call a command as its process does, and return what it exits with."""
    monkeypatch.setattr(sys, "argv", ["lthbench", *command.split(), *arguments])
    before = signal.getsignal(signal.SIGINT)
    try:
        main()
    except SystemExit as ended:
        return ended.code
    finally:
        signal.signal(signal.SIGINT, before)
    return 0


@pytest.fixture
def arguments(command: str, tmp_path: Path, tiny_suite: Path) -> list[str]:
    """What follows a command: a suite, and a store where nothing has run."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "lthbench-store").write_text("2\n")
    return COMMANDS[command][0].format(s=tiny_suite, d=store).split()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO, errno.ENOLCK, errno.ESTALE])
def test_an_error_of_the_system_ends_a_command_with_one_line(
    command: str, number: int, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), "/somewhere")

    monkeypatch.setattr(COMMANDS[command][1], refuse)
    assert call(monkeypatch, command, *arguments) == 2
    assert told(capsys.readouterr().err) == [f"lthbench: /somewhere: {os.strerror(number)}"]


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_pressed_five_times_at_once_ends_a_command_without_a_word(
    command: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:  # where workers are ended, files are closed
            for _ in range(4):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(COMMANDS[command][1], pressed)
    assert call(monkeypatch, command, *arguments) == 130
    assert told(capsys.readouterr().err) == []


def test_ctrl_c_that_a_library_takes_for_a_fault_of_its_own_ends_a_command_without_a_word(
    tiny_suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def half_loaded(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise AttributeError("module 'numpy' has no attribute 'ma'") from None

    monkeypatch.setattr(SUITE, half_loaded)
    assert call(monkeypatch, "plan", str(tiny_suite)) == 130
    assert told(capsys.readouterr().err) == []


def told(error_output: str) -> list[str]:
    """The lines of an error output, but for the bar of how far it came."""
    return [line for line in error_output.strip().splitlines() if "%" not in line]


class Refusing(io.StringIO):
    """A standard output that takes nothing: a pipe that nobody reads, a file on a full disk."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        raise OSError(self.number, os.strerror(self.number))


# What stands for a command's work where that takes long, or needs a cluster or the network: it prints what it finds.
SHOWN = {
    "doctor", "cancel", "submit", "bench engine", "bench kernels", "bench training", "data add",
    "data download", "data prepare", "ticket import",
}  # fmt: skip


@pytest.fixture
def work(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def shows(*_: object, **__: object) -> NoReturn:
        out.print("é")
        raise typer.Exit

    if command in SHOWN:
        monkeypatch.setattr(COMMANDS[command][1], shows)


@pytest.fixture
def finished(command: str, tmp_path: Path, tiny_run: tuple[Plan, Store]) -> list[str]:
    """What follows a command: a suite whose names are not of ASCII, and a store where it has run."""
    suite = tmp_path / "größe.yaml"
    suite.write_text(TINY.replace("title: tiny", "title: Übung"), encoding="utf-8")
    store = shutil.copytree(tiny_run[1].root, tmp_path / "störe", copy_function=os.link)
    return [word.format(s=suite, d=store) for word in COMMANDS[command][0].split()]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC], ids=["closed pipe", "full"])
@pytest.mark.usefixtures("work")
def test_output_that_cannot_be_written_ends_a_command_with_one_line(
    command: str, number: int, finished: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Refusing(number))
    assert call(monkeypatch, command, *finished) == 2
    assert told(capsys.readouterr().err)[-1:] == [f"lthbench: {os.strerror(number)}"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("work")
def test_a_command_works_where_only_ascii_can_be_written_and_without_a_home(
    command: str, finished: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LTHBENCH_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    # There are no golden results of this suite.
    assert call(monkeypatch, command, *finished) == (2 if command == "verify" else 0), capsys.readouterr().err
    assert written.getvalue().isascii() and written.getvalue()


def test_without_a_home_mlflow_cannot_be_loaded_and_what_it_wants_is_told(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Homeless(ModuleType):
        def __getattr__(self, name: str) -> NoReturn:
            raise RuntimeError("Could not determine home directory.")

    monkeypatch.delitem(sys.modules, "lthbench.analysis.export.mlflow", raising=False)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", Homeless("mlflow.tracking"))
    assert call(monkeypatch, "export mlflow", str(tiny_suite), "--out", str(tmp_path)) == 2
    (line,) = told(capsys.readouterr().err)
    assert line.endswith("MLflow does not load: Could not determine home directory. Set HOME to a folder")


def test_streams_that_were_closed_are_opened_before_files_take_their_numbers() -> None:
    closed = "import os; os.closerange(0, 3); import sys; sys.stdin = sys.stdout = sys.stderr = None\n"
    program = closed + (
        "from lthbench.__main__ import open_streams; open_streams()\n"
        "ours = open('/dev/zero')\n"
        "print('lost', flush=True); print('lost', file=sys.stderr); assert sys.stdin.read() == ''\n"
        "assert all(os.path.samestat(os.fstat(n), os.stat(os.devnull)) and os.get_inheritable(n) for n in range(3))\n"
        "os._exit(0 if ours.fileno() > 2 else 1)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("export tensorboard", ["--out", "{out}/runs"]),
        ("export mlflow", ["--out", "{out}/runs"]),
        ("export mlflow", ["--out", "sqlite:///{out}/runs.db"]),
        ("report", ["--no-figures", "--out", "{out}/report"]),
        ("verify", ["--golden", "{out}/golden", "--update", "--reason", "test"]),
        ("plan", ["--calibrate"]),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line_and_the_path(
    command: str, extra: list[str], tmp_path: Path, tiny_suite: Path, tiny_run: tuple[Plan, Store],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    refusing = Path("/sys/kernel")  # to root too
    monkeypatch.setenv("LTHBENCH_CACHE", str(refusing / "cache"))
    measured = Calibration(device="x", kind="cpu", torch="2", threads=1, matmul={})
    monkeypatch.setattr("lthbench.bench.throughput.calibrate", lambda *_: [measured])
    words = [word.format(out=refusing) for word in extra]
    assert call(monkeypatch, command, str(tiny_suite), "--store", str(tiny_run[1].root), *words) == 2
    (line,) = told(capsys.readouterr().err)
    assert line.startswith("lthbench: ") and "/sys/kernel/" in line


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("export tensorboard", ["--out", "{out}/runs"]),
        ("report", ["--no-figures", "--out", "{out}/report"]),
        ("verify", ["--golden", "{out}/golden", "--update", "--reason", "test"]),
        ("plan", ["--calibrate"]),
    ],
)
def test_a_disk_that_is_full_is_one_line_and_the_path(
    command: str, extra: list[str], tmp_path: Path, tiny_suite: Path, tiny_run: tuple[Plan, Store],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lthbench.tasks.atomic.os.fsync", full)
    measured = Calibration(device="x", kind="cpu", torch="2", threads=1, matmul={})
    monkeypatch.setattr("lthbench.bench.throughput.calibrate", lambda *_: [measured])
    words = [word.format(out=tmp_path) for word in extra]
    assert call(monkeypatch, command, str(tiny_suite), "--store", str(tiny_run[1].root), *words) == 2
    (line,) = told(capsys.readouterr().err)
    assert line.startswith("lthbench: ") and str(tmp_path) in line and "No space left on device" in line
    assert not list(tmp_path.rglob("*.tmp"))
