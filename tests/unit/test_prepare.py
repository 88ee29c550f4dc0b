"""Prepared arrays are the decoded images, whatever the layout and however often preparing was killed."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import v2

from lthbench.data import loading, prepare, prepared
from lthbench.data.commands import check_data, list_data, prepare_data
from lthbench.data.error import DataError
from lthbench.data.image_folder import class_list_id, scan
from lthbench.data.images import unpack
from lthbench.data.spec import DATASETS, Augment, DataSpec
from lthbench.lease import Lease

NAME, SIDE = "tinyimagenet", 16
CLASSES = ["n01", "n02", "n03"]
ROOT = Path(os.environ.get("LTHBENCH_DATA", "/nonexistent"))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny-ImageNet of 3 classes with 5 + 2 images of 16 pixels, in chunks of 4 images."""
    info = dataclasses.replace(
        DATASETS[NAME], num_train=15, num_test=6, num_classes=3, image_shape=(3, SIDE, SIDE), stored_side=SIDE
    )
    monkeypatch.setitem(DATASETS, NAME, info)
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 4 * 4 * SIDE * SIDE)
    loading._load.cache_clear()
    yield
    loading._load.cache_clear()


def save(path: Path, seed: int, size: tuple[int, int] = (SIDE, SIDE), mode: str = "RGB") -> None:
    """A random JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, "JPEG")


def tree(root: Path, layout: str = "archive", classes: list[str] = CLASSES, folder: str | None = None) -> Path:
    """Write the images in one of the layouts; one train image is grey. Returns their folder."""
    base = root / (folder or DATASETS[NAME].folder)
    lines = []
    for label, c in enumerate(classes):
        inner = "" if layout == "flat" else "images"
        for i in range(5):
            save(
                base / "train" / c / inner / f"{c}_{i}.JPEG",
                10 * label + i,
                mode="L" if (label, i) == (1, 2) else "RGB",
            )
        for i in range(2):
            file = f"val_{2 * label + i}.JPEG"
            place = base / "val" / "images" if layout == "archive" else base / "val" / c / inner
            save(place / file, 100 + 10 * label + i)
            lines.append(f"{file}\t{c}\t0\t0\t10\t10\n")
    if layout == "archive":
        (base / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    return base


def decoded(files: list[tuple[Path, int]]) -> np.ndarray:
    """The images as Pillow decodes them."""
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file, _ in files])


def colours(pixels: np.ndarray) -> np.ndarray:
    return unpack(torch.from_numpy(np.array(pixels))).numpy()


@pytest.mark.parametrize("layout", ["archive", "flat", "nested"])
def test_the_prepared_arrays_equal_the_decoded_images_in_every_layout(tmp_path: Path, layout: str) -> None:
    tree(tmp_path, layout)
    found = scan(NAME, tmp_path)
    assert found.classes == CLASSES
    prepare.prepare(NAME, tmp_path, workers=2)
    for split, files in (("train", found.train), ("test", found.test)):
        pixels, labels = prepared.read_split(NAME, tmp_path, split)
        assert np.array_equal(colours(pixels), decoded(files))
        assert labels.tolist() == [label for _, label in files]
        assert all(CLASSES[label] in str(file) for file, label in files) or (split, layout) == ("test", "archive")
    assert np.bincount(prepared.read_split(NAME, tmp_path, "train")[1]).tolist() == [5, 5, 5]


def test_all_layouts_give_the_same_arrays(tmp_path: Path) -> None:
    arrays = []
    for layout in ("archive", "flat", "nested"):
        tree(tmp_path / layout, layout)
        folder = prepare.prepare(NAME, tmp_path / layout)
        arrays.append({file.name: file.read_bytes() for file in folder.iterdir()})
    assert set(arrays[0]) == {"manifest.json", "train.npy", "test.npy", "train_labels.npy", "test_labels.npy"}
    assert arrays[0] == arrays[1] == arrays[2]


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (33, 17), (8, 12)])
def test_other_sizes_are_resized_and_cut_as_torchvision_does(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path / "x.JPEG", 0, size)
    expected = v2.CenterCrop(SIDE)(v2.Resize(SIDE)(Image.open(tmp_path / "x.JPEG")))
    assert np.array_equal(prepare.decode(NAME, tmp_path / "x.JPEG", SIDE), np.asarray(expected))


def test_the_manifest_names_counts_classes_checksums_and_versions(tmp_path: Path) -> None:
    tree(tmp_path)
    manifest = json.loads((prepare.prepare(NAME, tmp_path) / "manifest.json").read_text())
    assert manifest["classes"] == CLASSES and manifest["version"] == prepare.VERSION
    assert [manifest[s]["count"] for s in ("train", "test")] == [15, 6]
    assert [len(manifest[s]["chunks_sha256"]) for s in ("train", "test")] == [4, 2]


def test_an_interrupted_preparation_goes_on_where_it_was_and_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for root in ("whole", "broken"):
        tree(tmp_path / root)
    whole = prepare.prepare(NAME, tmp_path / "whole")
    real, calls = prepare.decode, [0]

    def failing(name: str, file: Path, side: int) -> np.ndarray:
        calls[0] += 1
        if calls[0] == 11:
            raise KeyboardInterrupt
        return real(name, file, side)

    monkeypatch.setattr(prepare, "decode", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(NAME, tmp_path / "broken", workers=1)
    assert not prepare.folder_of(NAME, tmp_path / "broken").exists()
    with pytest.raises(DataError, match="not prepared yet"):
        prepared.read_split(NAME, tmp_path / "broken", "train")
    journal = tmp_path / "broken" / "prepared" / f"{NAME}.partial" / "journal.txt"
    journal.write_bytes(journal.read_bytes() + b"train 8 0123")  # a line cut off by the kill
    calls[0] = 100
    seen: list[tuple[int, int]] = []
    folder = prepare.prepare(NAME, tmp_path / "broken", on_progress=lambda done, total: seen.append((done, total)))
    kept = seen[0][0]
    assert 8 <= kept < 21 and seen[-1] == (21, 21), "two chunks of four were done before the fault"
    assert calls[0] - 100 == 21 - kept, "only what was missing is decoded"
    for file in whole.iterdir():
        assert (folder / file.name).read_bytes() == file.read_bytes()


def test_killed_with_sigkill_and_started_again_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    # The real process uses whole-size chunks of the real data set's form: only the kill is under test.
    if not (ROOT / "tiny-imagenet-20c").is_dir():
        pytest.skip(f"tinyimagenet-20c is not in LTHBENCH_DATA ({ROOT})")
    (tmp_path / "tiny-imagenet-20c").symlink_to(ROOT / "tiny-imagenet-20c")
    code = (
        "from pathlib import Path; from lthbench.data import prepare; prepare.CHUNK_BYTES = 1 << 20;"
        f"prepare.prepare('tinyimagenet-20c', Path({str(tmp_path)!r}), workers=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    journal = tmp_path / "prepared" / "tinyimagenet-20c.partial" / "journal.txt"
    deadline = time.monotonic() + 60
    while not (journal.is_file() and len(journal.read_text().split("\n")) > 5):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "prepared" / "tinyimagenet-20c").exists()
    subprocess.run([sys.executable, "-c", code], check=True)
    pixels, labels = prepared.read_split("tinyimagenet-20c", tmp_path, "train")
    files = scan("tinyimagenet-20c", tmp_path).train
    some = np.random.default_rng(0).integers(0, len(files), 200)
    assert np.array_equal(colours(pixels[some]), decoded([files[i] for i in some]))
    assert labels.tolist() == [label for _, label in files]


def test_other_images_start_the_preparation_afresh(tmp_path: Path) -> None:
    base = tree(tmp_path)
    partial = tmp_path / "prepared" / f"{NAME}.partial"
    partial.mkdir(parents=True)
    (partial / "journal.txt").write_text("another fingerprint\ntrain 0 " + "0" * 64 + "\n")
    (partial / "train.npy").write_bytes(b"rubbish")
    prepare.prepare(NAME, tmp_path)
    pixels, _ = prepared.read_split(NAME, tmp_path, "train", full=True)
    assert np.array_equal(colours(pixels[:1])[0], decoded([(base / "train/n01/images/n01_0.JPEG", 0)])[0])


def test_of_two_preparations_at_once_the_second_waits_and_takes_what_the_first_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path)
    (tmp_path / "prepared").mkdir()
    with concurrent.futures.ThreadPoolExecutor(1) as pool, Lease(tmp_path / "prepared" / f"{NAME}.lease"):
        second = pool.submit(prepare.prepare, NAME, tmp_path)
        with pytest.raises(concurrent.futures.TimeoutError):
            second.result(timeout=0.3)
        folder = tmp_path / "prepared" / NAME
        folder.mkdir()
        (folder / "manifest.json").write_text("of the first")
    assert second.result(timeout=100) == folder
    assert (folder / "manifest.json").read_text() == "of the first"
    assert [path.name for path in (tmp_path / "prepared").iterdir()] == [NAME]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_preparation_works_on_a_disk_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    for name in ("flock", "lockf", "fcntl"):
        monkeypatch.setattr(fcntl, name, refuse)
    tree(tmp_path)
    assert (prepare.prepare(NAME, tmp_path) / "manifest.json").is_file()


# What is wrong with the images is said before anything is written


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no folder", r"tiny-imagenet-200/train is missing"),
        ("no val", r"tiny-imagenet-200/val is missing"),
        ("no class", r"has 2 classes, expected 3"),
        ("empty class", r"has no image of n02"),
        ("too few", r"holds 14 images of 3 classes, expected 15"),
        ("too many", r"holds 16 images of 3 classes, expected 15"),
        ("no val image", r"val_3.JPEG is missing, expected the image that line 3"),
        ("annotation", r"val_annotations.txt, line 2: expected a file name and a class"),
    ],
)
def test_a_partial_tree_is_named(tmp_path: Path, damage: str, message: str) -> None:
    base = tree(tmp_path)
    train = base / "train" / "n02" / "images"
    match damage:
        case "no folder":
            shutil.rmtree(base)
        case "no val":
            shutil.rmtree(base / "val")
        case "no class":
            shutil.rmtree(base / "train" / "n02")
        case "empty class":
            for file in train.iterdir():
                file.unlink()
        case "too few":
            (train / "n02_0.JPEG").unlink()
        case "too many":
            shutil.copy(train / "n02_0.JPEG", train / "n02_9.JPEG")
        case "no val image":
            (base / "val" / "images" / "val_3.JPEG").unlink()
        case _:
            lines = (base / "val" / "val_annotations.txt").read_text().splitlines()
            lines[1] = "val_1.JPEG\tn99\t0"
            (base / "val" / "val_annotations.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        prepare.prepare(NAME, tmp_path)
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("content", ["truncated", "text", "empty", "gif"])
def test_a_broken_image_is_named_and_nothing_is_published(tmp_path: Path, content: str) -> None:
    file = tree(tmp_path) / "train" / "n03" / "images" / "n03_4.JPEG"
    if content == "gif":
        Image.new("RGB", (SIDE, SIDE)).save(file, "GIF")
    else:
        raw = file.read_bytes()
        file.write_bytes({"truncated": raw[: len(raw) // 2], "text": b"<html>not found</html>", "empty": b""}[content])
    with pytest.raises(DataError, match=rf"{file} is not a complete JPEG or PNG image .* replace it"):
        prepare.prepare(NAME, tmp_path)
    assert not prepare.folder_of(NAME, tmp_path).exists()


# What is wrong with prepared arrays is said before any training


def test_a_data_set_that_is_not_prepared_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"tiny-imagenet-200 is missing.*lthbench data prepare tinyimagenet"):
        loading.load(DataSpec(name=NAME), tmp_path)
    tree(tmp_path)
    with pytest.raises(DataError, match=r"is not prepared yet; run `lthbench data prepare tinyimagenet"):
        loading.load(DataSpec(name=NAME), tmp_path)


class Runs:
    """Unpickling this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("flipped byte", r"images 8 to 11 of .*train.npy differ from their checksum"),
        ("truncated", r"train.npy cannot be read"),
        ("other shape", r"train.npy holds uint8 \(15, 4\), expected uint8 \(15, 16, 16, 4\)"),
        ("pickle", r"train_labels.npy cannot be read"),
        ("label", r"train_labels.npy differs from its checksum"),
        ("missing", r"train.npy cannot be read"),
        ("manifest", r"manifest.json: "),
        ("manifest key", r"manifest.json: "),
        ("version", r"says version 0, expected 1"),
        ("count", r"has 14 train images, expected 15"),
    ],
)
def test_damage_to_prepared_arrays_is_named(tmp_path: Path, damage: str, message: str) -> None:
    tree(tmp_path)
    folder = prepare.prepare(NAME, tmp_path)
    train, labels, manifest = folder / "train.npy", folder / "train_labels.npy", folder / "manifest.json"
    content = json.loads(manifest.read_text())
    match damage:
        case "flipped byte":
            raw = bytearray(train.read_bytes())
            raw[-7 * 4 * SIDE * SIDE] ^= 1  # in image 8 of 15
            train.write_bytes(raw)
        case "truncated":
            train.write_bytes(train.read_bytes()[:-100])
        case "other shape":
            np.save(train, np.zeros((15, 4), np.uint8))
        case "pickle":
            np.save(labels, np.array([Runs(tmp_path / "ran")] * 15, object), allow_pickle=True)
        case "label":
            np.save(labels, np.zeros(15, np.int64))
        case "missing":
            train.unlink()
        case "manifest":
            manifest.write_text("{")
        case "manifest key":
            del content["train"]["count"]
            manifest.write_text(json.dumps(content))
        case "version":
            manifest.write_text(json.dumps({**content, "version": 0}))
        case _:
            content["train"]["count"] = 14
            manifest.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as error:
        loading.load(DataSpec(name=NAME), tmp_path)
    assert f"delete {folder}, then run `lthbench data prepare" in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_large_arrays_are_verified_in_part_when_loaded_and_in_full_by_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 4 * SIDE * SIDE)  # 15 chunks of one image, of which 8 are verified
    monkeypatch.setattr(prepared, "FULL_CHECK_BYTES", 1)
    tree(tmp_path)
    train = prepare.prepare(NAME, tmp_path) / "train.npy"
    raw = bytearray(train.read_bytes())
    raw[-14 * 4 * SIDE * SIDE] ^= 1  # image 1
    train.write_bytes(raw)
    loading.load(DataSpec(name=NAME), tmp_path)
    assert "images 1 to 1 of" in (check_data(tmp_path, [NAME])[0].problem or "")


