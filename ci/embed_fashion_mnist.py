"""Write lthbench/data/embedded/ from the original Fashion-MNIST files.

usage: python ci/embed_fashion_mnist.py DATA      (DATA/FashionMNIST/raw holds the idx files; takes 2 minutes)

The first 1,000 train and 200 test images of each class are kept, with exact pixels. Sheets hold them sorted
by class (similar neighbours cost lossless WebP 1.5 % fewer bytes than file order); manifest.json holds
the labels in the original file order, from which the loader restores it, and the checksums it verifies.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from lthbench.data.idx import read_split
from lthbench.data.sheets import COLUMNS, FOLDER, SIDE

PER_CLASS = {"train": 1000, "test": 200}
IMAGES_A_SHEET = 2500
DATA_SET = "fashion-mnist"


def main(root: Path) -> None:
    """Write the sheets and their manifest."""
    manifest: dict[str, object] = {"origin": "https://github.com/zalandoresearch/fashion-mnist"}
    for split, per_class in PER_CLASS.items():
        images, labels = read_split(DATA_SET, root, split)
        kept = np.sort(np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(10)]))
        images, labels = images[kept], labels[kept]
        by_class = np.argsort(labels, kind="stable")
        names = []
        for start in range(0, len(images), IMAGES_A_SHEET):
            part = images[by_class[start : start + IMAGES_A_SHEET]]
            rows = len(part) // COLUMNS
            sheet = part.reshape(rows, COLUMNS, SIDE, SIDE).transpose(0, 2, 1, 3).reshape(rows * SIDE, COLUMNS * SIDE)
            names.append(f"{split}-{start // IMAGES_A_SHEET}.webp")
            Image.fromarray(sheet).save(FOLDER / names[-1], lossless=True, quality=100, method=6)
        manifest[split] = {
            "sheets": names,
            "sha256": hashlib.sha256(images.tobytes()).hexdigest(),
            "labels": "".join(map(str, labels)),
        }
    (FOLDER / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
