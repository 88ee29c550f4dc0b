"""The example of a plugin, by the command line: run in a worker process, resumed, named by keys and golden results."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "example"


def lthbench(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "lthbench", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_own_network_criterion_and_experiment_run_from_the_command_line_and_are_named_where_they_must(
    tmp_path: Path,
) -> None:
    for name in ("my_models.py", "my_suite.yaml"):
        shutil.copy(EXAMPLE / name, tmp_path)
    assert len((EXAMPLE / "my_models.py").read_text().splitlines()) < 60
    plugin = ("--plugin", "my_models.py")
    small = ("--replicates", "1", "--levels", "1", "--only", "imp", "--only", "taylor")
    found = lthbench(tmp_path, "run", "my_suite.yaml", *plugin, *small, "--workers", "1")
    assert "taylor" in found
    tasks = [json.loads(path.read_text()) for path in (tmp_path / "store" / "tasks").glob("??/*/task.json")]
    named = {(task["kind"], task.get("criterion")): "my_models" in task.get("plugins", {}) for task in tasks}
    assert named == {("train", None): True, ("mask", None): False, ("mask", "taylor"): True}
    again = lthbench(tmp_path, "run", "my_suite.yaml", *plugin, *small, "--workers", "1")
    assert " 0 run now" in again
    refused = subprocess.run(
        [sys.executable, "-m", "lthbench", "plan", "my_suite.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert refused.returncode == 2 and "did you forget --plugin?" in refused.stderr
