"""Counter-based random streams: every draw is named by (seed, purpose, counters), so no generator state is kept.

A training killed at any step resumes to the same bits, and the data order can vary while the initialisation
stays. Philox and its numpy front end give the same bits on every machine.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np

Purpose = Literal["init", "head", "order", "augment", "subset", "mask"]


def stream(seed: int, purpose: Purpose, *counters: int | str) -> np.random.Generator:
    """The generator of one named stream; the same name always gives the same numbers.

    Args:
        seed: the replicate.
        purpose: what the numbers are for.
        counters: what distinguishes draws of one purpose, such as a noise number and an epoch, or a
            parameter's name.
    """
    name = "\x1f".join([str(seed), purpose, *(f"{type(c).__name__}:{c}" for c in counters)])
    key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
