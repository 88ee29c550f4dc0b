"""Data sets are the originals or an error; splits are disjoint and fixed; nothing that is read can run."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lthbench.data import cifar, idx, loading, reading, sheets
from lthbench.data.commands import check_data, download_data, list_data
from lthbench.data.images import unpack
from lthbench.data.loading import DataError
from lthbench.data.spec import DATASETS, DataSpec, num_train_images

EMBEDDED = DataSpec(name="fashion-mnist-10k")
ROOT = Path(os.environ.get("LTHBENCH_DATA", "/nonexistent"))


def original(name: str) -> Path:
    """The data folder, or a skip where it lacks data set `name`."""
    if not (ROOT / DATASETS[name].folder).is_dir():
        pytest.skip(f"{name} is not in LTHBENCH_DATA ({ROOT})")
    return ROOT


@pytest.fixture(autouse=True)
def _fresh_cache() -> Iterator[None]:
    loading._load.cache_clear()
    yield
    loading._load.cache_clear()


# The embedded default


def test_the_embedded_images_are_balanced_and_complete() -> None:
    splits = loading.load(EMBEDDED)
    assert splits.train.labels.bincount().tolist() == [1000] * 10
    assert splits.test.labels.bincount().tolist() == [200] * 10
    assert splits.train.pixels.shape == (10_000, 28, 28) and splits.train.pixels.dtype == torch.uint8
    assert len(splits.validation) == 0


def test_the_embedded_folder_ships_its_licence_and_stays_under_five_megabytes() -> None:
    files = list(sheets.FOLDER.iterdir())
    assert "Zalando SE" in (sheets.FOLDER / "LICENSE.fashion-mnist").read_text()
    assert sum(f.stat().st_size for f in files) <= 5_000_000
    assert max(f.stat().st_size for f in files) <= 1_500_000


@pytest.mark.parametrize(("split", "per_class"), [("train", 1000), ("test", 200)])
def test_the_embedded_images_are_the_originals_first_of_each_class(split: str, per_class: int) -> None:
    images, labels = idx.read_split("fashion-mnist", original("fashion-mnist"), split)
    kept = np.sort(np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(10)]))
    ours, our_labels = sheets.read_split(split)
    assert np.array_equal(ours, images[kept])
    assert np.array_equal(our_labels, labels[kept])


def copy_of_embedded(tmp_path: Path) -> Path:
    """The embedded folder, to be damaged."""
    return Path(shutil.copytree(sheets.FOLDER, tmp_path / "embedded"))


def test_a_changed_pixel_of_the_embedded_images_is_noticed(tmp_path: Path) -> None:
    from PIL import Image

    folder = copy_of_embedded(tmp_path)
    pixels = np.array(Image.open(folder / "test-0.webp").convert("L"))
    pixels[100, 100] ^= 1
    Image.fromarray(pixels).save(folder / "test-0.webp", lossless=True)
    with pytest.raises(DataError, match=r"test pixels .* SHA-256 .* expected .* reinstall"):
        sheets.read_split("test", folder)


@pytest.mark.parametrize("damage", ["missing sheet", "truncated sheet", "no manifest", "empty manifest", "labels"])
def test_a_damaged_embedded_folder_is_named(tmp_path: Path, damage: str) -> None:
    folder = copy_of_embedded(tmp_path)
    sheet, manifest = folder / "test-0.webp", folder / "manifest.json"
    if damage == "missing sheet":
        sheet.unlink()
    elif damage == "truncated sheet":
        sheet.write_bytes(sheet.read_bytes()[:1000])
    elif damage == "no manifest":
        manifest.unlink()
    elif damage == "empty manifest":
        manifest.write_text("{}")
    else:
        content = json.loads(manifest.read_text())
        content["test"]["labels"] = content["test"]["labels"][:-1]
        manifest.write_text(json.dumps(content))
    with pytest.raises(DataError, match=str(folder)):
        sheets.read_split("test", folder)


# How train is divided


@pytest.mark.parametrize("validation", [1, 10, 37, 5000])
def test_validation_is_disjoint_from_train_and_balanced(validation: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 1000))
    spec = DataSpec(name="fashion-mnist-10k", validation=validation)
    train, held_out = loading.split_train(labels, spec)
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), np.arange(10_000))
    counts = np.bincount(labels[held_out], minlength=10)
    assert counts.sum() == validation and counts.max() - counts.min() <= 1


def test_validation_and_test_images_are_not_in_train() -> None:
    splits = loading.load(DataSpec(name="fashion-mnist-10k", validation=1000))

    def seen(image_set: loading.ImageSet) -> set[bytes]:
        rows = image_set.rows if image_set.rows is not None else torch.arange(len(image_set))
        return {image.numpy().tobytes() for image in image_set.pixels[rows]}

    train, validation, test = map(seen, splits)
    assert len(splits.train) == 9000 and len(splits.validation) == 1000
    # The original holds a few images twice; between splits of it none may be the same image of the file.
    assert len(train & validation) <= 1 and len(train & test) <= 1 and len(validation & test) <= 1


def test_a_smaller_number_of_train_images_is_part_of_a_larger_one_and_balanced() -> None:
    labels = np.repeat(np.arange(10), 1000)
    few, many = (
        loading.split_train(labels, DataSpec(name="fashion-mnist-10k", validation=100, num_train=n))[0]
        for n in (50, 500)
    )
    assert set(few) < set(many)
    assert np.bincount(labels[few]).tolist() == [5] * 10


def test_grey_images_stand_in_for_those_of_another_data_set() -> None:
    few = {"num_train": 20, "validation": 10, "num_test": 30}
    own = loading.load(DataSpec(name="fashion-mnist-10k", **few))
    for like in ("cifar10", "tinyimagenet", "imagenet100", "mnist"):
        spec = DataSpec(name="fashion-mnist-10k", like=like, **few)
        splits, info = loading.load(spec), DATASETS[like]
        for found, grey, count in zip(splits, own, (20, 10, 30), strict=True):
            assert found.image_shape == info.image_shape and len(found) == count
            assert (found.mean, found.std) == (info.mean, info.std)
            assert torch.equal(found.labels, grey.labels)
            side = info.stored_side or info.image_shape[1]
            assert found.pixels.shape == (count, side, side)
            places = torch.arange(side) * 28 // side
            chosen = grey.pixels if grey.rows is None else grey.pixels[grey.rows]
            enlarged = chosen[:, places[:, None], places]
            assert all(torch.equal(unpack(found.pixels)[..., c], enlarged) for c in range(info.image_shape[0]))
        assert (spec.info.num_classes, spec.num_labels) == (info.num_classes, 10)


def test_test_images_are_fewer_where_that_is_asked_for_and_balanced() -> None:
    splits = loading.load(DataSpec(name="fashion-mnist-10k", num_test=50))
    assert splits.test.labels.bincount().tolist() == [5] * 10
    assert len(splits.train) == 10_000


def test_what_cannot_stand_in_is_refused() -> None:
    with pytest.raises(ValidationError, match="only grey images can stand in"):
        DataSpec(name="cifar10", like="mnist")
    with pytest.raises(ValidationError, match="did you mean 'cifar10'"):
        DataSpec(name="mnist", like="cifar1")
    with pytest.raises(ValidationError, match="2000 test images, but num_test is 2001"):
        DataSpec(name="fashion-mnist-10k", num_test=2001)


def test_the_division_is_the_same_for_all_time() -> None:
    labels = np.repeat(np.arange(10), 1000)
    train, held_out = loading.split_train(labels, DataSpec(name="fashion-mnist-10k", validation=20, num_train=20))
    assert held_out.tolist() == PINNED_VALIDATION
    assert train.tolist() == PINNED_TRAIN


PINNED_VALIDATION = [
    198,
    524,
    1522,
    1748,
    2306,
    2641,
    3298,
    3704,
    4665,
    4952,
    5309,
    5945,
    6168,
    6861,
    7217,
    7257,
    8199,
    8511,
    9245,
    9872,
]
PINNED_TRAIN = [
    548,
    924,
    1401,
    1872,
    2192,
    2536,
    3232,
    3657,
    4177,
    4520,
    5336,
    5833,
    6219,
    6453,
    7588,
    7785,
    8410,
    8882,
    9327,
    9795,
]


def test_the_planner_counts_train_images_without_the_data() -> None:
    for fields in ({}, {"validation": 5000}, {"validation": 5000, "num_train": 700}):
        spec = DataSpec.model_validate({"name": "fashion-mnist-10k", **fields})
        assert num_train_images(spec) == len(loading.load(spec).train)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "cifar-10"}, "did you mean 'cifar10'"),
        ({"name": "cifar10", "validation": 50_000}, "need 50001"),
        ({"name": "cifar10", "validation": 49_000, "num_train": 1001}, "need 50001"),
        ({"name": "cifar10", "vallidation": 5}, "vallidation"),
        ({"name": "cifar10", "validation": -1}, "greater than or equal to 0"),
    ],
)
def test_a_wrong_data_spec_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSpec.model_validate(fields)


# The original files


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "cifar100-mini"])
def test_the_loaded_images_are_torchvisions(name: str) -> None:
    from torchvision import datasets

    root = original(name)
    splits = loading.load(DataSpec(name=name), root)
    for image_set, train in ((splits.train, True), (splits.test, False)):
        if name == "cifar100-mini":
            raw = (root / DATASETS[name].folder / ("train" if train else "test")).read_bytes()
            batch = pickle.loads(raw, encoding="latin1")  # a trusted fixture; lthbench itself never unpickles
            data, targets = batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), batch["fine_labels"]
        else:
            theirs = getattr(datasets, DATASETS[name].download or "")(str(root), train=train)
            data, targets = np.asarray(theirs.data), list(theirs.targets)
        pixels = unpack(image_set.pixels).numpy()
        assert np.array_equal(pixels.reshape(data.shape), data)
        assert image_set.labels.tolist() == [int(t) for t in targets]


@pytest.mark.parametrize("name", ["fashion-mnist-10k", "mnist", "fashion-mnist", "cifar10", "cifar100"])
def test_mean_and_deviation_are_those_of_the_train_split(name: str) -> None:
    images, _ = reading.read_split(name, original(name), "train")
    axes = (0, 2, 3) if images.ndim == 4 else None
    assert np.allclose(images.mean(axes) / 255, DATASETS[name].mean, atol=6e-6)
    assert np.allclose(images.std(axes) / 255, DATASETS[name].std, atol=6e-6)


def idx_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small complete MNIST (12 + 10 images) in its original layout; returns the folder of its files."""
    info = dataclasses.replace(DATASETS["mnist"], num_train=12, num_test=10)
    monkeypatch.setitem(DATASETS, "mnist", info)
    folder = root / info.folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    digests = {}
    for prefix, count in (("train", 12), ("t10k", 10)):
        images = struct.pack(">4I", 0x803, count, 28, 28) + rng.bytes(count * 784)
        labels = struct.pack(">2I", 0x801, count) + bytes(i % 10 for i in range(count))
        for kind, raw in (("images-idx3", images), ("labels-idx1", labels)):
            file = folder / f"{prefix}-{kind}-ubyte"
            file.write_bytes(raw)
            digests[file.name] = hashlib.sha256(raw).hexdigest()
    monkeypatch.setitem(idx._SHA256, "mnist", digests)
    return folder


