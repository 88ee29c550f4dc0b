"""What ships with the package is found by name, from a checkout and from an installed wheel."""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import pytest

from lthbench.suite import shipped
from lthbench.suite.load import load_suite
from lthbench.suite.shipped import find_suite, shipped_suites
from lthbench.suite.subset import Subset
from lthbench.suite.yaml_tree import SuiteError

CHECKOUT = Path(__file__).parents[2] / "suites"
GPU_SCRIPT = CHECKOUT.parent / "ci/gpu.sh"


def test_a_checkout_has_its_suites_beside_the_package_and_a_wheel_has_them_within(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shipped_suites() == CHECKOUT
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path / "lthbench")
    (tmp_path / "lthbench/suites").mkdir(parents=True)
    (tmp_path / "suites").mkdir()  # of another distribution
    assert shipped_suites() == tmp_path / "lthbench/suites"


def test_a_bare_name_is_a_shipped_suite_and_a_path_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_suite(Path("quick")) == CHECKOUT / "quick.yaml"
    for wrong in ("quik", "quick.yaml"):
        with pytest.raises(SuiteError, match=f"{wrong}: there is no such file here, .*did you mean 'quick'"):
            find_suite(Path(wrong))
    assert find_suite(Path("folder/quick")) == Path("folder/quick")
    (tmp_path / "quick").write_text("one's own")
    assert find_suite(Path("quick")) == Path("quick")


@pytest.mark.parametrize("of", ["quick", "micro", "paper"])
def test_suites_have_the_parts_by_which_the_script_for_a_gpu_is_rehearsed(of: str) -> None:
    script = GPU_SCRIPT.read_text()
    begin = script.index("quick=(suites/")
    arrays = script[begin : script.index("\nfi\n", begin)]
    asked = f'REHEARSE=1\n{arrays}\nfi\necho "${{{of}[@]}}" ' + ('"${bench[@]}"' if of == "paper" else "")
    words = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    options = argparse.ArgumentParser()
    options.add_argument("suite")
    for option, field in (("--pair", "pairs"), ("--arm", "arms"), ("--only", "experiments")):
        options.add_argument(option, dest=field, action="append", default=[])
    for option in ("--replicates", "--levels"):
        options.add_argument(option, type=int)
    given = vars(options.parse_known_args(words)[0])
    suite = load_suite(CHECKOUT.parent / given.pop("suite"))
    Subset(**given).check(suite)
