"""A user's own images, in folders or arrays, become a data set that suites name, told apart by what it holds."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision import datasets

from lthbench.data import loading
from lthbench.data.commands import add_data, check_data, list_data
from lthbench.data.datasets import DATASETS
from lthbench.data.error import DataError
from lthbench.data.images import unpack
from lthbench.data.own_sets import know_own_sets
from lthbench.data.own_sources import Division, Wanted
from lthbench.data.spec import DataSpec

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 12, 12, 3), dtype=np.uint8)
LABELS = np.arange(30) % 3


@pytest.fixture(autouse=True)
def _none_known() -> Iterator[None]:
    loading._load.cache_clear()
    yield
    know_own_sets(Path("/nonexistent"))
    loading._load.cache_clear()


def folder_of_images(folder: Path, images: np.ndarray = IMAGES) -> Path:
    """PNG files in one folder per class."""
    for number, (image, label) in enumerate(zip(images, LABELS, strict=True)):
        path = folder / ("cat", "dog", "owl")[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def arrays(folder: Path, images: np.ndarray = IMAGES, labels: np.ndarray = LABELS) -> tuple[Path, Path]:
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    return folder / "images.npy", folder / "labels.npy"


def test_a_folder_of_images_is_divided_measured_listed_and_checked(tmp_path: Path) -> None:
    data = tmp_path / "data"
    status = add_data("pets", data, Wanted(folder=folder_of_images(tmp_path / "pets")))
    assert status.problem is None and status.images == "24 + 6 of 3 x 12 x 12, 3 classes"
    info = DATASETS["pets"]
    train = loading.load(DataSpec(name="pets"), data).train
    levels = unpack(train.pixels).numpy() / 255
    assert info.mean == pytest.approx(levels.mean((0, 1, 2)), abs=1e-4)
    assert info.std == pytest.approx(levels.std((0, 1, 2)), abs=1e-4)
    test = loading.load(DataSpec(name="pets"), data).test
    assert np.bincount(test.labels).tolist() == [2, 2, 2]
    found = {image.tobytes() for part in (train, test) for image in unpack(part.pixels).numpy()}
    assert found == {image.tobytes() for image in IMAGES}, "each image once, as it is"
    assert {row.name for row in list_data(data)} - {row.name for row in list_data(tmp_path)} == {"pets"}
    assert [row.problem for row in check_data(data, ["pets"])] == [None]


def test_arrays_are_stored_as_they_are_whatever_the_order_of_channels(tmp_path: Path) -> None:
    digests = []
    for name, images in (("last", IMAGES), ("first", IMAGES.transpose(0, 3, 1, 2))):
        add_data(name, tmp_path, Wanted(arrays=arrays(tmp_path, images)))
        digests.append(DATASETS[name].digest)
    assert digests[0] == digests[1]
    add_data("grey", tmp_path, Wanted(arrays=arrays(tmp_path, IMAGES[..., 0])))
    assert DATASETS["grey"].image_shape == (1, 12, 12)
    assert loading.load(DataSpec(name="grey", image_size=6), tmp_path).train.batch(torch.arange(2)).shape == (
        2,
        1,
        6,
        6,
    )


def test_another_set_of_the_same_name_is_another_task(tmp_path: Path) -> None:
    specs = []
    for root, images in (("a", IMAGES), ("b", IMAGES[::-1].copy())):
        (tmp_path / root).mkdir()
        add_data("mine", tmp_path / root, Wanted(arrays=arrays(tmp_path / root, images)))
        specs.append(DataSpec(name="mine"))
    assert specs[0] != specs[1] and specs[0].digest != specs[1].digest
    with pytest.raises(ValidationError, match=r"mine was a data set of content .* add that one again"):
        DataSpec.model_validate(specs[0].model_dump())
    know_own_sets(tmp_path / "a")
    assert DataSpec(name="mine") == specs[0]
    with pytest.raises(DataError, match=r"is another data set; choose another name, or delete it"):
        add_data("mine", tmp_path / "b", Wanted(arrays=arrays(tmp_path, 255 - IMAGES)))


def test_adding_it_again_does_nothing(tmp_path: Path) -> None:
    wanted = Wanted(arrays=arrays(tmp_path))
    add_data("mine", tmp_path, wanted)
    before = (tmp_path / "prepared" / "mine" / "manifest.json").stat().st_mtime_ns
    add_data("mine", tmp_path, wanted)
    assert (tmp_path / "prepared" / "mine" / "manifest.json").stat().st_mtime_ns == before


class Evil:
    """Runs where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it ran')",))


