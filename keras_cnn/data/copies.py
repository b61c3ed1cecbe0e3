"""Images with the same pixels."""

from __future__ import annotations

import hashlib

import numpy as np


def digests(images: np.ndarray) -> np.ndarray:
    """A number for each image, equal where the pixels are.

    Args:
        images: (n, h, w, 3) uint8.

    Returns:
        uint64 (n,); two of a million different images share one once in 10**7 times.
    """
    raw = b"".join(hashlib.blake2b(image, digest_size=8).digest() for image in images)
    return np.frombuffer(raw, np.uint64)


def groups(digests: np.ndarray) -> list[list[int]]:
    """The indices (n,) of images that occur more than once, in the order of their first ones."""
    order = np.argsort(digests, kind="stable")
    starts = np.flatnonzero(np.diff(digests[order])) + 1
    return sorted(group.tolist() for group in np.split(order, starts) if len(group) > 1)
