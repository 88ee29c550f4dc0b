import math

import pytest
import torch

from lthbench.training.learning_distance import learning_distance, top_overlap


def test_distances_of_a_known_move() -> None:
    start = {"w": torch.tensor([3.0, 4.0, 100.0]), "bias": torch.tensor([1.0])}
    end = {"w": torch.tensor([4.0, -3.0, -7.0]), "bias": torch.tensor([9.0])}
    mask = {"w": torch.tensor([True, True, False])}
    found = learning_distance(start, end, mask, ["w"])
    assert found["distance"] == pytest.approx(math.sqrt(50))
    assert found["distance_rms"] == pytest.approx(5)
    assert found["distance_relative"] == pytest.approx(math.sqrt(2))
    assert found["distance_angle"] == pytest.approx(1)  # a right angle


def test_weights_that_did_not_move_have_distance_zero() -> None:
    w = {"w": torch.randn(50)}
    assert learning_distance(w, w, None, ["w"]) == pytest.approx(
        {"distance": 0, "distance_rms": 0, "distance_relative": 0, "distance_angle": 0}, abs=1e-7
    )


def test_without_weights_there_is_no_distance_and_from_zero_neither_a_relative_one_nor_an_angle() -> None:
    w, nothing = {"w": torch.ones(3)}, {"w": torch.zeros(3, dtype=torch.bool)}
    assert learning_distance(w, {"w": torch.zeros(3)}, nothing, ["w"]) == {}
    assert learning_distance({"w": torch.zeros(4)}, {"w": torch.ones(4)}, None, ["w"]) == {
        "distance": 2,
        "distance_rms": 1,
    }


def test_an_empty_layer_changes_no_distance_of_the_others() -> None:
    start, end = ({"a": torch.randn(9), "b": torch.randn(9)} for _ in range(2))
    mask = {"b": torch.zeros(9, dtype=torch.bool)}
    assert learning_distance(start, end, mask, ["a", "b"]) == learning_distance(start, end, None, ["a"])


@pytest.mark.parametrize(("survivors", "found"), [(0, None), (1, None), (2, None), (3, 1), (10, 1)])
def test_the_largest_fifth_of_too_few_weights_has_no_overlap(survivors: int, found: float | None) -> None:
    w, mask = torch.arange(1.0, 21), torch.arange(20) < survivors
    assert top_overlap(w, w, mask) == found
    if found:
        assert top_overlap(w, -w.flip(0), torch.ones(20, dtype=torch.bool)) == 0


def test_distance_angle_does_not_depend_on_scale_but_the_raw_distance_does() -> None:
    a, b = {"w": torch.randn(99)}, {"w": torch.randn(99)}
    one = learning_distance(a, b, None, ["w"])
    ten = learning_distance({"w": 10 * a["w"]}, {"w": 10 * b["w"]}, None, ["w"])
    assert ten["distance_angle"] == pytest.approx(one["distance_angle"])
    assert ten["distance"] == pytest.approx(10 * one["distance"])


def test_the_angle_to_the_same_direction_is_0_and_to_the_opposite_one_2_however_the_cosine_is_rounded() -> None:
    chance = torch.Generator().manual_seed(0)
    cosines = set()
    for _ in range(50):
        w = torch.rand(3, generator=chance, dtype=torch.float64)
        a, b = {"w": w}, {"w": w * 3}
        cosines.add(float(torch.dot(w, 3 * w)) / math.sqrt(float(w.square().sum()) * float((3 * w).square().sum())))
        assert learning_distance(a, b, None, ["w"])["distance_angle"] == pytest.approx(0, abs=1e-7)
        assert learning_distance(a, {"w": -3 * w}, None, ["w"])["distance_angle"] == pytest.approx(2)
    assert max(cosines) > 1, "some cosines are rounded up"


def test_overlap_is_the_share_of_the_largest_fifth_among_survivors() -> None:
    before = torch.tensor([9.0, -8, 7, 6, 1, 1, 1, 1, 1, 1, 99])
    after = torch.tensor([9.0, 0, -7, 1, 1, 1, 1, 1, 1, 1, 0])
    survivors = torch.arange(11) < 10
    assert top_overlap(before, after, survivors) == 1 / 2
    assert top_overlap(before, after, None) == 0.5
