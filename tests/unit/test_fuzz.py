"""Readers of files keep their law (tests/readers.py) whatever a file holds; ci/fuzz.py tries many more inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
import readers as known_readers
from conftest import TINY
from readers import Reader
from test_data import Python2Pickle

from lthbench.data import sheets
from lthbench.tasks.header import metadata

NAMES = (
    "result", "failure", "lease", "stall", "record of jobs", "golden", "looks", "calibration",
    "manifest of the embedded images", "weights", "note of tensors", "mask", "checkpoint", "suite", "claims",
    "slurm profiles", "references", "CIFAR", "idx", "class list", "annotations of a folder of images",
    "names of a folder of images", "image", "sheet of embedded images", "manifest of prepared images",
    "prepared images", "labels of prepared images",
)  # fmt: skip


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Reader]]:
    with known_readers.readers(tmp_path_factory.mktemp("readers") / "files") as found:
        yield found


def test_no_reader_is_left_out(readers: dict[str, Reader]) -> None:
    assert tuple(readers) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_reads_sound_files_and_keeps_its_law_with_damaged_ones(readers: dict[str, Reader], name: str) -> None:
    reader = readers[name]
    for number in range(len(reader.sound)):
        assert reader.judge(reader.input(0, number)) == "accepted"
    for number in range(len(reader.sound), 300 // reader.cost):
        reader.judge(reader.input(0, number))


def mask_of(shapes: object) -> bytes:
    """A file with the note of a mask, and two bytes of bits for `a`."""
    header = {
        "__metadata__": metadata({"shapes": shapes}, {}),
        "a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\xff\xff"


def array_of(header: bytes, version: bytes = b"\1\0", length: bytes | None = None) -> bytes:
    """A .npy file with a header."""
    return b"\x93NUMPY" + version + (length or len(header).to_bytes(2, "little")) + header + bytes(1000)


# Tuples that hold one another, each twice: what is printed, hashed or made an array of them has 2^40 parts.
BOMB = b"K\1" + b"q\0h\0\x86" * 40
BATCH = Python2Pickle.batch(np.zeros((3, 3072), np.uint8), [1, 2, 3], "fine_labels")
SHAPE = b"M\x03\x00M\x00\x0c\x86"
PAST = {
    "a key that ends a line": ("golden", b'{"suite": "s", "a\\nb": 1}'),
    "a key that is a command to the terminal": ("result", b'{"\\u001b[31m": 1}'),
    "a source that ends a line": (
        "references",
        b'sources: {}\nrows: [{source: "a\\nb", pair: p, arm: a, variant: v, metric: onset, values: {0: 1}}]',
    ),
    "a source that is a command to the terminal": (
        "references",
        b'sources: {}\nrows: [{source: "\\e[31m", pair: p, arm: a, variant: v, metric: onset, values: {0: 1}}]',
    ),
    "a length that ends a line": ("suite", TINY.replace("steps: 3ep", 'steps: "a\\nb"').encode()),
    "a bound that is no number": (
        "claims",
        b"C1:\n  sentence: s\n  origin: o\n  experiments: [imp]\n  tests:\n    - {what: w, test: contrast, "
        b"plus: {early: ticket}, minus: {early: dense}, than: .inf}",
    ),
    "a name that ends a line": (
        "record of jobs",
        b'{"name": "\\na", "suite": "s", "cluster": "slurm", "submitted": "now", "lanes": [], "job": "7"}',
    ),
    "a file name that is a command to the terminal": ("annotations of a folder of images", b"v\x1b[31m.JPEG\tn03\n"),
    "half of a character in a text": ("claims", b'C1: {sentence: "\\ud800", origin: "\\ud800"}'),
    "half of a character in a key": ("suite", b'"\\ud800": 1'),
    "a key of a suite that ends a line": ("suite", b'"a\\nb": 1'),
    "a mask without shapes": ("mask", mask_of(None)),
    "a mask whose shapes are a list": ("mask", mask_of([2])),
    "a mask whose shape is a number": ("mask", mask_of({"a": 9223372036854775807})),
    "a mask whose shape is text": ("mask", mask_of({"a": ["0", 5]})),
    "a mask whose shape is infinite": ("mask", mask_of({"a": [float("inf"), 3]})),
    "a mask of more weights than memory": ("mask", mask_of({"a": [1 << 62]})),
    "a mask of less than no weights": ("mask", mask_of({"a": [-3, -5]})),
    "a mask of more weights than bits": ("mask", mask_of({"a": [17]})),
    "a mask of a layer that is not there": ("mask", mask_of({"b": [16]})),
    "an empty batch": ("CIFAR", b"\x80\2}."),
    "a batch whose data are a number": ("CIFAR", b"\x80\2}(U\4dataK\1U\x0bfine_labels](K\1eu."),
    "a batch whose labels are strings": ("CIFAR", BATCH.replace(b"K\1K\2K\3e", b"U\1aU\1bU\1ce")),
    "a pickle that takes forever to print": ("CIFAR", b"\x80\2N" + BOMB + b"R."),
    "a pickle that takes forever to hash": ("CIFAR", b"\x80\2}(" + BOMB + b"K\1u."),
    "a pickle whose labels take forever": ("CIFAR", BATCH.replace(b"K\1K\2K\3e", BOMB + b"e")),
    "a pickle whose shape takes forever": ("CIFAR", BATCH.replace(SHAPE, BOMB)),
    "a pickle of deep tuples": ("CIFAR", b"\x80\2NK\1" + b"\x85" * 100_000 + b"R."),
    "a manifest of no images": (
        "manifest of the embedded images",
        re.sub(rb'"test-0.webp"', b"", (sheets.FOLDER / "manifest.json").read_bytes()),
    ),
    "an array of nested brackets": ("prepared images", array_of(b"{'shape': " + b"(" * 300 + b"\n")),
    "an array of less than no images": (
        "prepared images",
        array_of(b"{'descr': '|u1', 'fortran_order': False, 'shape': (-6, 16, 4), }\n"),
    ),
    "an array beyond all memory": (
        "labels of prepared images",
        array_of(b"{'descr': '<i8', 'fortran_order': False, 'shape': (1%s,), }\n" % (b"0" * 30)),
    ),
    "an array whose header is beyond all memory": (
        "labels of prepared images",
        array_of(b"", b"\3\0", b"\xff\xff\xff\x7f"),
    ),
}


def test_a_picture_that_claims_more_pixels_than_it_has_takes_no_more_memory_than_its_file(
    readers: dict[str, Reader],
) -> None:
    picture = bytearray(readers["image"].sound[0])
    at = picture.index(b"IDAT") - 4
    picture[at : at + 4] = b"\xa1\0\0\0"  # 2.5 GiB
    assert readers["image"].judge(bytes(picture)) == "accepted", "the pixels themselves are whole"


@pytest.mark.parametrize(
    ("field", "value"),
    [("chunk_images", 1 << 63), ("chunk_images", 7), ("chunks_sha256", []), ("chunks_sha256", ["0"])],
)
def test_a_manifest_whose_checksums_are_not_those_of_all_images_is_refused(
    field: str, value: object, readers: dict[str, Reader]
) -> None:
    reader = readers["manifest of prepared images"]
    manifest = json.loads(reader.sound[0])
    (manifest if field in manifest else manifest["train"])[field] = value
    assert reader.judge(json.dumps(manifest).encode()) == "refused"


def test_a_checkpoint_of_an_environment_whose_names_end_a_line_is_refused_on_one(readers: dict[str, Reader]) -> None:
    content = readers["checkpoint"].sound[0]
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    entry = json.loads(header["__metadata__"]["lthbench"])
    entry["note"]["environment"]["a\nb"] = 2
    header["__metadata__"]["lthbench"] = json.dumps(entry)
    text = json.dumps(header).encode()
    changed = len(text).to_bytes(8, "little") + text + content[8 + size :]
    assert readers["checkpoint"].judge(known_readers._with_note_sealed(changed)) == "refused"


@pytest.mark.parametrize("what", PAST)
def test_what_a_reader_once_stumbled_over_is_refused(readers: dict[str, Reader], what: str) -> None:
    name, content = PAST[what]
    assert readers[name].judge(content) == "refused"
