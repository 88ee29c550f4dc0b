"""Every kind of JSON file, with every kind of damage: refused in a sentence that names the file, and never taken."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from test_calibration import calibration, rate

from lthbench.analysis.claims.looks import FOLDER, Look, read_looks
from lthbench.analysis.golden.files import Entry, Golden, GoldenError, Recorded, read_golden
from lthbench.data import sheets
from lthbench.data.error import DataError
from lthbench.data.image_folder import class_list_id
from lthbench.data.prepare import MANIFEST, VERSION, folder_of
from lthbench.data.prepared import read_split
from lthbench.documents import DocumentError, read_document
from lthbench.lease import Who, holder_of
from lthbench.runner.slurm.records import LaneRecord, Record, read_records
from lthbench.runner.stall import Stall
from lthbench.suite.calibration import CalibrationError, calibrations, save_calibration
from lthbench.tasks.header import metadata, read_note
from lthbench.tasks.paths import FAILURE, LEASE, RESULT, STALLED
from lthbench.tasks.result import seal
from lthbench.tasks.store import Store, StoreError

KEY = "0" * 32
SHA = "0" * 64


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        content: what stands in a sound one.
        read: reads it by what the program reads it by.
        error: what refuses it; of None, `fallback` is what is read in its place.
        free: dotted places whose values may be of several types.
    """

    path: Path
    content: dict[str, Any]
    read: Callable[[], object]
    error: type[Exception] | None
    fallback: object = None
    free: tuple[str, ...] = ()


def kinds(folder: Path) -> dict[str, Kind]:
    store = Store(folder / "store")
    task, record = store.folder(KEY), Record(
        name="a", suite="s", cluster="slurm", submitted="now", lanes=[LaneRecord(lane="l", keys={KEY: [1]})], job="7"
    )  # fmt: skip
    result = seal(
        {"key": KEY, "status": "ok", "reason": None, "metrics": {"test_accuracy": 0.5}, "artefacts": {}, "inputs": {},
         "seconds": 1.0, "finished": "2026-01-02T03:04:05+00:00", "environment": {"threads": 1}}
    )  # fmt: skip
    golden = Golden(
        suite="s", environment={"torch": "2"}, history=[Entry(date="d", lthbench="1", reason="r")],
        tasks=[Recorded(key=KEY, task="t", status="ok", digests={"mask": "0"}, metrics={"density": 0.5})],
    )  # fmt: skip
    look = Look(claim="C", pair="p", key=KEY, planned=3, n=3, alpha=0.05, outcome="o", finding="f")
    stall = Stall(since="now", seconds=1.0, process=1, machine="m", job="")
    splits = {split: {"count": 1, "labels_sha256": SHA, "chunks_sha256": [SHA]} for split in ("train", "test")}
    prepared = {"name": "tinyimagenet", "version": VERSION, "side": 64, "chunk_images": 1, "pillow": "1",
                "class_list": class_list_id(["a"]), "classes": ["a"], "skipped": {"a": 1}, **splits}  # fmt: skip
    embedded = json.loads((sheets.FOLDER / "manifest.json").read_text())
    return {
        "result": Kind(task / RESULT, result, lambda: store.result(KEY), StoreError),
        "failure": Kind(
            task / FAILURE, {"error": "e"}, lambda: store.failure(KEY), None, "for a reason that cannot be read"
        ),
        "lease": Kind(
            task / LEASE, Who(owner="o", machine="m", pid=1).model_dump(),
            lambda: (found := holder_of(task / LEASE)) and found.who, None, Who(),
        ),
        "stall": Kind(task / STALLED, stall.model_dump(), lambda: read_document(task / STALLED, Stall), DocumentError),
        "record of jobs": Kind(
            store.root / "jobs" / "a" / "array.json", record.model_dump(), lambda: list(read_records(store)),
            StoreError, free=("job",),
        ),
        "golden": Kind(
            folder / "golden" / "g.json", golden.model_dump(), lambda: read_golden(folder / "golden"), GoldenError,
            free=("environment.torch",),
        ),
        "looks": Kind(
            store.root / FOLDER / "l.json", {"seen": "now", "looks": [look.model_dump()]}, lambda: read_looks(store),
            StoreError,
        ),
        "calibration": Kind(
            save_calibration(calibration(trainings=(rate(1.0),))), calibration(trainings=(rate(1.0),)).model_dump(
                mode="json", exclude_unset=True), lambda: calibrations("2.0"), CalibrationError,
        ),
        "manifest of prepared images": Kind(
            folder_of("tinyimagenet", folder) / MANIFEST, prepared,
            lambda: read_split("tinyimagenet", folder, "train"), DataError,
        ),
        "manifest of the embedded images": Kind(
            folder / "embedded" / "manifest.json", embedded, lambda: sheets.read_split("test", folder / "embedded"),
            DataError,
        ),
    }  # fmt: skip


NAMES = (
    "result", "failure", "lease", "stall", "record of jobs", "golden", "looks", "calibration",
    "manifest of prepared images", "manifest of the embedded images",
)  # fmt: skip


