"""Tickets taken out of a store: plain torch reads them by the lines that `--help` shows, as the same network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import Call
from safetensors import safe_open
from torch import nn

from lthbench.cli import main
from lthbench.data.loading import load
from lthbench.data.spec import DataSpec
from lthbench.suite.plan import Plan
from lthbench.tasks.store import Store
from lthbench.tasks.ticket import AFTER_EACH_STEP, IN_PLAIN_TORCH

OF_LEVEL_2 = ("--pair", "tiny", "--arm", "early", "--level", 2)


@pytest.fixture
def call(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Calls a command in an empty folder; its code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    return call


@pytest.fixture
def suite(tiny_run: tuple[Plan, Store]) -> tuple[object, ...]:
    """A suite that has run, as the words of a command."""
    root = tiny_run[1].root
    return root.parent / "tiny.yaml", "--store", root


class MyLeNet(nn.Module):
    """A network of nobody's but the reader's, with the names that the file has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc = nn.Linear(784, 30), nn.Linear(30, 10), nn.Linear(10, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


def test_five_lines_of_plain_torch_load_a_ticket_that_trains_and_stays_pruned(
    call: Call, suite: tuple[object, ...]
) -> None:
    code, out, err = call("ticket", "export", *suite, *OF_LEVEL_2, "--out", "ticket.safetensors")
    assert (code, err) == (0, "") and "level 2, 41.07 % of 23,920 weights" in out
    assert "lenet-300-100 for images of 1 x 28 x 28 and 10 classes" in out
    names: dict[str, Any] = {"model": MyLeNet()}
    exec(IN_PLAIN_TORCH, names)
    model, masks, trained = names["model"], names["masks"], names["trained"]
    assert all(mask.dtype == torch.bool for mask in masks.values()) and set(masks) < set(dict(model.named_parameters()))
    with safe_open("ticket.safetensors", "pt") as file:
        note = json.loads(file.metadata()["ticket"])
    splits = load(DataSpec(**note["data"]), None)
    mean, std = (torch.tensor(note["images"][name]).reshape(-1, 1, 1) for name in ("mean", "std"))
    pixels, labels = splits.train.pixels[splits.train.rows][:, None] / 255, splits.train.labels
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    before = F.cross_entropy(model((pixels - mean) / std), labels).item()
    for _ in range(10):
        optimizer.zero_grad()
        F.cross_entropy(model((pixels - mean) / std), labels).backward()
        optimizer.step()
        exec(AFTER_EACH_STEP, names)
        assert all(not model.get_parameter(name)[~mask].any() for name, mask in masks.items())
    assert F.cross_entropy(model((pixels - mean) / std), labels).item() < before

    model.load_state_dict(trained)
    test = (splits.test.pixels[:, None] / 255 - mean) / std
    accuracy = (model(test).argmax(1) == splits.test.labels).float().mean().item()
    assert accuracy == pytest.approx(note["metrics"]["test_accuracy"], abs=1 / len(test))


def test_the_help_shows_the_very_lines_that_load_a_ticket(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["lthbench", "ticket", "export", "--help"])
    with pytest.raises(SystemExit):
        main()
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert len(IN_PLAIN_TORCH.splitlines()) == 5
    assert {*IN_PLAIN_TORCH.splitlines(), AFTER_EACH_STEP} <= set(shown)


def test_a_file_is_the_same_whenever_it_is_written(call: Call, suite: tuple[object, ...], tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert call("ticket", "export", *suite, *OF_LEVEL_2, "--out", name)[0] == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_dense_network_is_a_ticket_without_masks(call: Call, suite: tuple[object, ...]) -> None:
    words = ("--pair", "tiny", "--arm", "late", "--level", 0, "--out", "ticket.safetensors")
    assert "level 0, dense; test accuracy" in call("ticket", "export", *suite, *words)[1]
    names: dict[str, Any] = {"model": MyLeNet()}
    exec(IN_PLAIN_TORCH, names)
    assert names["masks"] == {} and not torch.equal(names["initial"]["fc.weight"], names["trained"]["fc.weight"])


def test_an_export_that_cannot_be_made_leaves_no_file(call: Call, suite: tuple[object, ...], tmp_path: Path) -> None:
    words = ("--pair", "tiny", "--arm", "early", "--level", 3, "--out", "ticket.safetensors")
    code, _, err = call("ticket", "export", *suite, *words)
    assert code == 2 and "it has levels 0, 1, 2" in err
    assert list(tmp_path.iterdir()) == []
