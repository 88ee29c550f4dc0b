"""Keys: what they depend on, what they do not, and literal keys, so that no change of the canonical form is silent."""

from __future__ import annotations

import json

import pytest

from lthbench.experiments import Cell
from lthbench.tasks.spec import MaskSpec, Pruning, Task, TrainSpec, num_survivors, parse_spec
from lthbench.training.recipe import SGD, Recipe


def training(**changes: object) -> Task:
    fields: dict[str, object] = {
        "model": {"name": "lenet-300-100"},
        "data": {"name": "mnist", "validation": 5000},
        "recipe": {"steps": "10ep", "batch_size": 60, "optimizer": {"name": "adamw", "lr": 1.2e-3}},
        "seed": 0,
    }
    return Task(TrainSpec(**{**fields, **changes}))  # type: ignore[arg-type]


def test_known_keys_are_pinned() -> None:
    # A literal that changes means that stored results are no longer found: raise SCHEMA_VERSION and say why.
    assert training().key == "30344d24a16415cf702f928426a9e0fa"
    assert training(seed=1, noise=2, init=1).key == "58a17268c1f667b033db8973f594be29"
    mask = MaskSpec(network={"task": "0" * 32}, level=3, pruning={"rate": 0.2, "rates": {"head": 0.1}})
    assert Task(mask).key == "d4026926ca0ddb001cdc45ce901513c5"


def test_values_written_out_as_their_defaults_change_no_key() -> None:
    written_out = training(noise=0, begin=0, mask=None, model={"name": "lenet-300-100", "width": None})
    assert written_out.key == training().key
    assert "noise" not in training().canonical


@pytest.mark.parametrize("change", [{"seed": 1}, {"noise": 1}, {"init": 1}, {"mask": "1" * 32}, {"begin": 5}])
def test_every_field_that_matters_changes_the_key(change: dict[str, object]) -> None:
    assert training(**change).key != training().key


def test_numbers_are_equal_however_they_are_written() -> None:
    a = Recipe(steps="1ep", batch_size=1, optimizer=SGD(name="sgd", lr=0.1, weight_decay=1e-4))
    b = Recipe.model_validate(
        {
            "steps": "1ep",
            "batch_size": 1,
            "optimizer": {"name": "sgd", "lr": "1e-1", "weight_decay": "0.0001"},
        }
    )
    assert training(recipe=a).key == training(recipe=b).key


def test_a_canonical_specification_is_read_back_to_the_same_key() -> None:
    task = training(noise=3)
    assert Task(parse_spec(task.canonical)).key == task.key


def test_a_specification_of_another_schema_version_is_refused() -> None:
    other = json.dumps({**json.loads(training().canonical), "schema": 0})
    with pytest.raises(ValueError, match="schema version 0"):
        parse_spec(other)


def test_step_zero_of_a_training_from_initialisation_is_the_initialisation(cell: Cell) -> None:
    assert cell.train(start=(cell.dense(), 0), noise=4).key == cell.train(noise=4).key
    assert cell.train(start=(cell.dense(), 1), noise=4).key != cell.train(noise=4).key


@pytest.mark.parametrize("total", [1, 7, 235_200, 266_200, 11_173_962])
def test_survivors_follow_the_power_law_to_the_nearest_weight_at_every_level(total: int) -> None:
    for level in range(40):
        assert abs(num_survivors(total, 0.2, level) - total * 4**level / 5**level) <= 0.5


def test_the_order_of_excluded_layers_does_not_matter() -> None:
    assert Pruning(exclude=("head", "stem")) == Pruning(exclude=("stem", "head", "stem"))