@pytest.fixture
def kind(request: pytest.FixtureRequest, tmp_path: Path, own_cache: Path) -> Kind:
    found = kinds(tmp_path)
    assert tuple(found) == NAMES
    chosen = found[request.param]
    chosen.path.parent.mkdir(parents=True, exist_ok=True)
    return chosen


WHOLE = {
    "nothing": b"",
    "a list": b"[1]",
    "null": b"null",
    "text": b'"x"',
    "no number": b"NaN",
    "a number beyond all": b"1e400",
    "a long number": b"1" + b"0" * 10_000,
    "deep nesting": b"[" * 100_000,
    "deep mappings": b'{"a":' * 100_000,
    "half of it": b'{"name": ',
    "no UTF-8": b'{"name": "\xff"}',
    "zeros": b"\0" * 100,
}


@pytest.mark.parametrize("kind", NAMES, indirect=True)
def test_a_sound_file_is_read(kind: Kind) -> None:
    kind.path.write_text(json.dumps(kind.content))
    try:
        assert kind.read() not in (None, kind.fallback, [], {})
    except DataError as error:  # of data sets nothing else is there
        assert str(kind.path) not in str(error)


def refused(kind: Kind, what: str) -> None:
    if kind.error is None:
        assert kind.read() == kind.fallback, what
        return
    with pytest.raises(kind.error) as raised:
        kind.read()
        pytest.fail(f"{what} was taken")
    told = str(raised.value)
    assert str(kind.path) in told and "\n" not in told, (what, told)


@pytest.mark.parametrize("kind", NAMES, indirect=True)
def test_a_file_of_another_kind_is_refused(kind: Kind) -> None:
    for what, content in WHOLE.items():
        kind.path.write_bytes(content)
        refused(kind, what)


def with_every_key_twice(content: Any, path: tuple[Any, ...] = ()) -> Iterator[str]:
    """The content as JSON, each time with one of its keys there twice."""

    def places(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict):
                yield (*path, key)
            if isinstance(child, dict | list):
                yield from places(child, (*path, key))

    for place in places(content, ()):
        copy = json.loads(json.dumps(content))
        parent = copy
        for part in place[:-1]:
            parent = parent[part]
        value = parent.pop(place[-1])
        parent["<<once>>"], parent["<<twice>>"] = value, value
        yield (
            json.dumps(copy).replace('"<<once>>"', json.dumps(place[-1])).replace('"<<twice>>"', json.dumps(place[-1]))
        )


# What stands in a lease only tells who is waited for, and its reader does not wait either.
WITHOUT_LEASE = tuple(name for name in NAMES if name != "lease")


@pytest.mark.parametrize("kind", WITHOUT_LEASE, indirect=True)
def test_a_key_that_occurs_twice_is_refused_wherever_it_is(kind: Kind) -> None:
    for content in with_every_key_twice(kind.content):
        kind.path.write_text(content)
        refused(kind, content[:1000])


ODD: tuple[Any, ...] = (None, [1], {"a": 1}, "x", True, float("nan"), float("inf"), 10**400, -1.5)


def with_every_value_odd(content: Any) -> Iterator[tuple[str, Any, Any]]:
    """Place, odd value and content: the content with one value of it replaced by one of another type."""

    def walk(value: Any, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], Any]]:
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*path, key), child
            if isinstance(child, dict | list):
                yield from walk(child, (*path, key))

    for place, value in walk(content, ()):
        for odd in ODD:
            if type(odd) is type(value) and (not isinstance(odd, float) or odd == -1.5):
                continue  # of the same type, it may be right
            copy = json.loads(json.dumps(content))
            parent = copy
            for part in place[:-1]:
                parent = parent[part]
            parent[place[-1]] = odd
            yield ".".join(map(str, place)), odd, copy


@pytest.mark.parametrize("kind", NAMES, indirect=True)
def test_a_value_of_another_type_is_refused_wherever_it_is(kind: Kind) -> None:
    for place, odd, content in with_every_value_odd(kind.content):
        if place not in kind.free and not (odd == 10**400 and kind.error is None):
            kind.path.write_text(json.dumps(content))
            refused(kind, f"{place}: {odd!r}")


@pytest.mark.parametrize("kind", WITHOUT_LEASE, indirect=True)
def test_a_pipe_and_a_folder_are_refused_and_not_waited_for(kind: Kind) -> None:
    kind.path.unlink(missing_ok=True)
    os.mkfifo(kind.path)
    refused(kind, "a pipe")
    kind.path.unlink()
    kind.path.mkdir()
    refused(kind, "a folder")
    shutil.rmtree(kind.path)


@pytest.mark.parametrize("content", WHOLE.values(), ids=WHOLE)
def test_the_note_in_a_file_of_tensors_is_read_as_carefully(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    outer = json.dumps({"__metadata__": metadata({"step": 1}, {})}).encode()
    inner = json.dumps({"__metadata__": {"lthbench": content.decode("latin1")}}).encode()
    for header in (content, inner):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(DocumentError, match=r"checkpoint\.safetensors"):
            read_note(path)
    path.write_bytes(len(outer).to_bytes(8, "little") + outer)
    assert read_note(path) == {"step": 1}
