"""What `import lthbench` offers: cheap, documented by examples that run, and clear about what it is given wrongly."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lthbench

# A module is looked for by `doctest` in what it defines itself.
WITH_EXAMPLES = ("MaskedSGD", "MaskedAdamW", "prune_lowest", "evaluate_linear_path")


def test_importing_the_package_loads_nothing_but_itself() -> None:
    code = "import sys, lthbench; print([m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'pydantic')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    for name in lthbench.__all__:
        assert name in dir(lthbench)
        assert getattr(lthbench, name).__doc__
    with pytest.raises(AttributeError, match=r"no attribute 'load_tickets'; it has .*load_ticket"):
        _ = lthbench.load_tickets  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_run_as_they_stand(name: str) -> None:
    found = doctest.DocTestFinder(recurse=False).find(getattr(lthbench, name), name, globs={})
    assert [len(test.examples) > 3 for test in found] == [True]
    torch.manual_seed(0)
    assert doctest.DocTestRunner().run(found[0]).failed == 0


def layer() -> nn.Linear:
    return nn.Linear(4, 3, bias=False)


WRONG_MASKS: list[tuple[Callable[[Tensor], Any], type[Exception], str]] = [
    (lambda w: [w > 0], TypeError, r"masks is a list; give a dictionary, parameter -> tensor"),
    (lambda w: w > 0, TypeError, r"masks is one tensor of shape \(3, 4\); give a dictionary"),
    (lambda w: {"weight": w > 0}, TypeError, r"masks has the name 'weight' in place of the parameter; give \{model"),
    (lambda w: {0: w > 0}, TypeError, r"masks has a int in place of a parameter"),
    (lambda w: {w: [[True] * 4] * 3}, TypeError, r"masks holds a list for a parameter of \(3, 4\)"),
    (lambda w: {w: torch.ones(3, 4)}, ValueError, r"masks holds torch.float32 .* expected torch.bool"),
    (lambda w: {w: torch.ones(4, 3, dtype=torch.bool)}, ValueError, r"masks holds \(4, 3\)"),
    (lambda w: {w: torch.ones(3, 4, dtype=torch.bool, device="meta")}, ValueError, r"masks holds .* on meta"),
    (
        lambda w: {torch.ones(3, 4): w > 0},
        ValueError,
        r"masks names a tensor of shape \(3, 4\) that is not a parameter",
    ),
]


@pytest.mark.parametrize("optimizer", [lthbench.MaskedSGD, lthbench.MaskedAdamW])
@pytest.mark.parametrize(("masks", "error", "message"), WRONG_MASKS)
def test_masks_of_another_form_are_refused_with_the_form_to_give(
    masks: Callable[[Tensor], Any], error: type[Exception], message: str, optimizer: Callable[..., Any]
) -> None:
    weight = layer().weight
    with pytest.raises(error, match=message):
        optimizer([weight], lr=0.1, masks=masks(weight))


def test_anchors_of_another_form_are_refused_by_their_own_name() -> None:
    weight = layer().weight
    with pytest.raises(TypeError, match="anchors has the name 'weight' in place of the parameter"):
        lthbench.MaskedSGD([weight], lr=0.1, anchors={"weight": weight.detach().clone()})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("scores", "masks", "message"),
    [
        (torch.ones(2), [torch.ones(2) > 0], r"scores is one tensor of shape \(2,\); give a list"),
        ([torch.ones(2)], torch.ones(2) > 0, r"masks is one tensor of shape \(2,\); give a list"),
        ([torch.ones(2)], {"w": torch.ones(2) > 0}, r"masks is a dict; .* as list\(masks.values\(\)\)"),
        (["w"], [torch.ones(2) > 0], r"scores\[0\] is a str"),
    ],
)
def test_pruning_names_the_argument_that_is_no_list_of_tensors(scores: Any, masks: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        lthbench.prune_lowest(scores, masks, 1)


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([torch.ones(3, 4) > 0], TypeError, "mask is a list; give a dictionary, name -> tensor"),
        (torch.ones(3, 4) > 0, TypeError, "mask is a Tensor; give"),
        ({torch.ones(3, 4): torch.ones(3, 4) > 0}, TypeError, "mask has a Tensor in place of a name"),
        ({"weight": True}, TypeError, "mask holds a bool for weight"),
        ({"weight": torch.ones(3, 4)}, ValueError, "mask holds torch.float32"),
        ({"weight": torch.ones(3, 4, dtype=torch.bool, device="meta")}, ValueError, "mask lies on meta for weight"),
    ],
)
def test_a_path_names_its_mask_where_that_has_another_form(mask: Any, error: type[Exception], message: str) -> None:
    state = layer().state_dict()
    with pytest.raises(error, match=message):
        lthbench.evaluate_linear_path(layer(), state, state, [0.0], [(torch.ones(1, 4), torch.zeros(1).long())],
                                      mask=mask)  # fmt: skip
