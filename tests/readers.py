"""Every reader of files, sound files of its kind, and the law that it keeps whatever a file holds.

The law: what is read has its schema and, written again, is read as the same; or the reader's own error tells the file,
one line per fault. No other exception comes out, nothing takes long or much memory, and nothing is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal
from unittest.mock import patch

import mutations
import numpy as np
import torch
from conftest import TINY
from mutations import Mutation
from PIL import Image
from pydantic import BaseModel
from test_data import Python2Pickle
from test_documents import kinds
from test_prepare import tree

from lthbench.analysis.published import read_references
from lthbench.data import cifar, idx, prepare, prepared, sheets
from lthbench.data.error import DataError
from lthbench.data.image_folder import ANNOTATIONS, read_class_list, scan
from lthbench.data.spec import DATASETS, DataSpec
from lthbench.documents import DocumentError
from lthbench.models.spec import ModelSpec
from lthbench.suite.claims import read_claims
from lthbench.suite.load import load_suite
from lthbench.suite.slurm_options import load_profile
from lthbench.suite.yaml_tree import SuiteError
from lthbench.tasks.checkpoint import UnfitError, check_checkpoint
from lthbench.tasks.header import read_note
from lthbench.tasks.paths import CHECKPOINT
from lthbench.tasks.result import digest_of
from lthbench.tasks.spec import Task, TrainSpec
from lthbench.tasks.tensor_files import (
    _seal,
    digest,
    read_mask,
    read_tensors,
    write_checkpoint,
    write_mask,
    write_tensors,
)
from lthbench.training.recipe import Recipe

SUITES = Path(__file__).parents[1] / "suites"
SECONDS = 1.0  # of processor time
MEMORY = 1 << 30  # bytes above what the process has

Verdict = Literal["accepted", "refused"]


class Fault(Exception):
    """A reader that does not keep the law."""


class Slow(BaseException):
    """A reader took longer than `SECONDS`; no exception that a reader may catch."""


@dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    Attributes:
        path: the file that is damaged.
        sound: contents that are read.
        mutate: damages one of them.
        read: reads the file by what the program reads it by.
        errors: its own, which name the file.
        check: raises where what was read has not its schema, or is not read as the same when it is written again.
        seal: makes the checksums of a damaged content right, so that what is behind them is reached too.
        cost: how many times longer an input takes than one of a small JSON file, about.
    """

    path: Path
    sound: tuple[bytes, ...]
    mutate: Mutation
    read: Callable[[], object]
    errors: tuple[type[Exception], ...]
    check: Callable[[Any], None] = lambda found: models_are_read_as_the_same(found)
    seal: Callable[[bytes], bytes] | None = None
    cost: int = 1

    def input(self, seed: int, number: int) -> bytes:
        """Input `number` of a seed: the sound contents first, and then damaged ones."""
        if number < len(self.sound):
            return self.sound[number]
        rng = random.Random(f"{seed} {number}")
        content = self.mutate(rng, rng.choice(self.sound)) if rng.random() < 0.98 else rng.randbytes(rng.randrange(200))
        if self.seal is not None and rng.random() < 0.5:
            with contextlib.suppress(Exception):  # too damaged for a checksum
                return self.seal(content)
        return content

    def judge(self, content: bytes) -> Verdict:
        """Let the reader read a content.

        Raises:
            Fault: it does not keep the law.
        """
        self.path.write_bytes(content)
        before = _listing(self.path.parent)
        try:
            with bounded():
                found = self.read()
        except self.errors as error:
            lines = str(error).split("\n")
            for line in lines if isinstance(error, SuiteError) else ["\n".join(lines)]:
                if str(self.path.parent) not in line and self.path.name not in line:
                    raise Fault(f"the message does not name the file: {line!r}") from error
                if not line.isprintable():
                    raise Fault(f"the message is not of one line that can be printed: {line!r}") from error
            return "refused"
        except (Exception, Slow) as error:
            raise Fault(f"{type(error).__name__}: {error}") from error
        finally:
            if _listing(self.path.parent) != before:
                raise Fault("something was written beside the file")
        try:
            self.check(found)
        except Exception as error:
            raise Fault(f"what was read is not as it should be: {type(error).__name__}: {error}") from error
        return "accepted"


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        return sorted(
            (entry.name, *((0, 0) if entry.is_dir() else (entry.stat().st_size, entry.stat().st_mtime_ns)))
            for entry in entries
        )


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Bound the processor time and the memory of what is done within."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Slow(f"took more than {SECONDS:g} s")

    before = signal.signal(signal.SIGPROF, end)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + MEMORY, hard))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.signal(signal.SIGPROF, before)