def test_idx_files_load_and_the_second_load_returns_the_same_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idx_set(tmp_path, monkeypatch)
    first = loading.load(DataSpec(name="mnist", validation=2), tmp_path)
    assert [len(s) for s in first] == [10, 2, 10]
    monkeypatch.setenv("LTHBENCH_DATA", str(tmp_path))
    assert loading.load(DataSpec(name="mnist", validation=2)).train.pixels is first.train.pixels


def test_every_damage_to_an_idx_file_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = idx_set(tmp_path, monkeypatch)
    file = folder / "train-images-idx3-ubyte"
    raw = file.read_bytes()
    damages = {
        "has 9000 bytes": raw[:9000],
        "has SHA-256": raw[:-1] + bytes([raw[-1] ^ 1]),
        "has the sizes 12 x 14 x 56, expected 12 x 28 x 28": struct.pack(">4I", 0x803, 12, 14, 56) + raw[16:],
        "idx header 00000803": raw[1:] + bytes(1),
    }
    for message, content in damages.items():
        file.write_bytes(content)
        with pytest.raises(DataError, match=message) as error:
            loading.load(DataSpec(name="mnist"), tmp_path)
        assert str(file) in str(error.value) and "lthbench data download mnist" in str(error.value)
    file.unlink()
    with pytest.raises(DataError, match="is missing"):
        loading.load(DataSpec(name="mnist"), tmp_path)


