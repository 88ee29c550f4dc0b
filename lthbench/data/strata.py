"""Stratified random orders: every contiguous part has the classes in the proportions of the whole.

Files are often sorted by class, so that a first part of them, or a batch of neighbours, is a sample of a few classes.
Every subset and every batch that is not drawn by its own seed is taken from such an order instead.
"""

from __future__ import annotations

import numpy as np

# Streams, by their purpose (ASCII). The numbers determine how data sets are divided: never change one.
DIVISION, SAMPLE = 0x6C7468, 0x73616D706C65


def random_words(count: int, key: int) -> np.ndarray:
    """Two random numbers for each of `count` images, uint64 [count, 2]; fixed for a stream `key`."""
    # Raw Philox words, which NumPy promises never to change, unlike its distributions.
    return np.random.Philox(key=key).random_raw(2 * count).reshape(2, count).T


def stratified_order(labels: np.ndarray, words: np.ndarray) -> np.ndarray:
    """An order of images of which every part is stratified by class, as exactly as whole images allow.

    The images of a class are in a random order, the j-th of n (from 0) at a random position between j/n and (j+1)/n of
    the whole. With classes of equal size, a prefix whose length is a multiple of their number has equally many of each.

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
