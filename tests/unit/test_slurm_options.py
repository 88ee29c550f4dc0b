"""What jobs ask of Slurm: a suite's section, a profile over it, the command line over both; and its faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lthbench.cli.submit import JobOptions, Profile, slurm_options
from lthbench.runner.slurm.arrays import ArrayExecutor
from lthbench.runner.slurm.executors import sbatch_parameters
from lthbench.suite.load import load_suite
from lthbench.suite.slurm_options import SlurmOptions, load_profile, minutes
from lthbench.suite.yaml_tree import SuiteError


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's file of profiles, which is not there yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "config" / "lthbench" / "slurm.yaml"
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90), ("90min", 90), ("12h", 720), ("2d", 2880), ("12:00:00", 720), ("1:30:01", 91), ("30:00", 30),
        ("0:30", 1), ("1-12", 2160), ("1-12:30", 2190), ("1-00:00:30", 1441),
    ],
)  # fmt: skip
def test_times_are_read_as_slurm_reads_them(text: str, expected: int) -> None:
    assert minutes(text) == expected


@pytest.mark.parametrize("text", ["", "0", "12 hours", "1:2:3:4", "1-", "-5", "12:00:00h"])
def test_what_is_not_a_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        minutes(text)


def test_a_suite_a_profile_and_the_command_line_are_laid_over_each_other(tiny_suite: Path, profiles: Path) -> None:
    tiny_suite.write_text(tiny_suite.read_text() + "slurm: {partition: cpu, time: 1h, max_running: 7, mem: 4G}\n")
    suite = load_suite(tiny_suite)
    profiles.write_text("default: {partition: mine, account: me}\nlarge: {partition: big, time: 2-00:00:00}\n")
    options = slurm_options(suite, JobOptions(mem="8G", sbatch=("licenses=a:1", "--reservation=r")))
    assert options == SlurmOptions(
        partition="mine", time="1h", max_running=7, mem="8G", account="me",
        extra={"licenses": "a:1", "reservation": "r"},
    )  # fmt: skip
    options = slurm_options(suite, Profile(profile="large"))
    assert (options.partition, options.time, options.account) == ("big", 2880, None)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{partiton: gpu}", r"tiny.yaml:\d+: slurm.partiton: unknown key; did you mean 'partition'"),
        ("{time: 12}", r"tiny.yaml:\d+: slurm.time: write a time with its unit, as 12h"),
        ("{time: soon}", r"tiny.yaml:\d+: slurm.time: is not a time; write 12h"),
        ("{mem: lots}", r"tiny.yaml:\d+: slurm.mem: "),
        ("{max_running: 0}", r"tiny.yaml:\d+: slurm.max_running: "),
        ("{extra: {job_name: mine}}", r"tiny.yaml:\d+: slurm.extra: job-name is set by lthbench itself"),
        ("{extra: {time: 2h}}", r"tiny.yaml:\d+: slurm.extra: time has a key of its own; write time"),
        ("{extra: {ntasks-per-node: 2}}", r"slurm.extra: ntasks-per-node has a key of its own; write tasks_per_node"),
        ("{extra: {clusters: b}}", r"slurm.extra: clusters is set .*; set SLURM_CLUSTERS in the environment"),
        ('{partition: "gpu\\ntouch x"}', r"tiny.yaml:\d+: slurm.partition: does not fit on a line of a script"),
    ],
)
def test_a_fault_of_the_section_is_reported_with_file_line_key_and_cure(
    section: str, message: str, tiny_suite: Path
) -> None:
    tiny_suite.write_text(tiny_suite.read_text() + f"slurm: {section}\n")
    with pytest.raises(SuiteError, match=message):
        load_suite(tiny_suite)


def test_faults_of_profiles_are_reported_with_file_line_key_and_cure(profiles: Path) -> None:
    assert load_profile(None) == SlurmOptions()
    with pytest.raises(SuiteError, match=r"--profile gpu: .*slurm.yaml is not there; write it, as `gpu:"):
        load_profile("gpu")
    profiles.write_text("gpu:\n  partition: a\n  cpus_per_task: none\n")
    assert load_profile(None) == SlurmOptions()
    with pytest.raises(SuiteError, match=r"no profile is called so; did you mean 'gpu'"):
        load_profile("gpus")
    with pytest.raises(SuiteError, match=r"slurm.yaml:3: gpu.cpus_per_task: .*found 'none'"):
        load_profile("gpu")
    profiles.write_text("partition\n")
    with pytest.raises(SuiteError, match=r"slurm.yaml:1: expected a mapping of profiles"):
        load_profile(None)


def test_a_fault_of_the_command_line_names_the_option(tiny_suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite = load_suite(tiny_suite)
    for given, sbatch, message in (
        ({"time": "soon"}, [], "--time soon: is not a time; write 12h"),
        ({"max_running": 0}, [], "--max-running 0: "),
        ({}, ["job-name=mine"], "--sbatch: job-name is set by lthbench itself"),
        ({}, ["L=a:1"], "--sbatch: 'L' is not an option of sbatch; write its long name"),
        ({}, ["licenses="], "--sbatch: does not fit on a line of a script"),
        ({}, ["comment=a\n touch /tmp/x"], "--sbatch: does not fit on a line of a script"),
    ):
        with pytest.raises(SystemExit):
            slurm_options(suite, JobOptions(**given, sbatch=tuple(sbatch)))
        assert message in capsys.readouterr().err


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[SlurmOptions], str]:
    """What sbatch is given for an array of twenty jobs."""
    (tmp_path / "srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def write(options: SlurmOptions) -> str:
        executor = ArrayExecutor(tmp_path)
        executor.update_parameters(**sbatch_parameters("name", options, ["12_1", "11"]))
        executor.parameters["map_count"] = 20
        return str(executor._make_submission_file_text("command", "uid"))

    return write


def test_submitit_makes_a_script_of_the_options(script: Callable[[SlurmOptions], str]) -> None:
    text = script(
        SlurmOptions(
            partition="gpu", time="12h", gpus_per_task=1, nodes=2, tasks_per_node=4, mem="16G", max_running=9,
            setup=("module load cuda",), signal_before=120, extra={"licenses": "a:1"},
        )
    )  # fmt: skip
    for line in (
        "partition=gpu", "time=720", "gpus-per-task=1", "nodes=2", "ntasks-per-node=4", "mem=16G", "array=0-19%9",
        "signal=USR2@120", "licenses=a:1", "dependency=afterany:11:12_1", "requeue", "job-name=name",
    ):  # fmt: skip
        assert f"#SBATCH --{line}\n" in text, text
    assert text.index("module load cuda") < text.index("\nsrun")


def test_srun_is_given_the_number_of_processors_per_process_which_it_does_not_take_from_the_job(
    script: Callable[[SlurmOptions], str],
) -> None:
    text = script(SlurmOptions(cpus_per_task=6))
    assert "#SBATCH --cpus-per-task=6\n" in text
    (srun,) = (line for line in text.splitlines() if line.startswith("srun"))
    assert " --cpus-per-task=6 " in srun


def test_an_option_without_a_value_can_be_given_and_taken_back(
    script: Callable[[SlurmOptions], str], tiny_suite: Path, profiles: Path
) -> None:
    tiny_suite.write_text(tiny_suite.read_text() + "slurm: {extra: {exclusive: true, spread_job: true, nice: 7}}\n")
    suite = load_suite(tiny_suite)
    text = script(slurm_options(suite, Profile()))
    for line in ("exclusive", "spread-job", "nice=7"):
        assert f"#SBATCH --{line}\n" in text, text
    profiles.write_text("default: {extra: {exclusive: false}}\n")
    text = script(slurm_options(suite, Profile(sbatch=("--contiguous",))))
    assert "#SBATCH --contiguous\n" in text and "exclusive" not in text
    assert "#SBATCH --exclusive=user\n" in script(slurm_options(suite, Profile(sbatch=("exclusive=user",))))
