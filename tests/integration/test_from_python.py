"""The package as it is used from a notebook: a suite run, its numbers as a table, a ticket taken out and trained."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY

import lthbench
from lthbench.api import OpenSuite
from lthbench.data.loading import load
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.ticket import TicketError


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> OpenSuite:
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "tiny.yaml").write_text(TINY)
    suite = lthbench.load_suite(folder / "tiny.yaml", store=folder / "store")
    lthbench.run(suite, lthbench.Subset(experiments=("imp", "controls")), where=lthbench.Local(workers=0))
    return suite


def test_a_run_tells_of_every_task_when_it_is_done(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    suite, told = lthbench.load_suite(tmp_path / "tiny.yaml", store=tmp_path / "store"), []
    part = lthbench.Subset(experiments=("imp",), arms=("early",), levels=1)
    ran = lthbench.run(suite, part, where=lthbench.Local(workers=0), on_finished=lambda *task: told.append(task))
    assert ran is not None and len(ran.outcome.ran) == len(told) == 3
    assert told[-1] == ("tiny early #0: train at level 1", "ok")


def test_the_numbers_are_a_table(suite: OpenSuite) -> None:
    table = lthbench.results(suite)
    assert len(table) == len(lthbench.api.result_rows(suite)) > 0
    assert (table.dtypes["level"], table.dtypes["value"], table.dtypes["is_selection"]) == ("Int64", "float64", "bool")
    wide = table.pivot_table("value", ["arm", "variant", "level", "replicate"], "metric")
    accuracy = wide.loc[("early", "ticket", 2, 0), "test_accuracy"]
    assert accuracy == lthbench.load_ticket(suite, "tiny", "early", 0, 2).metrics["test_accuracy"]


def test_a_table_without_numbers_has_its_columns(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    table = lthbench.results(lthbench.load_suite(tmp_path / "tiny.yaml", store=tmp_path / "store"))
    assert len(table) == 0 and {"pair", "metric", "value", "is_selection"} <= set(table.columns)


def test_a_ticket_is_trained_on_in_a_loop_of_ones_own(suite: OpenSuite) -> None:
    ticket = lthbench.load_ticket(suite, "tiny", "early", replicate=0, level=2)
    for name, mask in ticket.masks.items():
        start = ticket.model.get_parameter(name)
        assert torch.equal(start, ticket.initial[name] * mask) and ticket.initial[name][~mask].any()
        assert torch.equal(ticket.trained[name], ticket.trained[name] * mask)
    masks = {ticket.model.get_parameter(name): mask for name, mask in ticket.masks.items()}
    optimizer = lthbench.MaskedSGD(ticket.model.parameters(), lr=0.05, momentum=0.9, masks=masks)
    images = next(load(ticket.spec.data, None).train.batches(256))
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(ticket.model(images[0]), images[1])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(not parameter[~mask].any() for parameter, mask in masks.items())


def test_level_0_is_the_dense_network_and_a_rewound_ticket_starts_from_its_step(
    tiny_run: tuple[object, lthbench.api.Store],
) -> None:
    root = tiny_run[1].root
    suite = lthbench.load_suite(root.parent / "tiny.yaml", store=root)
    assert lthbench.load_ticket(suite, "tiny", "early", 0, 0).masks == {}
    whole, rewound = (lthbench.load_ticket(suite, "tiny", "early", 0, 2, rewind=k) for k in (0, 5))
    assert not torch.equal(whole.initial["fc1.weight"], rewound.initial["fc1.weight"])
    mask = rewound.masks["fc1.weight"]
    assert torch.equal(rewound.model.get_parameter("fc1.weight"), rewound.initial["fc1.weight"] * mask)


@pytest.mark.parametrize(
    ("of", "error", "message"),
    [
        (("tinny", "early", 0, 1), SuiteError, "no pair is called 'tinny'; did you mean 'tiny'"),
        (("tiny", "erly", 0, 1), SuiteError, "pair tiny: no arm is called 'erly'; did you mean 'early'"),
        (("tiny", "early", 1, 1), SuiteError, "replicate 1: the suite has 1; give 0 to 0"),
        (("tiny", "early", 0, -1), SuiteError, "level -1: a ticket is of level 0"),
        (("tiny", "early", 0, 9), SuiteError, "no experiment of pair tiny .* arm early; it has levels 0, 1, 2, 0 r"),
    ],
)
def test_a_ticket_that_is_not_there_is_told_with_its_cure(
    of: tuple[str, str, int, int], error: type[Exception], message: str, suite: OpenSuite
) -> None:
    with pytest.raises(error, match=message):
        lthbench.load_ticket(suite, *of)


def test_a_ticket_that_is_still_to_be_trained_is_told_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    suite = lthbench.load_suite(tmp_path / "tiny.yaml", store=tmp_path / "store")
    with pytest.raises(TicketError, match=r"store/tasks/../\w{32}: this training is not done; `lthbench run`"):
        lthbench.load_ticket(suite, "tiny", "early", 0, 2)


def test_a_script_without_a_guard_runs_in_workers_and_is_not_run_again_by_them(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "script.py").write_text(
        "import lthbench\n"
        "print('script begins', flush=True)\n"
        "part = lthbench.Subset(experiments=('imp',), arms=('early',), levels=0)\n"
        "ran = lthbench.run(lthbench.load_suite('tiny.yaml'), part, where=lthbench.Local(workers=1))\n"
        "print(len(ran.outcome.ran), ran.outcome.failed)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["script begins", "1 {}"], done.stderr
