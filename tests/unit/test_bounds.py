"""What is read is bounded, and what can never be planned is refused before anything is built."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

from lthbench.data.error import DataError
from lthbench.data.prepare import decode
from lthbench.suite.load import load_suite
from lthbench.suite.plan import make_plan
from lthbench.suite.shipped import shipped_suites
from lthbench.suite.yaml_tree import SuiteError

CLAIM = "C1: {sentence: s, origin: o, experiments: [imp], tests: [{what: w, test: claim, claim: C0}]}"


def written(path: Path, text: str = TINY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("entry", ["../other.yaml", "below/../../other.yaml", "{root}/other.yaml", "link.yaml"])
@pytest.mark.parametrize("key", ["include", "claims"])
def test_a_suite_reads_nothing_outside_its_folder_unless_that_is_allowed(entry: str, key: str, tmp_path: Path) -> None:
    written(tmp_path / "other.yaml", TINY if key == "include" else CLAIM)
    suite = written(tmp_path / "own" / "suite.yaml", f"{TINY}{key}: [{entry.format(root=tmp_path)}]\n")
    (suite.parent / "below").mkdir()
    (suite.parent / "link.yaml").symlink_to(tmp_path / "other.yaml")
    with pytest.raises(SuiteError, match=rf"suite\.yaml:\d+: {key}: .*--allow-outside"):
        load_suite(suite)
    if key == "include":
        assert load_suite(suite, allow_outside=True).pairs
    else:
        with pytest.raises(SuiteError, match="C0"):  # it is read
            load_suite(suite, allow_outside=True)


def test_an_included_suite_includes_nothing_outside_either(tmp_path: Path) -> None:
    written(tmp_path / "other.yaml")
    written(tmp_path / "own" / "below" / "between.yaml", TINY + "include: [../../other.yaml]\n")
    suite = written(tmp_path / "own" / "suite.yaml", TINY + "include: [below/between.yaml]\n")
    with pytest.raises(SuiteError, match=r"between\.yaml:\d+: include: .*--allow-outside"):
        load_suite(suite)


def test_a_folder_of_claims_that_links_outside_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "other.yaml", CLAIM)
    suite = written(tmp_path / "own" / "suite.yaml", TINY + "claims: [mine]\n")
    (suite.parent / "mine").mkdir()
    (suite.parent / "mine" / "x.yaml").symlink_to(tmp_path / "other.yaml")
    with pytest.raises(SuiteError, match="allow-outside"):
        load_suite(suite)


def test_what_lies_below_and_what_ships_is_included_from_anywhere(tmp_path: Path) -> None:
    written(tmp_path / "below" / "other.yaml")
    text = f"title: t\nreplicates: 1\ninclude: [below/other.yaml, {shipped_suites() / 'lenet-mnist.yaml'}]\n"
    assert len(load_suite(written(tmp_path / "suite.yaml", text)).pairs) == 2


@pytest.mark.parametrize(
    ("change", "to", "fault"),
    [
        ("replicates: 1", "replicates: 1000000000", "replicates"),
        ("num_train: 300", f"num_train: 300, classes: [{', '.join(['0-99999'] * 10_000)}]", "classes"),
        ("[0it, 1ep2it]", "[0it, 1it, 2it, 3it, 4it, 5it, 6it, 7it], children: 100", r"\d+,\d+ tasks"),
    ],
    ids=["replicates", "classes", "tasks"],
)
def test_what_cannot_be_planned_is_refused_early_with_its_number(
    change: str, to: str, fault: str, tmp_path: Path
) -> None:
    text = TINY.replace(change, to)
    text = text if change.startswith("replicates") else text.replace("replicates: 1", "replicates: 1000")
    begun = time.process_time()
    with pytest.raises(SuiteError, match=fault):
        make_plan(load_suite(written(tmp_path / "suite.yaml", text)))
    assert time.process_time() - begun < 20, "the 10^9 tasks are not made first"


def test_too_many_arms_are_refused_before_each_is_looked_at(tmp_path: Path) -> None:
    arms = "\n".join(f"      a{number}: {{}}" for number in range(500))
    text = TINY.replace("      early: {}", f"      early: {{}}\n{arms}").replace("replicates: 1", "replicates: 1000")
    with pytest.raises(SuiteError, match=r"502,000 cells.*fewer of both"):
        load_suite(written(tmp_path / "suite.yaml", text))


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1), (3, 301)])
def test_an_image_that_resizing_would_make_huge_is_refused(size: tuple[int, int], tmp_path: Path) -> None:
    Image.new("RGB", size).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png has .* pixels, which is not a photograph; replace it"):
        decode("tinyimagenet", tmp_path / "x.png", 64)


def test_a_narrow_image_is_resized_as_before(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 200, 3), np.uint8)).save(tmp_path / "x.png")
    assert decode("tinyimagenet", tmp_path / "x.png", 64).shape == (64, 64, 3)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # as if it were that much larger
    with pytest.raises(DataError, match=r"x\.png is not a complete"):
        decode("tinyimagenet", tmp_path / "x.png", 64)


@pytest.mark.parametrize("text", ["a: &a [1]\nb: *a\n", "a: &a {x: [y, y]}\nb: [*a, *a]\n", "<<: {a: 1}\n"])
def test_anchors_multiply_nothing(text: str, tmp_path: Path) -> None:
    with pytest.raises(SuiteError):
        load_suite(written(tmp_path / "suite.yaml", text))
