"""Own data sets: those that `lthbench data add` has prepared in a data folder, made known by their manifests.

A process knows the own sets of one data folder at a time. The digest of a set's content is part of what a suite says of
it (`DataSpec.digest`) and so of task keys: two sets of one name are two.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lthbench.data.datasets import DATASETS, DataInfo, data_root
from lthbench.documents import on_one_line

if TYPE_CHECKING:
    from lthbench.data.prepared import Manifest

PROBLEMS: dict[str, str] = {}
"""Own sets of the folder that cannot be used -> why."""


def know_own_sets(root: Path | None) -> None:
    """Let suites name the own data sets of a data folder, and no others.

    What is wrong with one that no suite names is no matter; of one that is named it is told (`PROBLEMS`).
    """
    root = data_root(root)
    for name in [name for name, info in DATASETS.items() if info.digest]:
        del DATASETS[name]
    PROBLEMS.clear()
    paths = sorted((root / "prepared").glob("*/manifest.json")) if root is not None else []
    if not paths:
        return
    from lthbench.data.error import DataError
    from lthbench.data.prepared import read_own_manifest

    for path in paths:
        name = path.parent.name
        try:
            manifest = read_own_manifest(path)
        except DataError as error:
            if name not in DATASETS:
                PROBLEMS[on_one_line(name)] = str(error)
            continue
        if manifest is not None and name not in DATASETS:
            DATASETS[name] = _info(manifest)


def _info(manifest: Manifest) -> DataInfo:
    own = manifest.own
    assert own is not None
    counts = manifest.train.count, manifest.test.count
    return DataInfo(
        "own", f"prepared/{manifest.name}", *counts, own.image_shape, len(manifest.classes), own.mean, own.std,
        own.origin, "your own", balanced=own.balanced, digest=own.digest,
    )  # fmt: skip
