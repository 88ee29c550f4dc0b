import math

import pytest
import torch

from lthbench.training.distance import learning_distance


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


def test_a_layer_without_survivors_has_distance_zero() -> None:
    w = {"w": torch.ones(3)}
    found = learning_distance(w, {"w": torch.zeros(3)}, {"w": torch.zeros(3, dtype=torch.bool)}, ["w"])
    assert set(found.values()) == {0.0}


def test_distance_angle_does_not_depend_on_scale_but_the_raw_distance_does() -> None:
    a, b = {"w": torch.randn(99)}, {"w": torch.randn(99)}
    one = learning_distance(a, b, None, ["w"])
    ten = learning_distance({"w": 10 * a["w"]}, {"w": 10 * b["w"]}, None, ["w"])
    assert ten["distance_angle"] == pytest.approx(one["distance_angle"])
    assert ten["distance"] == pytest.approx(10 * one["distance"])