class Python2Pickle:
    """Writes CIFAR's batch layout: protocol 2, byte strings, one uint8 array."""

    @staticmethod
    def string(text: str) -> bytes:
        return b"U" + bytes([len(text)]) + text.encode("latin1")

    @staticmethod
    def integers(values: list[int]) -> bytes:
        return b"](" + b"".join(b"K" + bytes([v]) for v in values) + b"e"

    @classmethod
    def array(cls, a: np.ndarray) -> bytes:
        shape = b"".join(b"M" + struct.pack("<H", n) for n in a.shape) + b"\x86"
        dtype = b"cnumpy\ndtype\n" + cls.string("u1") + b"K\x00K\x01\x87R"
        state = b"(K\x03" + cls.string("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        content = b"T" + struct.pack("<i", a.nbytes) + a.tobytes()
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + cls.string("b") + b"\x87R"
        return made + b"(K\x01" + shape + dtype + state + b"\x89" + content + b"tb"

    @classmethod
    def batch(cls, data: np.ndarray, labels: list[int], key: str = "labels") -> bytes:
        items = cls.string("data") + cls.array(data) + cls.string(key) + cls.integers(labels)
        return b"\x80\x02}(" + items + b"u."


def test_a_cifar_batch_is_decoded_as_pickle_would() -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 3072), dtype=np.uint8)
    raw = Python2Pickle.batch(data, [1, 2, 3])
    ours, theirs = cifar.decode(raw), pickle.loads(raw, encoding="latin1")
    assert np.array_equal(ours["data"], data) and np.array_equal(theirs["data"], data)
    assert ours["labels"] == theirs["labels"] == [1, 2, 3]


