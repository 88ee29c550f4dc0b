"""Folders of images as disks, file managers and editors leave them: read whole, or refused with what is wrong."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_prepare import LISTED, NAME, SIDE, _small, decoded, imagenet, save, tree  # noqa: F401 (fixtures)

from lthbench.data import prepare, prepared
from lthbench.data.commands import check_data, list_data, prepare_data
from lthbench.data.error import DataError
from lthbench.data.folder import clutter
from lthbench.data.image_folder import read_class_list, scan

LAYOUTS = ["archive", "flat", "nested"]


def kept(root: Path) -> tuple[list[str], list[tuple[str, int]], list[tuple[str, int]]]:
    """What is read of Tiny-ImageNet: its classes, and each image's name and label."""
    found = scan(NAME, root)
    return found.classes, *([(file.name, label) for file, label in split] for split in (found.train, found.test))


# One rule of what is no part of a data set


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("._n01_0.JPEG", "._*"),
        (".n01_0.JPEG", ".*"),
        (".DS_Store", ".DS_Store"),
        (".ipynb_checkpoints", ".ipynb_checkpoints"),
        ("@eaDir", "@eaDir"),
        ("Thumbs.db", "Thumbs.db"),
        ("THUMBS.DB", "THUMBS.DB"),
        ("desktop.ini", "desktop.ini"),
        ("n01_0.JPEG", None),
        ("n01", None),
        ("@n01", None),
    ],
)
def test_hidden_names_and_those_of_file_managers_are_no_part_of_a_data_set(name: str, kind: str | None) -> None:
    assert clutter(name) == kind


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_file_managers_leave_in_any_folder_is_skipped_and_counted(tmp_path: Path, layout: str) -> None:
    base = tree(tmp_path, layout)
    clean = kept(tmp_path)
    assert scan(NAME, tmp_path).skipped == {}
    folders = [base / "train", base / "val", *(path.parent for path, _ in scan(NAME, tmp_path).train[::5])]
    folders += {path.parent for path, _ in scan(NAME, tmp_path).test}
    for folder in folders:
        for hidden in ("._n01_0.JPEG", ".n01_0.JPEG", "Thumbs.db", ".DS_Store"):
            (folder / hidden).write_bytes(b"no image")
        for inner in ("@eaDir", ".ipynb_checkpoints"):
            save(folder / inner / "n01_0-checkpoint.JPEG", 0)
    assert kept(tmp_path) == clean
    n = len(folders)
    each = {"._*": n, ".*": n, "Thumbs.db": n, ".DS_Store": n, "@eaDir": n, ".ipynb_checkpoints": n}
    assert scan(NAME, tmp_path).skipped == each


