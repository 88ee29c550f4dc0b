"""What a process imports before it works: seconds of every command and worker that no profile of work shows."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import TINY

from lthbench.bench import quick_rates
from lthbench.runner.device import may_have_gpu, resolve_device
from lthbench.suite.calibration import save_calibration
from lthbench.suite.load import load_suite
from lthbench.suite.model_cost import model_cost, torch_version

HEAVY = ("torch", "torchvision", "scipy", "pandas", "statsmodels", "matplotlib")
COMMAND = """
import json, sys
sys.argv = ["lthbench", "{command}", {suite!r}, "--store", {store!r}, "--json"]
from lthbench.cli import main
try:
    main()
finally:
    print(json.dumps([name for name in {heavy!r} if name in sys.modules]), file=sys.stderr)
"""
WORKER = """
import json, sys
from lthbench.runner import worker
from lthbench.runner.environment import make_deterministic
import torch
make_deterministic(1)
from lthbench.ops import MaskedSGD
weight = torch.ones(3, requires_grad=True)
optimizer = MaskedSGD([weight], lr=0.1, momentum=0.9)
weight.sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
heavy = [*{heavy!r}[1:], "torch._dynamo", "torch._inductor", "lthbench.analysis", "lthbench.cli", "typer"]
try:
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    refuses = ""
except RuntimeError as error:
    refuses = str(error)
print(json.dumps({{
    "loaded": [name for name in heavy if name in sys.modules],
    "on": torch.are_deterministic_algorithms_enabled(),
    "warns": torch.is_deterministic_algorithms_warn_only_enabled(),
    "fills": torch.utils.deterministic.fill_uninitialized_memory,
    "refuses": refuses,
}}))
"""


def test_a_plan_whose_networks_were_counted_before_needs_neither_torch_nor_statistics(
    own_cache: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (pair,) = load_suite(tmp_path / "tiny.yaml").pairs.values()
    model_cost.cache_clear()
    counted = model_cost(pair.model, pair.data)
    model_cost.cache_clear()
    assert model_cost(pair.model, pair.data) == counted and len(list((own_cache / "models").iterdir())) == 1
    program = COMMAND.format(
        command="plan", suite=str(tmp_path / "tiny.yaml"), store=str(tmp_path / "store"), heavy=HEAVY
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ran.stderr) == [] and json.loads(ran.stdout)["cost"][-1]["flops"] > 0


def test_a_plan_on_a_machine_whose_rates_are_kept_needs_no_torch_for_its_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quick_rates, "SECONDS", 0.001)
    monkeypatch.setenv("LTHBENCH_MEASURE", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "tiny.yaml").write_text(TINY)
    pairs = load_suite(tmp_path / "tiny.yaml").pairs
    model_cost.cache_clear()  # so that what the networks cost is kept, too
    save_calibration(quick_rates.quick_rates(pairs.values(), None, torch.device("cpu"), threads=1))
    program = COMMAND.format(
        command="plan", suite=str(tmp_path / "tiny.yaml"), store=str(tmp_path / "store"), heavy=HEAVY
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ran.stderr) == [] and json.loads(ran.stdout)["here"]["is_measured"]


def test_a_plan_that_was_made_before_needs_no_statistics_for_what_its_claims_decide(
    own_cache: Path, tmp_path: Path
) -> None:
    heavy = ("scipy.stats", *HEAVY[3:])
    program = COMMAND.format(command="plan", suite="quick", store=str(tmp_path / "store"), heavy=heavy)
    words = [sys.executable, "-c", program]
    ran = [subprocess.run(words, capture_output=True, text=True, check=True) for _ in range(2)]
    first, second = (json.loads(each.stdout) for each in ran)
    assert second == first and any(part["spread"]["value"] for claim in first["claims"] for part in claim["parts"])
    assert "statsmodels" in json.loads(ran[0].stderr) and json.loads(ran[1].stderr) == []


def test_a_run_leaves_torch_to_its_workers_and_shows_its_results_without_tests(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(f"{TINY.partition('      rewound')[0]}".replace("levels: 2", "levels: 0"))
    heavy = ("scipy.stats", *(name for name in HEAVY if name != "scipy"))
    store = str(tmp_path / "store")
    program = COMMAND.format(command="run", suite=str(tmp_path / "tiny.yaml"), store=store, heavy=heavy)
    program = program.replace('"--json"', '"--json", "--device", "cpu", "--workers", "1"')
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(ran.stderr.splitlines()[-1]) == [] and json.loads(ran.stdout)


def test_without_a_gpus_driver_torch_is_not_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr("lthbench.runner.device._DRIVERS", ("no-such-device*",))
    assert not may_have_gpu() and resolve_device("auto") == "cpu" and "torch" not in sys.modules
    monkeypatch.setattr("lthbench.runner.device._DRIVERS", ("null",))
    assert may_have_gpu()
    monkeypatch.setattr("lthbench.runner.device._DRIVERS", ())
    monkeypatch.setenv("SLURM_JOB_GPUS", "0")
    assert may_have_gpu()


def test_a_damaged_count_is_counted_again(own_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (pair,) = load_suite(tmp_path / "tiny.yaml").pairs.values()
    model_cost.cache_clear()
    counted = model_cost(pair.model, pair.data)
    (file,) = (own_cache / "models").iterdir()
    for damaged in ("", "{}", "[]", file.read_text()[:-9]):
        file.write_text(damaged)
        model_cost.cache_clear()
        assert model_cost(pair.model, pair.data) == counted


def test_a_worker_is_deterministic_without_the_compiler_statistics_or_commands() -> None:
    program = WORKER.format(heavy=HEAVY)
    found = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert "does not have a deterministic implementation" in found.pop("refuses")
    assert found == {"loaded": [], "on": True, "warns": False, "fills": False}


def test_the_compiler_reads_the_variable_that_sets_its_mode() -> None:
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    config = Path(spec.origin).with_name("_inductor") / "config.py"
    assert 'deterministic = os.getenv("TORCHINDUCTOR_DETERMINISTIC") == "1"' in config.read_text()


def test_the_version_of_torch_is_known_without_it() -> None:
    assert torch_version() == torch.__version__