# Loading


def test_a_prepared_split_loads_as_views_of_the_mapped_file(tmp_path: Path) -> None:
    tree(tmp_path)
    prepare.prepare(NAME, tmp_path)
    splits = loading.load(DataSpec(name=NAME, validation=3), tmp_path)
    assert [len(s) for s in splits] == [12, 3, 6]
    assert splits.validation.labels.tolist() == [0, 1, 2]
    assert splits.train.pixels.data_ptr() == splits.validation.pixels.data_ptr()
    assert splits.train.rows is not None and splits.validation.rows is not None
    assert not set(splits.train.rows.tolist()) & set(splits.validation.rows.tolist())
    files = scan(NAME, tmp_path).train
    info = DATASETS[NAME]
    mean, std = (torch.tensor(c)[:, None, None] for c in (info.mean, info.std))
    batch = splits.train.batch(torch.arange(12)) * std + mean
    expected = torch.from_numpy(decoded([files[i] for i in splits.train.rows.tolist()])).permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(batch, expected, rtol=1e-5, atol=1e-6)


def test_images_prepared_larger_than_the_network_takes_them_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, NAME, dataclasses.replace(DATASETS[NAME], image_shape=(3, 12, 12)))
    tree(tmp_path)
    prepare.prepare(NAME, tmp_path)
    train = loading.load(DataSpec(name=NAME), tmp_path).train
    assert train.image_shape == (3, 12, 12)
    assert train.batch(torch.arange(4)).shape == (4, 3, 12, 12)
    augment = Augment(resized_crop=(0.08, 1.0), flip=True)
    assert train.batch(torch.arange(4), augment, np.random.default_rng(0)).shape == (4, 3, 12, 12)