def models_are_read_as_the_same(found: object) -> None:
    """Raise where a model among what was read is not read as the same from what it is written as."""
    if isinstance(found, BaseModel):
        text = found.model_dump_json()
        if type(found).model_validate_json(text).model_dump_json() != text:
            raise ValueError(f"{text[:200]} is read as another")
    elif isinstance(found, dict | list | tuple):
        for each in found.values() if isinstance(found, dict) else found:
            models_are_read_as_the_same(each)


def _with_digest(content: bytes) -> bytes:
    """A result that says its own digest."""
    result = json.loads(content)
    return json.dumps(result | {"digest": digest_of(result)}).encode()


def _with_note_sealed(content: bytes) -> bytes:
    """A checkpoint whose note says the digest of its tensors and its note."""
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    entry = json.loads(header["__metadata__"]["lthbench"])
    rest = {name: value for name, value in entry["note"].items() if name != "digest"}
    path = Path(os.environ["LTHBENCH_CACHE"]) / "unsealed.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    try:
        entry["note"] = rest | {"digest": _seal(read_tensors(path)[0], rest)}
    except DocumentError as error:
        raise ValueError(str(error)) from error
    header["__metadata__"]["lthbench"] = json.dumps(entry)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@contextlib.contextmanager
def readers(folder: Path) -> Iterator[dict[str, Reader]]:
    """All readers, by what they read, with their files below a folder.

    Within, Tiny-ImageNet has 3 classes of 5 + 2 images and CIFAR-100-mini any checksum, and caches lie in the folder.
    """
    scratch = folder / "scratch"
    small = dataclasses.replace(
        DATASETS["tinyimagenet"], num_train=15, num_test=6, num_classes=3, image_shape=(3, 16, 16), stored_side=16
    )
    environment = {"LTHBENCH_CACHE": str(folder / "cache"), "XDG_CONFIG_HOME": str(folder / "config")}
    with (
        patch.dict(os.environ, environment),
        patch.dict(DATASETS, tinyimagenet=small, mnist=dataclasses.replace(DATASETS["mnist"], num_test=2)),
        patch.dict(cifar._MD5, {"cifar100-mini": {}}),
        patch.dict(idx._SHA256, mnist={}),
        patch.object(prepare, "CHUNK_BYTES", 4 * 4 * 16 * 16),
    ):
        scratch.mkdir(parents=True)
        found = {**_documents(folder), **_tensors(folder, scratch), **_texts(folder), **_data(folder)}
        for reader in found.values():
            reader.path.parent.mkdir(parents=True, exist_ok=True)
        yield found


def _documents(folder: Path) -> dict[str, Reader]:
    found = {}
    for name, kind in kinds(folder).items():
        found[name] = Reader(
            kind.path,
            (json.dumps(kind.content).encode(),),
            mutations.mutated_json,
            kind.read,
            () if kind.error is None else (kind.error,),
            seal=_with_digest if name == "result" else None,
            cost=30 if name == "manifest of the embedded images" else 1,
        )
    del found["manifest of prepared images"]  # among data sets, with its images
    return found


def _tensors(folder: Path, scratch: Path) -> dict[str, Reader]:
    generator = torch.Generator().manual_seed(0)
    weights = {"a.weight": torch.randn(3, 4, generator=generator), "b": torch.ones(2, dtype=torch.int64)}
    packed = {"c.weight": torch.zeros(100, 50).index_fill_(0, torch.tensor([3]), 1.5), "d": torch.tensor(2.0)}
    mask = {"a.weight": torch.randn(3, 5, generator=generator) > 0, "b": torch.ones(16, dtype=torch.bool)}
    recipe = Recipe.model_validate({"steps": "8it", "batch_size": 32, "optimizer": {"name": "sgd", "lr": 0.05}})
    spec = TrainSpec(
        model=ModelSpec(name="lenet-300-100"), data=DataSpec(name="fashion-mnist-10k"), recipe=recipe, seed=0
    )
    key = Task(spec).key
    own, environment = folder / "checkpoints" / key, {"torch": "2.14.1", "threads": 1}
    progress = {"step": 3, "epoch_losses": [0.5]}
    state = {"task": key, "progress": progress, "kept": {}, "environment": environment}
    own.mkdir(parents=True)
    made = scratch / "made"

    def contents(write: Callable[[Path], object]) -> bytes:
        write(made)
        return made.read_bytes()

    def weights_again(found: tuple[dict[str, torch.Tensor], dict[str, Any]]) -> None:
        write_tensors(made, *found)
        again, note = read_tensors(made)
        assert digest(again) == digest(found[0]) and repr(note) == repr(found[1])

    def mask_again(found: dict[str, torch.Tensor]) -> None:
        write_mask(made, found)
        assert all(m.dtype == torch.bool for m in found.values()) and digest(read_mask(made)) == digest(found)

    sound = (
        contents(lambda path: write_tensors(path, weights)),
        contents(lambda path: write_tensors(path, packed, {"step": 1, "list": [1, {"a": None}]})),
    )
    masks, damage = (contents(lambda path: write_mask(path, mask)),), mutations.mutated_tensors
    checkpoint = (contents(lambda path: write_checkpoint(path, {**weights, **packed}, state)),)
    places = [folder / "tensors" / f"{name}.safetensors" for name in ("weights", "note", "mask")]
    told = (DocumentError,)
    return {
        "weights": Reader(places[0], sound, damage, lambda: read_tensors(places[0]), told, weights_again),
        "note of tensors": Reader(places[1], sound, damage, lambda: read_note(places[1]), told),
        "mask": Reader(places[2], masks, damage, lambda: read_mask(places[2]), told, mask_again),
        "checkpoint": Reader(
            own / CHECKPOINT, checkpoint, damage, lambda: check_checkpoint(own, spec, (5,), environment),
            (DocumentError, UnfitError), seal=_with_note_sealed,
        ),
    }  # fmt: skip


