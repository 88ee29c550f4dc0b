import math

import pytest
from pydantic import ValidationError

from lthbench.data.spec import DataSpec
from lthbench.training.recipe import SGD, Recipe, Schedule
from lthbench.training.steps import Steps


def test_warm_up_counts_from_zero_as_the_sources_of_the_recipes_do() -> None:
    # open_lth, training/optimizers.py: min(1.0, it / warmup_iters).
    schedule = Schedule(warmup=Steps.parse("4it"))
    assert [schedule.factor(t, 10, 5) for t in range(6)] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_the_step_schedule_drops_at_its_milestones_and_not_before() -> None:
    schedule = Schedule(name="step", milestones=(Steps.parse("1ep"), Steps.parse("1ep3it")), gamma=0.1)
    factors = [schedule.factor(t, 20, 5) for t in (0, 4, 5, 7, 8, 19)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_cosine_schedule_goes_from_one_to_nearly_zero_after_warm_up() -> None:
    schedule = Schedule(name="cosine", warmup=Steps.parse("2it"))
    assert schedule.factor(2, 12, 5) == 1
    assert schedule.factor(7, 12, 5) == pytest.approx(0.5)
    assert schedule.factor(11, 12, 5) == pytest.approx(0.5 * (1 + math.cos(0.9 * math.pi)))


def test_milestones_and_warm_up_may_be_shares_of_the_training() -> None:
    schedule = Schedule(name="step", warmup="10%", milestones=("50%",), gamma=0.1)
    assert [schedule.factor(t, 20, 5) for t in (0, 1, 2, 9, 10)] == pytest.approx([0, 0.5, 1, 1, 0.1])


def test_the_length_of_a_training_cannot_be_a_share() -> None:
    with pytest.raises(ValidationError, match="50% is a share of a training, not a length"):
        Recipe(steps="50%", batch_size=128, optimizer=SGD(name="sgd", lr=0.1))


def test_an_epoch_ends_with_a_smaller_batch_rather_than_dropping_images() -> None:
    recipe = Recipe(steps="1ep", batch_size=128, optimizer=SGD(name="sgd", lr=0.1))
    assert recipe.steps_per_epoch(50_000) == 391


def test_milestones_of_a_constant_schedule_are_refused() -> None:
    with pytest.raises(ValidationError, match="milestones are for the step schedule"):
        Schedule(milestones=("1ep",))


def test_nesterov_without_momentum_is_refused() -> None:
    with pytest.raises(ValidationError, match="nesterov needs a momentum"):
        SGD(name="sgd", lr=0.1, nesterov=True)


@pytest.mark.parametrize(
    ("changes", "num_images", "steps", "presented", "fewest"),
    [
        ({}, 65, 2, 65, 1),
        ({"drop_last": True}, 65, 1, 64, 64),
        ({"drop_last": True}, 40, 1, 40, 40),
        ({}, 128, 2, 128, 64),
        ({"steps": "1it"}, 65, 2, 65, 64),  # ends before the last batch of an epoch
        ({"micro_batch": 9}, 128, 2, 128, 1),
        ({"micro_batch": 16}, 128, 2, 128, 16),
    ],
)
def test_an_epoch_of_whole_batches_leaves_the_last_images_out(
    changes: dict[str, object], num_images: int, steps: int, presented: int, fewest: int
) -> None:
    base = {"steps": "3ep", "batch_size": 64, "optimizer": {"name": "sgd", "lr": 0.1}}
    recipe = Recipe.model_validate(base | changes)
    found = (recipe.steps_per_epoch(num_images), recipe.images_per_epoch(num_images), recipe.fewest_at_once(num_images))
    assert found == (steps, presented, fewest)


DATA = DataSpec(name="fashion-mnist-10k", num_train=100)  # 25 iterations an epoch


def recipe(**changes: object) -> Recipe:
    base = {"steps": "4ep", "batch_size": 4, "optimizer": {"name": "sgd", "lr": 0.1}}
    return Recipe.model_validate(base | changes)


@pytest.mark.parametrize(
    ("schedule", "place", "message"),
    [
        ({"name": "step", "milestones": ["99it"], "warmup": "4ep"}, None, None),
        ({"name": "step", "milestones": ["0it", "1it"]}, None, None),
        ({"name": "step", "milestones": ["1ep", "100it"]}, ("milestones", 1), "100it, iteration 100, never comes"),
        ({"name": "step", "milestones": ["5ep", "1ep"]}, ("milestones", 0), "5ep, iteration 125, never comes"),
        ({"name": "step", "milestones": ["1ep", "25it"]}, ("milestones", 1), "25it does not come after 1ep"),
        ({"name": "step", "milestones": ["2ep", "30%", "9ep"]}, ("milestones", 1), "30% does not come after 2ep"),
        ({"warmup": "101it"}, ("warmup",), "101it, 101 iterations, never ends: the training of 4ep has 100 iterations"),
    ],
)
def test_points_that_a_training_never_reaches_are_faults(
    schedule: dict[str, object], place: tuple[object, ...] | None, message: str | None
) -> None:
    faults = list(recipe(schedule=schedule).faults(DATA))
    assert len(faults) == (place is not None)
    for fault in faults:
        assert tuple(fault.path) == ("schedule", *(place or ())) and (message or "") in fault.message


def test_a_compressed_recipe_has_the_same_schedule_in_fewer_iterations() -> None:
    whole = recipe(schedule={"name": "step", "milestones": ["2ep", "50%"], "warmup": "10it"})
    half = whole.scaled(0.5, 25)
    assert str(half.steps) == "50it" and str(half.schedule.warmup) == "5it"
    assert list(map(str, half.schedule.milestones)) == ["25it", "50%"]
    assert whole.scaled(1.0, 25) == whole
    # Two epochs of 40 images are 20 iterations, a fifth of the recipe's own.
    assert str(whole.scaled_to(Steps.parse("2ep"), 25, 40).steps) == "20it"
    assert str(whole.scaled_to(Steps.parse("10%"), 25, 40).schedule.warmup) == "1it"


def test_a_recipe_that_is_written_is_read_back() -> None:
    one = recipe(schedule={"name": "step", "milestones": ["2ep", "3ep5it"], "gamma": 0.2}, micro_batch=3, ema=0.9)
    assert Recipe.model_validate_json(one.model_dump_json()) == one
    assert one.model_dump(mode="json")["steps"] == "4ep"
    with pytest.raises(ValidationError, match="is not a number of steps"):
        recipe(steps=4)
    with pytest.raises(ValidationError, match="0it is not a training"):
        recipe(steps="0it")
    with pytest.raises(ValidationError, match="micro_batch is 4, no smaller than the batch_size of 4"):
        recipe(micro_batch=4)


def test_a_cosine_without_anything_after_its_warm_up_stays_at_its_height() -> None:
    schedule = Schedule(name="cosine", warmup=Steps.parse("5it"))
    assert [schedule.factor(t, 5, 5) for t in (0, 4, 5)] == [0, 0.8, 1]
    assert Schedule(name="cosine").factor(5, 10, 5) == pytest.approx(0.5)
