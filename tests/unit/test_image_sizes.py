"""`image_size`: any data set at another size, antialiased, prepared once, another task; without it nothing changes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from lthbench.data import image_sizes, loading, prepare
from lthbench.data.error import DataError
from lthbench.data.images import unpack
from lthbench.data.spec import DATASETS, Augment, DataSpec
from lthbench.models.build import build
from lthbench.models.spec import MODELS, ModelSpec
from lthbench.suite.load import SuiteError, load_suite
from lthbench.suite.plan import make_plan

EMBEDDED = "fashion-mnist-10k"
COLOURS = np.random.default_rng(0).integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
GREY = np.random.default_rng(1).integers(0, 256, (60, 28, 28), dtype=np.uint8)


@pytest.fixture(autouse=True)
def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty images of noise stand for the files of every data set; chunks have four."""

    def read_split(name: str, root: Path | None, split: str, class_list: str | None = None) -> object:
        images = COLOURS if DATASETS[name].image_shape[0] == 3 else GREY
        return (images if split == "train" else images[::-1][:20]), np.arange(60 if split == "train" else 20) % 10

    monkeypatch.setattr(image_sizes, "read_split", read_split)
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 4 * 4 * 16 * 16)
    loading._load.cache_clear()


def reference(images: np.ndarray, side: int) -> np.ndarray:
    """Torch's antialiased bilinear, in floating point: [N, C, side, side]."""
    levels = torch.from_numpy(images.astype(np.float64))
    levels = levels[:, None] if images.ndim == 3 else levels
    return functional.interpolate(levels, (side, side), mode="bilinear", antialias=True, align_corners=False).numpy()


@pytest.mark.parametrize(("name", "images"), [("cifar10", COLOURS), ("fashion-mnist", GREY), (EMBEDDED, GREY)])
@pytest.mark.parametrize("side", [8, 16, 40])
def test_the_pixels_are_those_of_an_antialiased_reference(
    name: str, images: np.ndarray, side: int, tmp_path: Path
) -> None:
    for split, whole in (("train", images), ("test", images[::-1][:20])):
        pixels, labels = image_sizes.read_resized(name, tmp_path, split, side)
        found = unpack(torch.from_numpy(np.array(pixels))).permute(0, 3, 1, 2).numpy()
        assert np.abs(found - reference(whole, side)).max() <= 1.01, "levels, each of two passes rounded"
        assert labels.tolist() == (np.arange(len(whole)) % 10).tolist()
    nearest = images[..., :: images.shape[-1] // 8, :: images.shape[-1] // 8]
    assert side != 8 or np.abs(nearest[..., :8, :8].reshape(60, -1, 8, 8) - reference(images, 8)).max() > 50


def test_batches_have_the_size_and_the_usual_mean_and_deviation(tmp_path: Path) -> None:
    splits = loading.load(DataSpec(name="cifar10", image_size=16, validation=10), tmp_path)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (50, 10, 20)
    assert splits.train.batch(torch.arange(3)).shape == (3, 3, 16, 16)
    assert (splits.train.mean, splits.train.std) == (DATASETS["cifar10"].mean, DATASETS["cifar10"].std)
    moved = splits.train.batch(torch.arange(3), Augment(crop=2, flip=True), np.random.default_rng(0))
    assert moved.shape == (3, 3, 16, 16)


def test_resized_images_are_written_once_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = image_sizes.read_resized("cifar10", tmp_path, "train", 16)
    folder = tmp_path / "prepared" / "cifar10-16px"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["train"]["chunks_sha256"]) == 15 and manifest["side"] == 16
    monkeypatch.setattr(image_sizes, "_resized", None)  # never called again
    again, _ = image_sizes.read_resized("cifar10", tmp_path, "train", 16)
    assert np.array_equal(first, again) and isinstance(again.base, np.memmap)


