"""Kernels that were compiled from other sources than those beside the package are told of."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
import warnings
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace

import pytest

from lthbench import __version__, cli
from lthbench.bench import doctor
from lthbench.ops import _library
from lthbench.ops._library import KernelWarning, built_from, kernels_available, of_other_sources
from lthbench.ops.sources import digest
from lthbench.runner.settings import Settings
from lthbench.runner.worker import Worker
from lthbench.runner.worker_process import serve

CSRC = Path(__file__).parents[2] / "csrc"


@pytest.mark.skipif(not kernels_available("cpu"), reason="the kernels are not built")
def test_the_kernels_under_test_are_compiled_from_the_sources_under_test() -> None:
    assert built_from() == {part: digest(CSRC, part) for part in built_from()}


@pytest.mark.parametrize(
    ("file", "changed"),
    [("ops.cpp", {"cpu"}), ("cpu/masks.cpp", {"cpu"}), ("cuda/masks.cu", {"cuda"}), ("masks.h", {"cpu", "cuda"})],
)
def test_a_changed_source_changes_the_digest_of_what_is_compiled_from_it(
    file: str, changed: set[str], tmp_path: Path
) -> None:
    csrc = shutil.copytree(CSRC, tmp_path / "csrc")
    before = {part: digest(csrc, part) for part in ("cpu", "cuda")}
    assert before == {part: digest(CSRC, part) for part in ("cpu", "cuda")}, "where the sources lie is no part of it"
    with (csrc / file).open("a") as source:
        source.write("//\n")
    assert {part for part, old in before.items() if digest(csrc, part) != old} == changed


def test_only_parts_that_name_their_sources_are_compared_and_only_in_a_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(_library, "_cpu", SimpleNamespace(built_from="0123456789ab"))
    monkeypatch.setattr(_library, "_cuda", SimpleNamespace())
    assert of_other_sources() == ["cpu"]
    assert of_other_sources(tmp_path) == []
    monkeypatch.setattr(_library, "_cpu", SimpleNamespace(built_from=digest(CSRC, "cpu")))
    assert of_other_sources() == []


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ({}, "not built at install"),
        ({"_C": "a"}, r"its optimizer cache for Python 3\.\d+ is not built at install"),
        (
            {"_C": "a", "_optimizer_cache": "b"},
            "its optimizer cache was compiled from other sources than its operators",
        ),
        ({"_C": "a", "_optimizer_cache": "a"}, ""),
    ],
)
def test_operators_are_not_used_without_the_optimizer_cache_of_their_sources(
    there: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {name: SimpleNamespace(built_from=digest) for name, digest in there.items()}
    monkeypatch.setattr(_library, "_load", lambda name: (modules.get(name), "not built at install"))
    operators, cache, why = _library._load_cpu()
    assert re.fullmatch(reason, why)
    assert (operators is None) == (cache is None) == bool(why)


@pytest.mark.parametrize(
    ("others", "device", "refused"),
    [([], "cuda", ""), (["cpu"], "cpu", "cpu"), (["cuda"], "cpu", ""), (["cpu", "cuda"], "cuda:1", "cpu, cuda")],
)
def test_no_result_is_computed_by_kernels_of_other_sources(
    others: list[str], device: str, refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_library, "of_other_sources", lambda: others)
    monkeypatch.delenv("LTHBENCH_REFERENCE", raising=False)
    reason = _library.why_not_these_kernels(device)
    assert reason is None if not refused else reason is not None and f"kernels ({refused}) built from other" in reason
    monkeypatch.setenv("LTHBENCH_REFERENCE", "1")
    assert _library.why_not_these_kernels(device) is None


@pytest.mark.parametrize(
    "command", [["run", "--device", "cpu", "--workers", "0"], ["submit", "--cluster", "debug", "--device", "cpu"]]
)
def test_a_run_on_kernels_of_other_sources_ends_before_anything_is_computed(
    command: list[str], tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(_library, "of_other_sources", lambda: ["cpu"])
    monkeypatch.delenv("LTHBENCH_REFERENCE", raising=False)
    monkeypatch.setattr(sys, "argv", ["lthbench", *command, str(tiny_suite), "--store", str(tmp_path / "store")])
    with pytest.raises(SystemExit) as end:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and "by ci/install.sh, or set LTHBENCH_REFERENCE=1" in line
    assert not list(tmp_path.glob("store/tasks/*"))
    with pytest.raises(RuntimeError, match="built from other sources"):
        Worker(Settings(tmp_path / "store"))


def test_a_worker_with_kernels_of_other_sources_says_so_and_does_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_library, "of_other_sources", lambda: ["cpu"])
    monkeypatch.delenv("LTHBENCH_REFERENCE", raising=False)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, its = Pipe()
    serve(its, Settings(tmp_path / "store").dumps(), is_first=True)
    told = json.loads(ours.recv_bytes())
    assert told["kind"] == "option" and "by ci/install.sh, or set LTHBENCH_REFERENCE=1" in told["error"]
    assert not ours.poll() and not (tmp_path / "store").exists()


@pytest.mark.parametrize("is_first", [True, False])
def test_the_first_of_all_workers_tells_that_there_are_no_kernels(
    is_first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTHBENCH_REFERENCE", "1")
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ours, its = Pipe()
    ours.send_bytes(b"no task")
    with pytest.raises(ValueError):
        serve(its, Settings(tmp_path / "store").dumps(), is_first)
    assert ours.poll() == is_first
    if is_first:
        assert "no kernels (LTHBENCH_REFERENCE=1)" in json.loads(ours.recv_bytes())["text"]


def test_the_doctor_calls_kernels_of_other_sources_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "build_info", lambda: {"cpu": "loaded"})
    monkeypatch.setattr(doctor, "built_from", lambda: {"cpu": "0123456789ab"})
    for others, level, text in (
        ([], "ok", "loaded, built from sources 0123456789ab"),
        (
            ["cpu"],
            "problem",
            "loaded, of other sources (0123456789ab) than those in csrc/; build them again by ci/install.sh",
        ),
    ):
        monkeypatch.setattr(doctor, "of_other_sources", lambda others=others: others)
        assert doctor._kernels() == [doctor.Finding(level, "kernels, cpu", text)]  # type: ignore[arg-type]


def test_the_command_line_mentions_them_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_library, "of_other_sources", lambda: ["cpu", "cuda"])
    monkeypatch.setattr(cli, "app", _library._tell_of_other_sources)
    cli.main()
    told = capsys.readouterr().err
    assert told.startswith("lthbench: lthbench's kernels (cpu, cuda) were compiled from other sources than those in ")
    assert told.endswith("build them again by ci/install.sh\n") and told.count("\n") == 1
    with pytest.warns(KernelWarning):
        _library._tell_of_other_sources()
    monkeypatch.setattr(cli, "app", lambda: warnings.warn("of a library", UserWarning, stacklevel=1))
    cli.main()
    assert "UserWarning: of a library" in capsys.readouterr().err


def test_the_version_names_torch_and_the_sources_of_the_kernels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_library, "_cpu", SimpleNamespace(built_from="0123456789ab"))
    monkeypatch.setattr(_library, "_cuda", None)
    monkeypatch.setattr(_library, "_cuda_reason", "not built at install")
    monkeypatch.delenv("LTHBENCH_REFERENCE", raising=False)
    monkeypatch.setattr(sys, "argv", ["lthbench", "--version"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    first, second = capsys.readouterr().out.splitlines()
    assert end.value.code == 0 and first.startswith(f"lthbench {__version__}, Python 3.") and ", torch 2." in first
    assert second == "kernels: cpu 0123456789ab, cuda not built at install; used: kernels"
