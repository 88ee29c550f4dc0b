"""What is installed from a wheel or built from a source distribution is all there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
# Enough for setuptools to make a distribution; the embedded images are large and nothing is asked of them here.
PARTS = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "csrc", "suites", "lthbench")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution of a copy of the checkout."""
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        if (REPOSITORY / part).is_dir():
            skip = shutil.ignore_patterns("*.so", "*.webp", "__pycache__", "build")
            shutil.copytree(REPOSITORY / part, source / part, ignore=skip)
        else:
            shutil.copy(REPOSITORY / part, source / part)
    build = "from setuptools import build_meta as b; b.build_wheel('out'); b.build_sdist('out')"
    without_kernels = {**os.environ, "LTHBENCH_NO_EXTENSION": "1"}
    subprocess.run([sys.executable, "-c", build], cwd=source, env=without_kernels, capture_output=True, check=True)
    return source / "out"


def files(folder: str) -> set[str]:
    """The files of a folder of the checkout, by their path in it."""
    return {str(p.relative_to(REPOSITORY / folder)) for p in (REPOSITORY / folder).rglob("*") if p.is_file()}


def test_a_wheel_has_every_suite_claim_and_golden_result(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("lthbench/suites/")}
    assert {name.removeprefix("lthbench/suites/") for name in inside} == files("suites")


def test_a_source_distribution_has_every_source_of_the_kernels_and_every_suite(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    wanted = {f"{folder}/{file}" for folder in ("csrc", "suites") for file in files(folder)}
    assert not wanted - inside
