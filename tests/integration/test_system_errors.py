"""An error of the operating system is one line with the path, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from lthbench.cli import main
from lthbench.home import user_folder
from lthbench.runner.device import DeviceError, resolve_device
from lthbench.suite.calibration import calibrations
from lthbench.suite.slurm_options import SlurmOptions, load_profile
from lthbench.suite.yaml_tree import SuiteError


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(13, "Permission denied", "/root/x"),
        OSError(5, "Input/output error", "/mnt/x"),
        OSError(37, "No locks"),
    ],
)
def test_an_error_of_the_system_is_one_line_with_its_path(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_suite: Path
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("lthbench.suite.load.load_suite", refused)
    monkeypatch.setattr("sys.argv", ["lthbench", "plan", str(tiny_suite)])
    with pytest.raises(SystemExit) as exit_:
        main()
    told = capsys.readouterr().err
    where = f"{error.filename}: " if error.filename else ""
    assert (exit_.value.code, told) == (2, f"lthbench: {where}{error.strerror}\n")


def test_without_a_home_directory_what_would_lie_in_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for variable in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "LTHBENCH_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    assert user_folder("XDG_CONFIG_HOME", ".config") is None
    assert load_profile(None) == SlurmOptions() and calibrations("2.14.1") == []
    with pytest.raises(SuiteError, match="XDG_CONFIG_HOME"):
        load_profile("large")


@pytest.mark.parametrize("variable", ["SLURM_JOB_GPUS", "SLURM_STEP_GPUS"])
def test_a_job_that_was_given_gpus_does_not_train_on_the_processor(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    monkeypatch.setenv(variable, "0,1")
    with pytest.raises(DeviceError, match=f"{variable}=0,1"):
        resolve_device("auto")
    assert resolve_device("cpu") == "cpu"