def test_a_killed_preparation_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = image_sizes.read_resized("cifar10", tmp_path / "whole", "train", 16)
    real, calls = image_sizes._resized, [0]

    def killed(pixels: np.ndarray, side: int) -> np.ndarray:
        calls[0] += 1
        if calls[0] == 8:
            raise KeyboardInterrupt
        return real(pixels, side)

    monkeypatch.setattr(image_sizes, "_resized", killed)
    monkeypatch.setattr(prepare.os, "cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        image_sizes.read_resized("cifar10", tmp_path / "killed", "train", 16)
    folder = tmp_path / "killed" / "prepared" / "cifar10-16px"
    assert not folder.exists()
    before = calls[0]
    pixels, _ = image_sizes.read_resized("cifar10", tmp_path / "killed", "train", 16)
    assert calls[0] - before <= 20 - 7 and np.array_equal(whole, pixels), (
        "the seven chunks of before are not done again"
    )


def test_what_is_damaged_or_made_of_other_images_is_refused_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_sizes.read_resized("cifar10", tmp_path, "train", 16)
    folder = tmp_path / "prepared" / "cifar10-16px"
    monkeypatch.setattr(image_sizes, "_identity", lambda *_: "another")
    with pytest.raises(DataError, match=rf"cifar10: {folder} was made of other images; delete it"):
        image_sizes.read_resized("cifar10", tmp_path, "train", 16)
    monkeypatch.undo()
    content = bytearray((folder / "train.npy").read_bytes())
    content[-3] ^= 1
    (folder / "train.npy").write_bytes(content)
    with pytest.raises(DataError, match=rf"of {folder / 'train.npy'} differ from their checksum.*; delete {folder}"):
        image_sizes.read_resized("cifar10", tmp_path, "train", 16)


def test_a_folder_that_cannot_be_written_to_gives_the_same_pixels(tmp_path: Path) -> None:
    kept, _ = image_sizes.read_resized("cifar10", tmp_path, "train", 16)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "prepared").write_text("a file, where the folder would be")
    assert np.array_equal(image_sizes.read_resized("cifar10", tmp_path / "other", "train", 16)[0], kept)


def test_images_that_stand_in_for_others_have_the_size_too(tmp_path: Path) -> None:
    spec = DataSpec(name=EMBEDDED, like="cifar10", image_size=16, num_train=10)
    assert spec.info.image_shape == (3, 16, 16)
    batch = loading.load(spec, tmp_path).train.batch(torch.arange(2))
    assert batch.shape == (2, 3, 16, 16)


def test_images_that_are_stored_larger_are_resized_in_proportion() -> None:
    info = DataSpec(name="imagenet100", image_size=112).info
    assert (info.image_shape, info.stored_side) == ((3, 112, 112), 128)
    assert DataSpec(name="tinyimagenet", image_size=32).info.stored_side == 32


def suite_with(tiny_suite: Path, data: str, model: str = "lenet-300-100, width: 10") -> Path:
    text = tiny_suite.read_text().replace("name: fashion-mnist-10k", data).replace("lenet-300-100, width: 10", model)
    tiny_suite.write_text(text)
    return tiny_suite


def test_keys_depend_on_the_size_and_without_one_are_those_of_before(tiny_suite: Path) -> None:
    original = tiny_suite.read_text()
    keys = [set(make_plan(load_suite(tiny_suite)).tasks)]
    for size in (14, 20):
        tiny_suite.write_text(original)
        keys.append(set(make_plan(load_suite(suite_with(tiny_suite, f"name: {EMBEDDED}, image_size: {size}"))).tasks))
    assert not keys[0] & keys[1] and not keys[0] & keys[2]
    trained = {key for plan in keys[1:] for key in plan}
    assert len(trained) == len(keys[1]) + len(keys[2])
    assert "image_size" not in DataSpec(name="cifar10").model_dump(exclude_defaults=True)
    assert "digest" not in DataSpec(name="cifar10").model_dump(exclude_defaults=True)


@pytest.mark.parametrize(
    ("data", "model", "fault"),
    [
        ("name: fashion-mnist-10k, image_size: 28", "lenet-300-100", r"images of 28 pixels; leave out image_size"),
        ("name: fashion-mnist-10k, image_size: 2", "lenet-300-100", r"image_size: expected a number of at least 4"),
        ("name: fashion-mnist-10k, image_size: 2.5", "lenet-300-100", r"image_size: "),
        ("name: cifar10, image_size: 8", "vgg11", r"model.name: vgg11 halves its input .* they are 8 x 8"),
    ],
)
def test_impossible_sizes_are_reported_with_file_and_key(data: str, model: str, fault: str, tiny_suite: Path) -> None:
    with pytest.raises(SuiteError, match=rf"{tiny_suite.name}:\d+: pairs.tiny.*{fault}"):
        load_suite(suite_with(tiny_suite, data, model))


@pytest.mark.parametrize("name", [name for name, info in MODELS.items() if info.family != "own"])
def test_a_model_takes_the_size_or_says_that_it_cannot(name: str) -> None:
    """None is planned whose network cannot be built for the images."""
    spec = ModelSpec(name=name)
    for side in (4, 20, 48):
        info = DataSpec(name="cifar10", image_size=side).info
        if any(spec.faults(info)):
            continue
        with torch.device("meta"):
            assert build(spec, info.image_shape, 10).eval()(torch.empty(1, *info.image_shape)).shape == (1, 10)


def test_unknown_sizes_are_refused_when_a_specification_is_made() -> None:
    for size in (0, 3, 1025, 32):
        with pytest.raises(ValidationError, match=r"image_size"):
            DataSpec(name="cifar10", image_size=size)
