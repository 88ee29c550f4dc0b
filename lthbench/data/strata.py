"""Stratified random orders: whatever stands side by side in one has the classes in the proportions of the whole.

Files are often sorted by class, so that a first part of them, or a batch of neighbours, is a sample of a few classes.
Every subset and every batch of a set that is not drawn by a seed of its own is taken from such an order instead.
"""

from __future__ import annotations

import numpy as np

# Streams, by what they are for (ASCII). Their numbers are part of what a data set's division means: never change one.
DIVISION, SAMPLE = 0x6C7468, 0x73616D706C65


def random_words(count: int, key: int) -> np.ndarray:
    """Two random numbers for each of `count` images, uint64 [count, 2]; the same for ever for a stream `key`."""
    # Raw Philox words: NumPy promises never to change them, which it does not for its distributions.
    return np.random.Philox(key=key).random_raw(2 * count).reshape(2, count).T


def stratified_order(labels: np.ndarray, words: np.ndarray) -> np.ndarray:
    """An order of images any part of which has the classes in their shares, as exactly as whole images allow.

    The images of a class stand in a random order, the j-th of n (from 0) at a random place between j/n and (j+1)/n of
    the whole. Of equal classes a first part of a multiple of their number has equally many of each. A smaller first
    part lies within a larger one.

    Args:
        labels: int64 [N].
        words: uint64 [N, 2], the images' random numbers.

    Returns:
        int64 [N], positions in `labels`.
    """
    shuffled = np.argsort(words[:, 0], kind="stable")
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        # 32 bits leave the sum exact.
        place[members] = (np.arange(len(members)) + (words[members, 1] >> 32) / 2**32) / len(members)
    return np.argsort(place, kind="stable")
