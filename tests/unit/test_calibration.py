"""Calibrations: kept by device, read with care; and the hours that follow from them or from published peaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lthbench.data.spec import Augment
from lthbench.experiments import Cell
from lthbench.models.spec import ModelSpec
from lthbench.suite.calibration import (
    Calibration,
    CalibrationError,
    NetworkRate,
    TrainingRate,
    calibrations,
    read_calibration,
    save_calibration,
)
from lthbench.suite.devices import LAUNCH_SECONDS, NAMED, UTILISATION, Measured
from lthbench.suite.model_cost import model_cost
from lthbench.suite.work import Work, work_of
from lthbench.training.recipe import Recipe

LENET = ModelSpec(name="lenet-300-100")
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9}


def rate(images_per_second: float, **changes: object) -> TrainingRate:
    fields = {"model": LENET, "data": "mnist", "precision": "float32", "batch_size": 64, "augment": Augment()}
    return TrainingRate(**{**fields, **changes}, images_per_second=images_per_second, measured_batch=8)  # type: ignore[arg-type]


def calibration(**changes: object) -> Calibration:
    fields = {"device": "Some CPU", "kind": "cpu", "torch": "2.0", "threads": 2, "matmul": {"float32": 1e11}}
    return Calibration(**{**fields, **changes})  # type: ignore[arg-type]


def test_kept_rates_are_read_back_and_added_to(own_cache: Path) -> None:
    network = NetworkRate(model=LENET, data="mnist", evaluation=10, line=20)
    path = save_calibration(calibration(trainings=(rate(1), rate(2, batch_size=128)), networks=(network,)))
    assert path.is_relative_to(own_cache)
    assert save_calibration(calibration(trainings=(rate(3), rate(4, data="cifar10")))) == path
    found = read_calibration(path)
    assert [r.images_per_second for r in found.trainings] == [3, 2, 4], "measured again, kept, new"
    assert found.networks == (network,)


def test_an_estimate_gives_way_to_a_timed_rate() -> None:
    save_calibration(calibration(trainings=(rate(1, estimated=True),)))
    found = read_calibration(save_calibration(calibration(trainings=(rate(2),))))
    assert [(r.images_per_second, r.estimated) for r in found.trainings] == [(2, False)]


def test_devices_threads_and_versions_are_kept_apart() -> None:
    for changes in ({}, {"threads": 1}, {"device": "Some GPU", "kind": "cuda"}, {"torch": "2.1"}):
        save_calibration(calibration(**changes))
    assert [c.label for c in calibrations("2.0")] == ["Some GPU", "Some CPU, 1 thread", "Some CPU, 2 threads"]
    assert [c.threads for c in calibrations("2.1")] == [2]
    assert calibrations("1.9") == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": 2}, "version"),
        ({"threads": 0}, "threads"),
        ({"matmul": {"float32": -1.0}}, "matmul.float32"),
        ({"matmul": {"float16": 1.0}}, "matmul"),
        ({"owner": "me"}, "owner"),
        ({"trainings": [{"model": {"name": "lenet"}}]}, "trainings.0"),
    ],
)
def test_a_file_that_is_no_calibration_is_named_with_its_fault_and_cure(change: dict[str, object], fault: str) -> None:
    path = save_calibration(calibration())
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CalibrationError) as raised:
        calibrations("2.0")
    message = str(raised.value)
    assert str(path) in message and fault in message and "delete it, then run" in message


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", '{"matmul": {"float32": NaN}}'])
def test_a_broken_file_is_refused(text: str) -> None:
    path = save_calibration(calibration())
    path.write_text(text)
    with pytest.raises(CalibrationError, match="is not a calibration"):
        read_calibration(path)


def test_the_nearest_rate_of_the_same_network_and_precision_is_taken() -> None:
    mixed = Augment(mixup=0.8)
    found = calibration(
        trainings=(
            rate(1),
            rate(2, batch_size=1024),
            rate(3, batch_size=1024, augment=mixed),
            rate(4, precision="bfloat16"),
            rate(5, data="cifar10"),
            rate(6, engine="blocked"),
        )
    )

    def images_per_second(
        batch_size: int, data: str = "mnist", model: ModelSpec = LENET, **how: object
    ) -> float | None:
        recipe = Recipe.model_validate({"steps": "1ep", "batch_size": batch_size, "optimizer": SGD, **how})
        nearest = found.training(model, data, recipe)
        return nearest and nearest.images_per_second

    assert images_per_second(16) == 1
    assert images_per_second(512) == 2
    assert images_per_second(2048, augment=mixed) == 3
    assert images_per_second(2048, augment=mixed, precision="bfloat16") == 4
    assert images_per_second(2048, engine="blocked") == 6, "an engine matters more than a batch size"
    assert images_per_second(64, "fashion-mnist") == 1, "images of the same shape"
    assert images_per_second(64, "cifar100") == 5
    assert images_per_second(64, "imagenet100") is None
    assert images_per_second(64, model=ModelSpec(name="resnet20")) is None


def test_measured_seconds_are_images_by_their_rates(cell: Cell) -> None:
    dense, line = cell.dense(), cell.line(cell.dense(), cell.train(noise=1), points=5)
    recipe = cell.recipe
    device = Measured(
        calibration(
            trainings=(rate(100, model=cell.model, data=cell.data.name, augment=recipe.augment),),
            networks=(NetworkRate(model=cell.model, data=cell.data.name, evaluation=1000, line=4000),),
        )
    )
    # 3 epochs of 300 images; 300 + 100 + 2,000 evaluated; a line of 5 points over 300 + 100 + 2,000.
    assert device.seconds(dense.spec, work_of(dense)) == pytest.approx(900 / 100 + 2400 / 1000)
    assert device.seconds(line.spec, work_of(line)) == pytest.approx(5 * 2400 / 4000)
    assert device.units == 2 and device.unit == "cpuh"
    assert Measured(calibration()).seconds(dense.spec, work_of(dense)) is None


@pytest.mark.parametrize("device", NAMED, ids=lambda device: device.label)
def test_calculated_seconds_are_flops_by_a_share_of_the_peak_and_say_so(device: Measured, cell: Cell) -> None:
    dense = cell.dense()
    forward = model_cost(cell.model, cell.data).forward_flops
    rate_ = UTILISATION * device.float32  # type: ignore[attr-defined]
    large, small = Work(steps=1, trained=10**9, evaluated=10**6), Work(steps=10**6, trained=10**6)
    assert device.seconds(dense.spec, large) == pytest.approx(forward * (3 * 10**9 + 10**6) / rate_)
    operators = 3 + 3  # three linear layers, two ReLU and a copy of the images in rows at most
    assert device.seconds(dense.spec, small) == pytest.approx(10**6 * 3 * operators * LAUNCH_SECONDS, rel=0.2)
    assert not device.is_measured and "calculated, not measured" in device.source


def test_rates_of_models_that_are_not_loaded_are_left_alone_and_kept(own_cache: Path) -> None:
    """Of a plugin's model, say, by a command without the plugin."""
    path = save_calibration(calibration(trainings=(rate(1),)))
    content = json.loads(path.read_text())
    own = {**content["trainings"][0], "model": {"name": "tiny-cnn"}}
    path.write_text(json.dumps({**content, "trainings": [*content["trainings"], own]}))
    assert [r.images_per_second for r in calibrations("2.0")[0].trainings] == [1]
    save_calibration(calibration(trainings=(rate(2),)))
    assert [r["model"]["name"] for r in json.loads(path.read_text())["trainings"]] == ["lenet-300-100", "tiny-cnn"]