def test_arrays_that_hold_pickles_do_not_run(tmp_path: Path) -> None:
    images, labels = arrays(tmp_path)
    for content in (np.array([Evil()], dtype=object), pickle.dumps(Evil())):
        if isinstance(content, bytes):
            images.write_bytes(content)
        else:
            np.save(images, content, allow_pickle=True)
        with pytest.raises(DataError, match=r"images.npy cannot be read as an array"):
            add_data("mine", tmp_path, Wanted(arrays=(images, labels)))


@pytest.mark.parametrize(
    ("images", "labels", "fault"),
    [
        (IMAGES / 255, LABELS, "images.npy holds float64, expected uint8"),
        (IMAGES, LABELS[:-1], "labels.npy holds .* expected whole numbers"),
        (IMAGES, LABELS / 1.0, "labels.npy holds float64"),
        (IMAGES[:, :, :, :2], LABELS, "has shape"),
        (IMAGES, LABELS * 0, "1 classes were found, expected two"),
        (IMAGES * 0, LABELS, "one level alone"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused(
    images: np.ndarray, labels: np.ndarray, fault: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=f"^mine: .*{fault}"):
        add_data("mine", tmp_path, Wanted(arrays=arrays(tmp_path, images, labels)))
    assert not (tmp_path / "prepared" / "mine").exists()


@pytest.mark.parametrize("name", ["cifar10", "a/b", "", "..", "x.partial", "-x"])
def test_names_that_are_taken_or_are_no_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"choose another name|is no name"):
        add_data(name, tmp_path, Wanted(arrays=arrays(tmp_path)))


def test_folders_of_several_sizes_need_one_and_are_resized(tmp_path: Path) -> None:
    folder = folder_of_images(tmp_path / "pets")
    Image.fromarray(IMAGES[0][:8]).save(folder / "cat" / "000.png")
    with pytest.raises(DataError, match=r"the images have 2 sizes \(12 x 8, 12 x 12.*give --size PIXELS"):
        add_data("pets", tmp_path, Wanted(folder=folder))
    add_data("pets", tmp_path, Wanted(folder=folder, size=8, grey=True, split=Division(0.4, 1)))
    assert DATASETS["pets"].image_shape == (1, 8, 8) and DATASETS["pets"].num_test == 12


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    add_data("mine", tmp_path, Wanted(arrays=arrays(tmp_path)))
    file = tmp_path / "prepared" / "mine" / "train.npy"
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)
    (status,) = check_data(tmp_path, ["mine"])
    assert status.problem is not None and f"of {file} differ from their checksum" in status.problem
    manifest = file.with_name("manifest.json")
    content_of = json.loads(manifest.read_text())
    content_of["own"]["digest"] = "0" * 32
    manifest.write_text(json.dumps(content_of))
    assert [row.problem for row in list_data(tmp_path) if row.name == "mine"] != [None]


def idx(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">{1 + values.ndim}I", 0x0800 | values.ndim, *values.shape) + values.tobytes())


def write_kmnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("train", "t10k"):
        idx(root / f"KMNIST/raw/{word}-images-idx3-ubyte", GREY)
        idx(root / f"KMNIST/raw/{word}-labels-idx1-ubyte", LABELS.astype(np.uint8))


