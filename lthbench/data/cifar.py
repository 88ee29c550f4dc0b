"""CIFAR's Python 2 pickles, read by an interpreter of the few opcodes that they use, which can call nothing.

A pickle is a program: loading one may import and call anything. CIFAR's files need lists, dicts, byte
strings, integers and one uint8 array; `decode` understands exactly the opcodes that build those. The NumPy names that
the array is made from stand for plain tuples here; every other name or opcode is refused. Nested tuples can grow
exponentially when hashed, printed or converted, so none of this is done to their contents.
"""

from __future__ import annotations

import hashlib
import math
import pickletools
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from lthbench.data.error import damaged, missing
from lthbench.data.spec import DATASETS

_TRAIN10 = [f"data_batch_{i}" for i in range(1, 6)]

# MD5 as torchvision publishes them; those of cifar100-mini are of its own files.
_MD5 = {
    "cifar10": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {"train": "16019d7e3df5f24257cddd939b257f8d", "test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    "cifar100-mini": {
        "train": "90bf77e9e49ced4e18850c1cc2639101",
        "test": "a5d76221fc6a3ec6b85edea16ca65614",
    },
}


def read_split(name: str, root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split of `name` below the data folder `root`.

    Returns:
        images uint8 [N, 3, 32, 32] and (fine) labels int64 [N], in file order.

    Raises:
        DataError: a file is missing, is not the original, or holds something other than CIFAR's arrays.
    """
    folder = root / DATASETS[name].folder
    files = {"train": _TRAIN10, "test": ["test_batch"]} if name == "cifar10" else {"train": ["train"], "test": ["test"]}
    parts = [_read(name, folder / file) for file in files[split]]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _read(name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one batch file."""
    if not path.is_file():
        raise missing(name, path, "a batch of CIFAR's Python version")
    if (size := path.stat().st_size) > _LARGEST:
        raise damaged(name, path, f"has {size:,} bytes", f"at most {_LARGEST:,}")
    raw = path.read_bytes()
    digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if digest != _MD5[name][path.name]:
        raise damaged(name, path, f"has MD5 {digest}", f"the original's {_MD5[name][path.name]}")
    try:
        batch = decode(raw)
        images, numbers = batch.get("data"), batch.get("labels" if name == "cifar10" else "fine_labels")
        if not isinstance(images, np.ndarray) or not isinstance(numbers, list) or not _are_integers(numbers):
            raise ValueError("it has no array with its labels")
        labels = np.array(numbers, np.int64)
    except ValueError as error:
        raise damaged(name, path, f"is not a CIFAR batch ({error})", "byte strings, integers and one array") from error
    if images.shape != (len(labels), 3072):
        raise damaged(name, path, f"holds an array {images.shape}", f"({len(labels)}, 3072)")
    return images.reshape(-1, 3, 32, 32), labels


_LARGEST = 1 << 28  # bytes; CIFAR-100's train images have 148 MiB
_MARK = object()
_ARRAY, _NDARRAY, _DTYPE = ("reconstruct",), ("ndarray",), ("dtype",)
_GLOBALS = {
    "numpy.core.multiarray _reconstruct": _ARRAY,
    "numpy ndarray": _NDARRAY,
    "numpy dtype": _DTYPE,
}


class _Array:
    """An array under construction: made by REDUCE, filled by BUILD."""

    value: np.ndarray | None = None


def decode(raw: bytes) -> dict[str, Any]:
    """Return the dict that a CIFAR batch file holds; strings as str (latin-1), its array as uint8 [N, 3072].

    Raises:
        ValueError: an opcode, name or value that CIFAR's files do not contain. Nothing is imported or called.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    try:
        arg: Any
        for opcode, arg, _ in pickletools.genops(raw):
            match opcode.name:
                case "PROTO":
                    pass
                case "STOP":
                    break
                case "EMPTY_DICT":
                    stack.append({})
                case "EMPTY_LIST":
                    stack.append([])
                case "MARK":
                    stack.append(_MARK)
                case "BINPUT" | "LONG_BINPUT":
                    memo[arg] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[arg])
                case "SHORT_BINSTRING" | "BINSTRING" | "BININT" | "BININT1" | "BININT2":
                    stack.append(arg)
                case "NONE":
                    stack.append(None)
                case "NEWFALSE":
                    stack.append(False)
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    count = int(opcode.name[-1])
                    stack[-count:] = [tuple(stack[-count:])]
                case "TUPLE":
                    stack.append(tuple(_to_mark(stack)))
                case "APPENDS":
                    items = _to_mark(stack)
                    stack[-1].extend(items)
                case "SETITEMS":
                    items = _to_mark(stack)
                    if not all(isinstance(key, str) for key in items[::2]):
                        raise ValueError("it has a key that is not a string")
                    stack[-1].update(zip(items[::2], items[1::2], strict=True))
                case "GLOBAL":
                    if arg not in _GLOBALS:
                        raise ValueError(f"it names {arg!r}")
                    stack.append(_GLOBALS[arg])
                case "REDUCE":
                    args = stack.pop()
                    stack[-1] = _reduce(stack[-1], args)
                case "BUILD":
                    state = stack.pop()
                    _fill(stack[-1], state)
                case other:
                    raise ValueError(f"it contains the opcode {other}")
    except (IndexError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"its opcodes do not fit together: {error!r}") from error
    if len(stack) != 1 or not isinstance(stack[0], dict):
        raise ValueError("it does not hold one dict")
    return {key: value.value if isinstance(value, _Array) else value for key, value in stack[0].items()}


def _to_mark(stack: list[Any]) -> list[Any]:
    """Take what lies above the topmost mark from a stack, and the mark."""
    at = len(stack) - 1 - stack[::-1].index(_MARK)
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _are_integers(values: Iterable[object]) -> bool:
    return all(type(value) is int for value in values)


def _reduce(function: object, args: object) -> object:
    """What CIFAR's REDUCE opcodes make: an empty array, or the description of uint8."""
    if function is _ARRAY and args == (_NDARRAY, (0,), "b"):
        return _Array()
    if function is _DTYPE and args == ("u1", 0, 1):
        return _DTYPE
    raise ValueError(f"it makes {reprlib.repr(function)} of {reprlib.repr(args)}")


def _fill(target: object, state: object) -> None:
    """What CIFAR's BUILD opcodes do: set the array's shape and bytes; the state of uint8 says nothing new."""
    if target is _DTYPE:
        return
    if not isinstance(target, _Array) or not isinstance(state, tuple):
        raise ValueError(f"it sets the state of {reprlib.repr(target)}")
    version, shape, dtype, fortran, content = state
    sizes = isinstance(shape, tuple) and _are_integers(shape)
    if not sizes or (version, dtype, fortran) != (1, _DTYPE, False) or len(content) != math.prod(shape):
        raise ValueError("its array is not uint8 in C order of the stated shape")
    target.value = np.frombuffer(content.encode("latin-1"), np.uint8).reshape(shape)