def test_what_was_skipped_is_reported_by_prepare_and_by_list_and_check_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lthbench.cli import main

    base = tree(tmp_path)
    (base / "train" / "@eaDir").mkdir()
    for i in range(2):
        (base / "train" / "n01" / "images" / f"._n01_{i}.JPEG").write_bytes(b"resource fork")
    skipped = {"._*": 2, "@eaDir": 1}
    assert prepare_data(NAME, tmp_path, workers=1).skipped == skipped
    assert next(s for s in list_data(tmp_path) if s.name == NAME).skipped == skipped
    assert check_data(tmp_path, [NAME])[0].skipped == skipped
    monkeypatch.setattr(sys, "argv", ["lthbench", "data", "prepare", NAME, "--data", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    text = f"{NAME}: its preparation skipped 3 files and folders that are no part of a data set: 2 ._*, 1 @eaDir"
    assert text in capsys.readouterr().out


def test_imagenet_100_skips_by_the_same_rule(imagenet: Path) -> None:  # noqa: F811
    for folder in ("train", f"train/{LISTED[0]}", "val", f"val/{LISTED[0]}"):
        (imagenet / "imagenet" / folder / "@eaDir").mkdir()
        (imagenet / "imagenet" / folder / "._x.JPEG").write_bytes(b"")
    found = scan("imagenet100", imagenet)
    assert found.classes == LISTED and (len(found.train), len(found.test)) == (100, 100)
    assert found.skipped == {"@eaDir": 4, "._*": 4}


# Tiny-ImageNet's validation images, unpacked and sorted


def sort_images(base: Path, count: int = 6, inner: str = "") -> None:
    """Move the first so many validation images into folders of their classes, the annotations left where they are."""
    for line in sorted((base / "val" / "val_annotations.txt").read_text().splitlines())[:count]:
        file, c = line.split("\t")[:2]
        place = base / "val" / c / inner
        place.mkdir(parents=True, exist_ok=True)
        (base / "val" / "images" / file).rename(place / file)


@pytest.mark.parametrize("inner", ["", "images"])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_validation_images_sorted_in_whole_or_in_part_are_those_of_the_archive(
    tmp_path: Path, count: int, inner: str
) -> None:
    base = tree(tmp_path)
    archive = kept(tmp_path)
    sort_images(base, count, inner)
    assert kept(tmp_path) == archive
    if count == 6:
        (base / "val" / "images").rmdir()
        assert kept(tmp_path) == archive
        (base / "val" / "val_annotations.txt").unlink()
        assert kept(tmp_path) == archive


def test_validation_images_copied_into_the_folders_of_their_classes_are_read_once(tmp_path: Path) -> None:
    base = tree(tmp_path)
    archive = kept(tmp_path)
    shutil.copytree(base / "val" / "images", tmp_path / "kept")
    sort_images(base)
    shutil.copytree(tmp_path / "kept", base / "val" / "images", dirs_exist_ok=True)
    assert kept(tmp_path) == archive


def as_editors_save_it(text: bytes) -> dict[str, bytes]:
    crlf = text.replace(b"\n", b"\r\n")
    mark = b"\xef\xbb\xbf"
    return {"CRLF": crlf, "mark": mark + text, "both": mark + crlf, "empty lines": text + b"\n\r\n"}


@pytest.mark.parametrize("form", ["CRLF", "mark", "both", "empty lines"])
def test_annotations_and_class_lists_are_read_as_editors_save_them(tmp_path: Path, form: str) -> None:
    annotations = tree(tmp_path) / "val" / "val_annotations.txt"
    archive = kept(tmp_path)
    annotations.write_bytes(as_editors_save_it(annotations.read_bytes())[form])
    assert kept(tmp_path) == archive
    listed = tmp_path / "list.txt"
    listed.write_bytes(as_editors_save_it(b"n02 bonnet\nn01\n")[form])
    assert read_class_list(listed, 2) == ["n01", "n02"]


# What is wrong is named


def _annotation_again(base: Path) -> None:
    lines = (base / "val" / "val_annotations.txt").read_text()
    (base / "val" / "val_annotations.txt").write_text(lines + lines.splitlines()[0])


def _annotation_lost(base: Path) -> None:
    (base / "val" / "val_annotations.txt").unlink()


def _annotation_lost_when_half_was_sorted(base: Path) -> None:
    sort_images(base, 3)
    _annotation_lost(base)


def _annotation_cut(base: Path) -> None:
    lines = (base / "val" / "val_annotations.txt").read_text().splitlines()
    (base / "val" / "val_annotations.txt").write_text("\n".join(lines[:-1]))


def _annotation_in_utf_16(base: Path) -> None:
    path = base / "val" / "val_annotations.txt"
    path.write_text(path.read_text(), encoding="utf-16")


def _annotation_is_a_folder(base: Path) -> None:
    _annotation_lost(base)
    (base / "val" / "val_annotations.txt").mkdir()


def _sorted_wrong(base: Path) -> None:
    sort_images(base)
    (base / "val" / "n01" / "val_0.JPEG").rename(base / "val" / "n02" / "val_0.JPEG")


def _sorted_twice(base: Path) -> None:
    sort_images(base)
    shutil.copy(base / "val" / "n01" / "val_0.JPEG", base / "val" / "n02" / "val_0.JPEG")


def _one_name_but_for_capitals(base: Path) -> None:
    shutil.copy(base / "train/n01/images/n01_0.JPEG", base / "train/n01/images/n01_0.jpeg")


def _one_name_in_two_places(base: Path) -> None:
    shutil.copy(base / "train/n01/images/n01_0.JPEG", base / "train/n01/n01_0.JPEG")


def _classes_but_for_capitals(base: Path) -> None:
    save(base / "train" / "N01" / "x.JPEG", 0)


def _class_of_val_alone(base: Path) -> None:
    save(base / "val" / "n09" / "x.JPEG", 0)


def _link_to_itself(base: Path) -> None:
    (base / "train/n01/images/n01_9.JPEG").symlink_to("n01_9.JPEG")


def _link_to_nothing(base: Path) -> None:
    (base / "train" / "n09").symlink_to(base / "nowhere")


def _folder_named_as_an_image(base: Path) -> None:
    (base / "train/n01/images/n01_9.JPEG").mkdir()


def _pipe_named_as_an_image(base: Path) -> None:
    os.mkfifo(base / "train/n01/images/n01_9.JPEG")


def _one_image_more(base: Path) -> None:
    save(base / "train/n02/images/n02_9.JPEG", 0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_annotation_again, r"val_annotations.txt, line 7: names val_5.JPEG, as line 1 does; unpack"),
        (_annotation_lost, r"val_annotations.txt is missing, expected the classes of the 6 images in .*val/images"),
        (_annotation_lost_when_half_was_sorted, r"val_annotations.txt is missing, .* of the 3 images in .*val/images"),
        (_annotation_cut, r"val/images/val_0.JPEG is an image that no line of .*val_annotations.txt names"),
        (_annotation_in_utf_16, r"val_annotations.txt: the list is not text in UTF-8 .*; save it as such"),
        (_annotation_is_a_folder, r"val_annotations.txt is the folder of no class"),
        (_sorted_wrong, r"val/n02/val_0.JPEG lies with n02, but line 6 of .*val_annotations.txt says n01; move it"),
        (_sorted_twice, r"val/n01/val_0.JPEG and .*val/n02/val_0.JPEG have one name"),
        (_one_name_but_for_capitals, r"n01_0.JPEG and .*n01_0.jpeg have one name, but for capitals; delete one"),
        (_one_name_in_two_places, r"train/n01/n01_0.JPEG and .*train/n01/images/n01_0.JPEG have one name"),
        (_classes_but_for_capitals, r"train holds N01 and n01, which differ in case only; put the images"),
        (_class_of_val_alone, r"val/n09 is the folder of no class that .*train has; delete it"),
        (_link_to_itself, r"n01_9.JPEG cannot be read \(Too many levels of symbolic links\)"),
        (_link_to_nothing, r"train/n09 cannot be read \(No such file or directory\); make it readable, or delete it"),
        (_folder_named_as_an_image, r"n01_9.JPEG is not a file, and its name is an image's; delete it"),
        (_pipe_named_as_an_image, r"n01_9.JPEG is not a file, and its name is an image's; delete it"),
        (_one_image_more, r"train holds 16 images of 3 classes, expected 15 \(n02 has 6, not 5\)"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "named",
)
def test_a_tree_that_contradicts_itself_is_refused_before_anything_is_written(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(tree(tmp_path))
    with pytest.raises(DataError, match=message):
        prepare.prepare(NAME, tmp_path)
    assert not (tmp_path / "prepared").exists()


def test_a_class_of_train_without_a_folder_in_val_is_named(tmp_path: Path) -> None:
    base = tree(tmp_path, "flat")
    shutil.rmtree(base / "val" / "n02")
    with pytest.raises(DataError, match=r"val/n02 is missing, expected the images of a class that train has"):
        scan(NAME, tmp_path)


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tree(tmp_path)
    locked, scandir = base / "train" / "n02" / "images", os.scandir

    def refusing(path: Path) -> object:  # a superuser, as whom tests may run, may read all
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=rf"{locked} cannot be read \(Permission denied\); make it readable"):
        scan(NAME, tmp_path)


def test_a_class_that_a_list_names_twice_is_named(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("n01\nn02\nn01\n")
    with pytest.raises(DataError, match=r"has 2 different classes on 3 lines, expected 3 \(n01 is on several\)"):
        read_class_list(listed, 3)


def test_names_that_are_in_no_encoding_are_read(tmp_path: Path) -> None:
    images = tree(tmp_path) / "train" / "n01" / "images"
    (images / "n01_4.JPEG").rename(images / os.fsdecode(b"n01_4\xff.JPEG"))
    folder = prepare.prepare(NAME, tmp_path)
    assert len(np.load(folder / "train_labels.npy")) == 15


# Forms of images


@pytest.mark.parametrize("suffix", ["JPEG", "jpeg", "JPG", "jpg", "PNG", "png"])
def test_an_image_is_one_in_small_and_in_capital_letters(tmp_path: Path, suffix: str) -> None:
    images = tree(tmp_path) / "train" / "n01" / "images"
    (images / "n01_4.JPEG").rename(images / f"n01_4.{suffix}")
    assert f"n01_4.{suffix}" in [file.name for file, _ in scan(NAME, tmp_path).train]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_images_of_other_modes_are_prepared_as_pillow_converts_them(tmp_path: Path, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    if mode in ("LA", "RGBA"):
        image.putalpha(128)
    image.save(tmp_path / "x.JPEG", "JPEG" if mode == "CMYK" else "PNG")
    with Image.open(tmp_path / "x.JPEG") as saved:
        assert saved.mode == mode
    got = prepare.decode(NAME, tmp_path / "x.JPEG", SIDE)
    assert np.array_equal(got, decoded([(tmp_path / "x.JPEG", 0)])[0])


def test_the_first_of_several_images_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.png", "PNG", save_all=True, append_images=frames[1:])
    assert prepare.decode(NAME, tmp_path / "x.png", SIDE).reshape(-1, 3).max(0).tolist() == [255, 0, 0]


def test_an_image_of_16_bits_is_refused_as_it_would_become_white(tmp_path: Path) -> None:
    Image.fromarray(np.full((SIDE, SIDE), 1000, np.uint16)).save(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x.png has more than 8 bits per channel; save it with 8"):
        prepare.decode(NAME, tmp_path / "x.png", SIDE)


def test_an_image_that_cannot_be_opened_is_distinguished_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x.png cannot be read \(No such file or directory\); make it readable"):
        prepare.decode(NAME, tmp_path / "x.png", SIDE)


def test_a_sorted_tree_is_prepared_to_the_same_arrays(tmp_path: Path) -> None:
    base = tree(tmp_path / "sorted")
    tree(tmp_path / "archive")
    sort_images(base)
    (base / "val" / "@eaDir").mkdir()
    for root in ("sorted", "archive"):
        prepare.prepare(NAME, tmp_path / root)
    for split in ("train", "test"):
        ours, theirs = (prepared.read_split(NAME, tmp_path / root, split) for root in ("sorted", "archive"))
        assert np.array_equal(ours[0], theirs[0]) and ours[1].tolist() == theirs[1].tolist()
