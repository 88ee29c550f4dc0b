"""Time against density: where the blocked engine becomes the faster one is read off measured points."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from conftest import Call

from lthbench.bench import engine_speed
from lthbench.bench.engine_speed import DENSITIES, EnginePoint, Network, crossover


def points(*ratios: float | None) -> list[EnginePoint]:
    return [
        EnginePoint("resnet20", "evaluation", 128, density, 10.0, None if ratio is None else 10.0 / ratio)
        for density, ratio in zip(DENSITIES, ratios, strict=False)
    ]


def test_engines_cross_where_the_ratio_is_one_between_measured_densities() -> None:
    assert crossover(points(0.5, 2.0)) == pytest.approx(math.sqrt(0.5))
    assert crossover(points(1.5, 0.5, 0.5, 1.0, 2.0)) == pytest.approx(0.1), "faster at all densities below"
    assert crossover(points(1.1, 1.2, 1.3)) == 1.0
    assert crossover(points(2.0, 1.5, 0.9)) is None, "the sparsest one decides"
    assert crossover(points(None, None)) is None


def test_every_network_has_a_training_and_an_evaluation_line_over_all_densities(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"resnet8": Network("cifar10", 2), "lenet-300-100": Network("fashion-mnist", 2)}
    monkeypatch.setattr(engine_speed, "NETWORKS", tiny)
    monkeypatch.setattr(engine_speed, "LAYERS", ((4, 4, 3, 1, 16),))
    code, out, err = call("bench", "engine", "--rounds", "1", "--layers", "--json")
    assert code == 0, err
    found = json.loads(out)
    lines = {(row["network"], row["work"]) for row in found if row["network"] in tiny}
    assert lines == {(name, work) for name in tiny for work in ("training step", "evaluation")}
    assert all(row["torch_ms"] > 0 for row in found)
    for name, work in lines:
        assert [row["density"] for row in found if (row["network"], row["work"]) == (name, work)] == list(DENSITIES)
    timed = [row for row in found if (row["network"], row["work"]) != ("lenet-300-100", "evaluation")]
    assert all(row["ratio"] == row["torch_ms"] / row["blocked_ms"] for row in timed)
    assert all(row["ratio"] is None for row in found if row not in timed), "without convolutions it is torch's"
    assert any("Winograd" in row["network"] for row in found)


def test_the_table_names_processor_instruction_set_and_crossover(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine_speed, "network_points", lambda *given: iter([points(0.5, 2.0, 2.0, 3.0, 4.0, 5.0)]))
    code, out, err = call("bench", "engine", "--model", "resnet20")
    assert code == 0, err
    assert "0.71" in out and "1 thread" in out and "torch 2" in out
    code, _, err = call("bench", "engine", "--model", "resnet21")
    assert code == 2 and "resnet20" in err


def test_a_figure_shows_each_work_that_the_engine_applies_to(
    call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    works = [points(0.5, 2.0, 2.0, 3.0, 4.0, 5.0), points(*[None] * 6)]
    monkeypatch.setattr(engine_speed, "network_points", lambda *given: iter(works))
    code, out, err = call("bench", "engine", "--model", "resnet20", "--figure", tmp_path / "speed.svg", "--json")
    assert code == 0 and len(json.loads(out)) == 12, err
    drawn = (tmp_path / "speed.svg").read_text()
    assert drawn.count("resnet20: evaluation, batch of 128") == 1
    assert all(text in drawn for text in ("equally fast", "0.5x", "5x", "1 thread"))
    code, _, err = call("bench", "engine", "--model", "resnet20", "--figure", tmp_path / "speed.txt")
    assert code == 2 and ".png, .svg and .pdf" in err