def write_emnist(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("train", "test"):
        idx(root / f"EMNIST/raw/emnist-letters-{word}-images-idx3-ubyte", GREY)
        idx(root / f"EMNIST/raw/emnist-letters-{word}-labels-idx1-ubyte", (LABELS + 1).astype(np.uint8))


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SVHN calls the digit 0 ten."""
    scipy_io = pytest.importorskip("scipy.io")
    root.mkdir(parents=True, exist_ok=True)
    known = {}
    for split, (url, file, _) in datasets.SVHN.split_list.items():
        labels = np.where(LABELS == 0, 10, LABELS)[:, None]
        scipy_io.savemat(root / file, {"X": IMAGES.transpose(1, 2, 3, 0), "y": labels.astype(np.uint8)})
        known[split] = [url, file, hashlib.md5((root / file).read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", known)


def write_stl10(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels are stored by column, labels from 1."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train_X", "test_X", "unlabeled_X"):
        (folder / f"{part}.bin").write_bytes(np.repeat(IMAGES, 8, 1).repeat(8, 2).transpose(0, 3, 2, 1).tobytes())
    for part in ("train_y", "test_y"):
        (folder / f"{part}.bin").write_bytes((LABELS + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("bird\ncar\ncat\n")
    for name in ("train_list", "test_list"):
        files = [file for file, _ in getattr(datasets.STL10, name)]
        known = [[file, hashlib.md5((folder / file).read_bytes()).hexdigest()] for file in files]
        monkeypatch.setattr(datasets.STL10, name, known)


def write_food101(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    classes = ["apple_pie", "bibimbap", "churros"]
    (folder / "meta" / "classes.txt").write_text("\n".join(classes) + "\n")
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for number, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True)):
        path = folder / "images" / classes[label] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path, quality=95)
        lines["test" if number >= 24 else "train"].append(f"{classes[label]}/{number}")
    for split, its in lines.items():
        (folder / "meta" / f"{split}.txt").write_text("\n".join(its) + "\n")


GREY = IMAGES[..., 0]
SETS: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], str]] = {
    "kmnist": (write_kmnist, "30 + 30 of 1 x 12 x 12, 3 classes"),
    "emnist:letters": (write_emnist, "30 + 30 of 1 x 12 x 12, 3 classes"),
    "svhn": (write_svhn, "30 + 30 of 3 x 12 x 12, 3 classes"),
    "stl10": (write_stl10, "30 + 30 of 3 x 96 x 96, 3 classes"),
    "food101": (write_food101, "24 + 6 of 3 x 12 x 12, 3 classes"),
}


@pytest.mark.parametrize("which", SETS)
def test_sets_of_torchvision_are_added_by_name_from_their_files(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, images = SETS[which]
    write(tmp_path, monkeypatch)
    status = add_data("own", tmp_path, Wanted(torchvision=which))
    assert (status.problem, status.images) == (None, images)
    train = loading.load(DataSpec(name="own"), tmp_path).train
    assert train.labels.tolist() == LABELS[: len(train)].tolist()
    if which in ("kmnist", "emnist:letters"):
        assert torch.equal(train.pixels, torch.from_numpy(GREY.copy()))
    elif which != "food101":  # whose images are JPEGs
        stored = unpack(train.pixels)[:, :: 8 if which == "stl10" else 1, :: 8 if which == "stl10" else 1]
        assert torch.equal(stored, torch.from_numpy(IMAGES))


@pytest.mark.parametrize(
    ("which", "file", "content", "message"),
    [
        ("kmnist", "KMNIST/raw/t10k-labels-idx1-ubyte", None, "t10k-labels-idx1-ubyte"),
        ("kmnist", "KMNIST/raw/train-images-idx3-ubyte", b"", "begins with nothing"),
        ("kmnist", "KMNIST/raw/train-images-idx3-ubyte", b"\0\0\x08\3\0\0", "idx header 00000803 and sizes"),
        ("kmnist", "KMNIST/raw/train-labels-idx1-ubyte", b"\0\0\x08\1\0\0\0\x09\0", "has 9 bytes"),
        ("kmnist", "KMNIST/raw/train-labels-idx1-ubyte", b"\0\0\x08\1\0\0\0\1\0", "30 train images and 1 labels"),
        ("emnist:letters", "EMNIST/raw/emnist-letters-test-images-idx3-ubyte", None, "emnist-letters-test-images"),
        ("emnist:words", "EMNIST/raw/other", b"", "emnist has no part words, but byclass, "),
        ("svhn", "test_32x32.mat", b"MATLAB 5.0 MAT-file", "torchvision cannot read svhn below "),
        ("svhn", "train_32x32.mat", None, "torchvision cannot read svhn below "),
        ("stl10", "stl10_binary/train_X.bin", b"\0" * 99, "torchvision cannot read stl10 below "),
        ("food101", "food-101/meta/classes.txt", None, "classes.txt: the list cannot be read"),
        ("food101", "food-101/meta/train.txt", b"apple_pie\n", "train.txt: expected class/number, got 'apple_pie'"),
        ("food101", "food-101/meta/test.txt", b"pizza/1\n", "test.txt: expected class/number, got 'pizza/1'"),
        ("food101", "food-101/images/bibimbap/1.jpg", b"no image", "1.jpg"),
        ("food101", "food-101/images/churros/2.jpg", None, "2.jpg"),
    ],
)
def test_what_is_missing_or_damaged_of_a_set_of_torchvision_is_reported(
    which: str, file: str, content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SETS[which.replace("words", "letters")][0](tmp_path, monkeypatch)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError) as raised:
        add_data("own", tmp_path, Wanted(torchvision=which))
    assert message in str(raised.value)


def test_pickles_that_torchvision_once_wrote_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_kmnist(tmp_path, monkeypatch)
    (tmp_path / "KMNIST" / "processed").mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save((torch.zeros(3, 12, 12, dtype=torch.uint8), torch.arange(3)), tmp_path / "KMNIST/processed" / name)
    assert add_data("own", tmp_path, Wanted(torchvision="kmnist")).images == SETS["kmnist"][1]