class Runs:
    """Unpickling this would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    raw = pickle.dumps({"data": Runs(tmp_path / "ran"), "labels": []}, protocol=protocol)
    with pytest.raises(ValueError, match=r"it (names|contains)"):
        cifar.decode(raw)
    assert not (tmp_path / "ran").exists()
    pickle.loads(raw)
    assert (tmp_path / "ran").exists(), "the attack would have worked"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02}.trailing",
        b"\x80\x02].",
        b"\x80\x02}(",
        b"\x80\x02tb.",
        b"\x80\x02}h\x07.",
        b"\x80\x02(cos\nsystem\nU\x02lsR.",
        b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",
        b"\x80\x02cnumpy\ndtype\nU\x01OK\x00K\x01\x87R.",
        b"\x80\x02}U\x04dataK\x01b.",
        b"\xff\xfe\xfd",
    ],
)
def test_malformed_batches_are_refused_with_a_value_error(raw: bytes) -> None:
    if raw == b"\x80\x02}.trailing":
        assert cifar.decode(raw) == {}  # pickle too stops at STOP
        return
    with pytest.raises(ValueError):
        cifar.decode(raw)


def cifar_set(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small complete CIFAR-100 (100 + 100 images) in its original layout; returns its folder."""
    info = dataclasses.replace(DATASETS["cifar100"], num_train=100, num_test=100)
    monkeypatch.setitem(DATASETS, "cifar100", info)
    folder = root / info.folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    digests = {}
    for split in ("train", "test"):
        data = rng.integers(0, 256, (100, 3072), dtype=np.uint8)
        raw = Python2Pickle.batch(data, list(range(100)), "fine_labels")
        (folder / split).write_bytes(raw)
        digests[split] = hashlib.md5(raw).hexdigest()
    monkeypatch.setitem(cifar._MD5, "cifar100", digests)
    return folder


def test_every_damage_to_a_cifar_file_is_named_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = cifar_set(tmp_path, monkeypatch) / "train"
    assert len(loading.load(DataSpec(name="cifar100"), tmp_path).train) == 100
    loading._load.cache_clear()
    raw = file.read_bytes()
    flipped = bytearray(raw)
    flipped[5000] ^= 1
    for content in (raw[:-100], bytes(flipped), b""):
        file.write_bytes(content)
        with pytest.raises(DataError, match=r"has MD5 .* expected the original's") as error:
            loading.load(DataSpec(name="cifar100"), tmp_path)
        assert str(file) in str(error.value) and "lthbench data download cifar100" in str(error.value)
    file.unlink()
    with pytest.raises(DataError, match="is missing"):
        loading.load(DataSpec(name="cifar100"), tmp_path)


