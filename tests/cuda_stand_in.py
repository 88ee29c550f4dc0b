"""Tests of the CUDA half on the stand-in of tests/fake_cuda, each in the mode that its mark names.

The stand-in must be there before torch is, so a mark's tests run together in a process of their own; here each one
passes or fails as it did there.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = ROOT / "tests/fake_cuda"
INSIDE = "FAKE_CUDA" in os.environ
REPORT = "FAKE_CUDA_REPORT"  # the variable that names the file of a process's reports


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fake_cuda(mode): runs on the stand-in for CUDA; modes: guard, sim")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several processes (pytest-xdist), one has all tests on the stand-in, and a file's tests are one's.

    They begin in the order of their folders, so that the many short ones of tests/unit fill up the end.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "tests/cuda" if file.startswith("tests/cuda/") else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built stand-in; FAKE_CUDA_BUILT names one that is built already."""
    if INSIDE or "FAKE_CUDA_BUILT" in os.environ:
        return Path(os.environ["FAKE_CUDA_BUILT"])
    if reason := why_unavailable():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("fake_cuda")
    built = subprocess.run(
        [STAND_IN / "build.sh", folder], env={**os.environ, "PYTHON": sys.executable}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return folder


def why_unavailable() -> str | None:
    """The reason that the stand-in cannot be built here, or None."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return "the stand-in for CUDA is for Linux on x86-64"
    if (torch.version.cuda or "").split(".")[0] != "13":
        return f"the stand-in for CUDA needs a torch built for CUDA 13; this is {torch.__version__}"
    if missing := [tool for tool in ("g++", "gcc", "nm") if not shutil.which(tool)]:
        return f"the stand-in for CUDA is built with {', '.join(missing)}, not installed here"
    return None


@pytest.fixture(autouse=True)
def _zeroed_device() -> None:
    """Give a test on the stand-in zeroed memory: in the mode guard no kernel writes what the host then reads.

    Memory that torch keeps would have what an earlier test copied there, and a status in it any meaning.
    """
    if INSIDE:
        gc.collect()
        torch.cuda.empty_cache()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Take over, in the process without the stand-in, the results of the tests that need it."""
    mark = pyfuncitem.get_closest_marker("fake_cuda")
    if INSIDE and mark and mark.args != (os.environ["FAKE_CUDA"],):
        pytest.skip(f"for the mode {mark.args[0]}")
    if mark is None or INSIDE:
        return None
    folder = pyfuncitem._request.getfixturevalue("stand_in")
    results = _results(pyfuncitem.session, folder, *mark.args)
    outcome, text = results[pyfuncitem.nodeid]
    if outcome == "skipped":
        pytest.skip(text)
    if outcome != "passed":
        pytest.fail(f"on the stand-in, in the mode {mark.args[0]}:\n{text}", pytrace=False)
    return True


_RESULTS = pytest.StashKey[dict[str, dict[str, tuple[str, str]]]]()


def _results(session: pytest.Session, folder: Path, mode: str) -> dict[str, tuple[str, str]]:
    """Of each of the session's tests in a mode, its outcome and what was said; they run at the first call."""
    of_modes = session.stash.setdefault(_RESULTS, {})
    if mode not in of_modes:
        marks = {item.nodeid: item.get_closest_marker("fake_cuda") for item in session.items}
        of_modes[mode] = _run([name for name, mark in marks.items() if mark and mark.args == (mode,)], folder, mode)
    return of_modes[mode]


def _run(names: list[str], folder: Path, mode: str) -> dict[str, tuple[str, str]]:
    """Run tests on the stand-in; where one takes the process with it, the others run in another."""
    results: dict[str, tuple[str, str]] = {}
    report = folder / f"{mode}.jsonl"
    while left := [name for name in names if name not in results]:
        report.unlink(missing_ok=True)
        run = [STAND_IN / "run.sh", folder, mode, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        # Two devices, so that a program that takes the wrong one is seen.
        env = {**os.environ, REPORT: str(report), "FAKE_CUDA_DEVICES": "2"}
        done = subprocess.run([*run, *left], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1800)
        lines = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        begun = [line["test"] for line in lines if line["outcome"] == "begun"]
        results |= {line["test"]: (line["outcome"], line["text"]) for line in lines if line["outcome"] != "begun"}
        output = f"the process ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        died = [name for name in begun if name not in results]
        results |= dict.fromkeys(died if begun else left, ("failed", output))
    return results


def pytest_runtest_logstart(nodeid: str) -> None:
    _tell(nodeid, "begun", "")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note a test's outcome: of its call, or of its setup or end where that is no success."""
    if report.when == "call" or not report.passed:
        said: Any = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        _tell(report.nodeid, report.outcome, said)


def _tell(nodeid: str, outcome: str, text: str) -> None:
    if INSIDE and REPORT in os.environ:
        with Path(os.environ[REPORT]).open("a") as file:
            file.write(json.dumps({"test": nodeid, "outcome": outcome, "text": text}) + "\n")
