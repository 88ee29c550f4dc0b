"""The random numbers of augmentation: one independent stream for each kind.

They are drawn on the host, so that they are the same on every device, and switching one kind on or off leaves
the others' draws alone.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

# The position of a stream in this table is part of what a seed means: append, never reorder.
STREAMS = ("crop", "flip", "resized_crop", "colour", "policy", "erase", "mix")


class Places(NamedTuple):
    """Which images of a batch of `size` are made, int64 [K] or all; random numbers are drawn for the whole batch."""

    size: int
    own: np.ndarray | slice = slice(None)


class Streams:
    """One independent generator for each kind of augmentation, all derived from a step's generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._key = rng.integers(0, 2**64, 2, dtype=np.uint64)

    def __getitem__(self, kind: str) -> np.random.Generator:
        # Counters of different kinds are 2^192 blocks apart and never meet.
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, 0, STREAMS.index(kind)]))

    def own(self, name: str) -> np.random.Generator:
        """The generator of an augmentation that a plugin registers, by its name."""
        word = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
        return np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, word, len(STREAMS)]))