def _texts(folder: Path) -> dict[str, Reader]:
    suite, claims, references = (folder / "texts" / f"{name}.yaml" for name in ("suite", "claims", "references"))
    profiles = folder / "config" / "lthbench" / "slurm.yaml"
    profile = (
        b"default: {partition: gpu, time: 12h, gpus_per_task: 1, account: me, extra: {exclusive: true}}\n"
        b"large:\n  partition: large\n  time: 1-12:00:00\n  nodes: 2\n  mem: 16G\n  setup:\n    - module load cuda\n"
    )
    reference = (
        b"sources:\n  renda:\n    cite: Renda 2020\n    peer_reviewed: true\nrows:\n  - source: renda\n    pair: p\n"
        b"    arm: late\n    variant: dense\n    metric: test_accuracy\n    n: 246\n    differs: steps\n"
        b"    values: {0: [91.71, 0.23], 1: 90}\n"
    )
    paper = (SUITES / "claims" / "2-stability.yaml").read_bytes()
    quick = (SUITES / "quick.yaml").read_text().replace("claims: [claims]", "").encode()
    yaml, told = mutations.mutated_yaml, (SuiteError,)
    return {
        "suite": Reader(
            suite, (TINY.encode(), quick), yaml, lambda: load_suite(suite), told, lambda found: None, cost=30
        ),
        "claims": Reader(claims, (paper,), yaml, lambda: read_claims([claims])[0], told, cost=40),
        "slurm profiles": Reader(
            profiles, (profile,), yaml, lambda: [load_profile(name) for name in (None, "large")], told,
            lambda found: None, cost=4,
        ),
        "references": Reader(references, (reference,), yaml, lambda: read_references(references), told, cost=5),
    }  # fmt: skip


def _image(format: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 17, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **options)
    return out.getvalue()


ANNOTATED = tuple(f"val_{2 * label + i}.JPEG\tn0{label + 1}\n" for label in range(3) for i in range(2))


def _names(folder: Path, layout: str) -> bytes:
    """The names of the files of a folder of images, with zeros between them."""
    base = tree(folder / layout, layout)
    return b"\0".join(sorted(os.fsencode(path.relative_to(base)) for path in base.rglob("*") if path.is_file()))