def test_a_hostile_batch_with_the_right_checksum_still_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = cifar_set(tmp_path, monkeypatch) / "train"
    raw = pickle.dumps(Runs(tmp_path / "ran"), protocol=2)
    file.write_bytes(raw)
    monkeypatch.setitem(cifar._MD5["cifar100"], "train", hashlib.md5(raw).hexdigest())
    with pytest.raises(DataError, match="not a CIFAR batch"):
        loading.load(DataSpec(name="cifar100"), tmp_path)
    assert not (tmp_path / "ran").exists()


def test_without_a_data_folder_the_error_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    with pytest.raises(DataError, match=r"--data or LTHBENCH_DATA"):
        loading.load(DataSpec(name="cifar10"))


# The commands


def test_list_names_every_data_set_and_which_is_there(tmp_path: Path) -> None:
    listed = {status.name: status for status in list_data(tmp_path)}
    assert set(listed) == set(DATASETS)
    assert [name for name, status in listed.items() if status.present] == ["fashion-mnist-10k"]
    assert listed["cifar10"].path == str(tmp_path / "cifar-10-batches-py")


def test_check_reports_what_is_wrong_and_what_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar_set(tmp_path, monkeypatch)
    (idx_set(tmp_path, monkeypatch) / "t10k-labels-idx1-ubyte").unlink()
    status = {s.name: s for s in check_data(tmp_path)}
    assert set(status) == {"fashion-mnist-10k", "mnist", "cifar100"}
    assert status["fashion-mnist-10k"].problem is None and status["cifar100"].problem is None
    assert "t10k-labels-idx1-ubyte is missing" in (status["mnist"].problem or "")
    assert not status["mnist"].present
    assert check_data(tmp_path, ["cifar10"])[0].problem


def test_download_fetches_with_torchvision_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    calls: list[tuple[object, ...]] = []

    def fetch(root: str, train: bool, download: bool) -> None:
        calls.append((root, train, download))
        cifar_set(Path(root), monkeypatch)

    monkeypatch.setattr(datasets, "CIFAR100", fetch)
    status = download_data("cifar100", tmp_path)
    assert calls == [(str(tmp_path), True, True)]
    assert status.present and status.problem is None


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [
        ("cifar-10", Path("x"), "did you mean 'cifar10'"),
        ("cifar100-mini", Path("x"), "nothing to download"),
        ("cifar10", None, "no data folder"),
    ],
)
def test_an_impossible_download_is_refused(
    name: str, root: Path | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    with pytest.raises(DataError, match=message):
        download_data(name, root)


# Some classes of a set


@settings(max_examples=5)
@given(st.sets(st.integers(0, 9), min_size=2, max_size=9), st.integers(0, 300))
def test_some_classes_are_their_images_numbered_anew(classes: set[int], validation: int) -> None:
    spec = DataSpec(name="fashion-mnist-10k", classes=tuple(classes), validation=validation)
    whole, some = loading.load(EMBEDDED), loading.load(spec)
    order = torch.tensor(sorted(classes))
    wanted = torch.isin(whole.train.labels, order).nonzero().reshape(-1)
    rows = torch.cat([some.train.rows, some.validation.rows])  # type: ignore[list-item]
    assert rows.sort().values.tolist() == wanted.tolist()
    assert torch.equal(order[some.train.labels], whole.train.labels[some.train.rows])
    assert len(some.train) == num_train_images(spec) and spec.info.num_classes == len(classes)
    assert len(some.test) == spec.info.num_test == 200 * len(classes)
    assert torch.equal(order[some.test.labels], whole.test.labels[some.test.rows])


def test_classes_may_be_written_as_ranges_and_change_no_key_where_they_are_not_given() -> None:
    spec = DataSpec.model_validate({"name": "cifar100", "classes": ["50-52", 7, "3-4"]})
    assert spec.classes == (3, 4, 7, 50, 51, 52) and spec.title == "cifar100 [3 4 7 50-52]"
    assert "classes" not in DataSpec(name="cifar100").model_dump(exclude_defaults=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "cifar10", "classes": [1, 10]}, "0 to 9"),
        ({"name": "cifar10", "classes": [1, 1]}, "twice"),
        ({"name": "cifar10", "classes": ["0-9"]}, "leave it out"),
        ({"name": "cifar10", "classes": [0, 1], "num_train": 10_001}, "10000 train images"),
        ({"name": "mnist", "classes": [0, 1]}, "num_train must be given"),
    ],
)
def test_impossible_classes_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSpec.model_validate(fields)