def test_mapped_images_cannot_be_changed_on_disk(tmp_path: Path) -> None:
    tree(tmp_path)
    folder = prepare.prepare(NAME, tmp_path)
    before = (folder / "train.npy").read_bytes()
    loading.load(DataSpec(name=NAME), tmp_path).train.pixels.zero_()
    assert (folder / "train.npy").read_bytes() == before


def test_list_check_and_prepare_report_the_state(tmp_path: Path) -> None:
    def listed() -> object:
        return next(s for s in list_data(tmp_path) if s.name == NAME)

    assert listed().present is False and listed().problem is None  # type: ignore[attr-defined]
    tree(tmp_path)
    assert "is not prepared" in listed().problem  # type: ignore[attr-defined]
    status = prepare_data(NAME, tmp_path, workers=1)
    assert status.present and status.problem is None
    assert listed().present and listed().problem is None  # type: ignore[attr-defined]
    assert [s.problem for s in check_data(tmp_path, [NAME])] == [None]


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("cifar10", Path("x"), "needs no preparation"),
        ("tinyimagnet", Path("x"), "did you mean 'tinyimagenet'"),
        (NAME, None, "no data folder"),
    ],
)
def test_an_impossible_preparation_is_refused(
    name: str, root: Path | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    with pytest.raises(DataError, match=message):
        prepare_data(name, root)


# ImageNet-100 and its list of classes


LISTED = [f"n{i:08d}" for i in range(100, 200)]


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ImageNet tree of 102 classes with one image of 20 x 16 per class and split; returns the data folder."""
    info = dataclasses.replace(
        DATASETS["imagenet100"], num_train=100, num_test=100, image_shape=(3, 14, 14), stored_side=16
    )
    monkeypatch.setitem(DATASETS, "imagenet100", info)
    monkeypatch.setattr("lthbench.data.image_folder.CMC_ID", class_list_id(LISTED))
    monkeypatch.setattr("lthbench.data.prepared.CMC_ID", class_list_id(LISTED))
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "imagenet100.txt").write_text("\n".join(reversed(LISTED)))
    for i, c in enumerate([*LISTED, "n00000001", "n99999999"]):
        for split in ("train", "val"):
            save(tmp_path / "imagenet" / split / c / f"{c}_{split}.JPEG", i, (20, 16))
    return tmp_path


def test_imagenet_100_takes_the_listed_classes_of_an_imagenet_tree(imagenet: Path) -> None:
    prepare.prepare("imagenet100", imagenet)
    splits = loading.load(DataSpec(name="imagenet100"), imagenet)
    assert [len(s) for s in splits] == [100, 0, 100]
    assert splits.train.labels.tolist() == list(range(100))
    assert splits.train.image_shape == (3, 14, 14)
    manifest = json.loads((imagenet / "prepared" / "imagenet100" / "manifest.json").read_text())
    assert manifest["class_list"] == class_list_id(LISTED) and manifest["classes"] == LISTED


def test_imagenet_100_is_refused_without_its_list_or_with_another_in_its_place(imagenet: Path) -> None:
    listed = imagenet / "imagenet" / "imagenet100.txt"
    listed.write_text("\n".join([*LISTED[1:], "n99999999"]))
    with pytest.raises(DataError, match="holds other classes"):
        prepare.prepare("imagenet100", imagenet)
    listed.unlink()
    with pytest.raises(DataError, match=r"imagenet100\.txt is missing"):
        prepare.prepare("imagenet100", imagenet)


def test_another_list_of_classes_is_prepared_beside_it_and_named_in_the_spec(imagenet: Path) -> None:
    classes = [*LISTED[1:], "n99999999"]
    (imagenet / "mine.txt").write_text("\n".join(classes))
    status = prepare_data("imagenet100", imagenet, class_list=imagenet / "mine.txt")
    chosen = class_list_id(classes)
    assert status.path == str(imagenet / "prepared" / f"imagenet100-{chosen}") and chosen in status.images
    spec = DataSpec(name="imagenet100", class_list=chosen, num_train=90)
    assert len(loading.load(spec, imagenet).train) == 90
    with pytest.raises(DataError, match="too few for validation 0 and num_train 1000"):
        loading.load(DataSpec(name="imagenet100", class_list=chosen, num_train=1000), imagenet)
    with pytest.raises(DataError, match="is not prepared yet"):
        loading.load(DataSpec(name="imagenet100"), imagenet)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["n00000001"] * 100, "has 1 different classes on 100 lines, expected 100"),
        (["n00000001"], "has 1 different classes"),
        ([f"n{i}" for i in range(100)], "is missing, expected 100 classes"),
    ],
)
def test_a_wrong_list_of_classes_is_refused(imagenet: Path, lines: list[str], message: str) -> None:
    (imagenet / "mine.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        prepare.prepare("imagenet100", imagenet, class_list=imagenet / "mine.txt")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "cifar10", "class_list": "01234567", "num_train": 5}, "no choice of classes"),
        ({"name": "imagenet100", "class_list": "01234567"}, "num_train must be given"),
        ({"name": "imagenet100", "class_list": "mine.txt", "num_train": 5}, "eight hex digits"),
    ],
)
def test_a_class_list_in_the_wrong_place_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSpec.model_validate(fields)