def _data(folder: Path) -> dict[str, Reader]:
    told, damage, root = (DataError,), mutations.mutated_bytes, folder / "data"
    batch = Python2Pickle.batch(np.zeros((3, 3072), np.uint8), [1, 2, 3], "fine_labels")
    cifar_file = root / DATASETS["cifar100-mini"].folder / "test"
    digits = root / DATASETS["mnist"].folder
    digits.mkdir(parents=True)
    labels, image_file = digits / "t10k-labels-idx1-ubyte", digits / "t10k-images-idx3-ubyte"
    idx_images = bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]) + bytes(2 * 28 * 28)
    idx_labels = bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9])
    labels.write_bytes(idx_labels)
    idx._SHA256["mnist"] |= {
        file: hashlib.sha256(c).hexdigest() for file, c in ((labels.name, idx_labels), (image_file.name, idx_images))
    }
    images = tree(root, "archive")
    annotations = images / "val" / "val_annotations.txt"
    ready = prepare.prepare("tinyimagenet", root, workers=1)
    class_list, picture, sheet = (
        folder / "lists" / "classes.txt",
        folder / "pictures" / "a.png",
        folder / "sheets" / "test-0.webp",
    )
    names = folder / "names" / "names"
    sheet.parent.mkdir(parents=True)
    (names.parent / "data").mkdir(parents=True)
    (folder / "embedded").mkdir()
    for part in sheets.FOLDER.iterdir():
        for copied in (sheet.parent, folder / "embedded"):
            (copied / part.name).write_bytes(part.read_bytes())

    def read_cifar() -> object:
        cifar._MD5["cifar100-mini"]["test"] = hashlib.md5(cifar_file.read_bytes()).hexdigest()
        return cifar.read_split("cifar100-mini", root, "test")

    def read_tree() -> object:
        place = names.parent / "data"
        shutil.rmtree(place)
        place.mkdir()
        for line in names.read_bytes().split(b"\0"):
            # What no file system has cannot be read from one.
            with contextlib.suppress(OSError, ValueError):
                name = place / DATASETS["tinyimagenet"].folder / Path(*Path(os.fsdecode(line)).parts)
                if place in Path(os.path.normpath(name)).parents:
                    name.parent.mkdir(parents=True, exist_ok=True)
                    name.write_text("".join(ANNOTATED) if name.name == ANNOTATIONS else "")
        return scan("tinyimagenet", place)

    def sound_arrays(found: tuple[np.ndarray, np.ndarray]) -> None:
        assert (
            found[0].shape == (15, 16, 16) and found[0].dtype == np.int32 and found[1].tolist() == sorted([0, 1, 2] * 5)
        )

    def sound_batch(found: tuple[np.ndarray, np.ndarray]) -> None:
        assert (
            found[0].shape == (len(found[1]), 3, 32, 32) and found[0].dtype == np.uint8 and found[1].dtype == np.int64
        )

    def sound_tree(found: Any) -> None:
        assert len(found.classes) == 3 and len(found.train) == 15 and len(found.test) == 6

    def sound_picture(found: np.ndarray) -> None:
        assert found.shape == (16, 16, 3) and found.dtype == np.uint8

    found = {
        "CIFAR": Reader(cifar_file, (batch,), mutations.mutated_pickle, read_cifar, told, sound_batch, cost=2),
        "idx": Reader(image_file, (idx_images,), damage, lambda: idx.read_split("mnist", root, "test"), told, cost=2),
        "class list": Reader(
            class_list, (b"n01\nn02\nn03\n", b"\xef\xbb\xbfn01 cat\r\nn02 dog\r\n\r\nn03\r\n"), damage,
            lambda: read_class_list(class_list, 3), told,
        ),
        "annotations of a folder of images": Reader(
            annotations, (annotations.read_bytes(),), damage, lambda: scan("tinyimagenet", root), told, sound_tree,
            cost=5,
        ),
        "names of a folder of images": Reader(
            names, tuple(_names(root, layout) for layout in ("flat", "nested", "archive")), mutations.mutated_names,
            read_tree, told, sound_tree, cost=30,
        ),
        "image": Reader(
            picture, (_image("PNG"), _image("JPEG"), _image("JPEG", progressive=True), _image("PNG", bits=4)), damage,
            lambda: prepare.decode("tinyimagenet", picture, 16), told, sound_picture, cost=4,
        ),
        "sheet of embedded images": Reader(
            sheet, ((sheets.FOLDER / sheet.name).read_bytes(),), damage,
            lambda: sheets.read_split("test", sheet.parent), told, cost=30,
        ),
    }  # fmt: skip
    return found | _prepared(folder, ready, sound_arrays)


def _prepared(folder: Path, ready: Path, sound: Callable[[Any], None]) -> dict[str, Reader]:
    """Files of prepared images, each in a copy of their folder, so that damage to one is no other's."""
    found: dict[str, Reader] = {}
    for name, file, mutate in (
        ("manifest of prepared images", "manifest.json", mutations.mutated_json),
        ("prepared images", "train.npy", mutations.mutated_array),
        ("labels of prepared images", "train_labels.npy", mutations.mutated_array),
    ):
        own = folder / file.replace(".", "-") / "prepared" / "tinyimagenet"
        own.mkdir(parents=True)
        for part in ready.iterdir():
            (own / part.name).write_bytes(part.read_bytes())

        def read(root: Path = own.parents[1]) -> object:
            return prepared.read_split("tinyimagenet", root, "train")

        found[name] = Reader(own / file, ((own / file).read_bytes(),), mutate, read, (DataError,), sound, cost=4)
    return found
