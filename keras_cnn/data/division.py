"""Which images of a flat folder are test: each image's look decides for it alone.

An image is test where a number made of its perceptual hash is in the lowest fifth: adding, removing
and renaming images moves no other one, at any image size, and between machines. The price is a
share of test images that is 20 percent of each class on average alone: of 100 images 12 to 28 are
test in 19 of 20 classes.

Near duplicates are on one side, that of the first of them by another such number. So an image that
is added goes to the side of its near duplicates, or takes them along to its own: not where the
hashes are equal, as those of most copies of another quality are, else in one of six cases, and the
fewer the longer the chain. A chain of more than two thirds of a class's images is cut into equal
hashes: those images are alike beyond what the hash tells apart, as scans of one kind are.

Where a class would have no test image, that of its images nearest to being one is test, with its
near duplicates; likewise for training. So much of a class of few images may move when others join
it; from 20 images on, one class in a hundred has none.
"""

from __future__ import annotations

import numpy as np

from keras_cnn.data import near_duplicates

TEST_FRACTION = 0.2
LARGEST_CHAIN = 2 / 3  # of a class's images


def draw_test(labels: np.ndarray, hashes: np.ndarray) -> np.ndarray | None:
    """Chooses about a fifth of a flat folder's images of each class as test.

    Args:
        labels: int64 (n,), from 0 on.
        hashes: uint64 (n,), as `near_duplicates.hashes` gives.

    Returns:
        Bool (n,); None where a class has one image alone.
    """
    counts = np.bincount(labels)
    if counts.min() < 2:
        return None
    unit = _units(labels, hashes, counts)
    place = _mixed(hashes)  # of each image on the way from test to training
    leader = _leaders(unit, _mixed(_mixed(hashes)))
    place = place[leader][unit]
    is_test = place < np.uint64(TEST_FRACTION * 2**64)
    for label in range(len(counts)):
        members = np.flatnonzero(labels == label)
        to_training = members[np.argsort(place[members], kind="stable")]
        for side, nearest_first in ((True, to_training), (False, to_training[::-1])):
            if not (is_test[members] == side).any():
                moved = _movable(nearest_first, unit, labels, is_test)
                if moved is None:  # all are equal, or near to another class's last one
                    moved = nearest_first[:1] if side else nearest_first[:-1]
                is_test[moved] = side
    return is_test


def _units(labels: np.ndarray, hashes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Numbers what stays together: chains of near duplicates, or equal hashes: int64 (n,)."""
    chain = near_duplicates.chains(hashes)
    # How many images are of an image's chain and of its class.
    part = chain * len(counts) + labels
    _, place, alike = np.unique(part, return_inverse=True, return_counts=True)
    is_large = np.isin(chain, chain[alike[place] > LARGEST_CHAIN * counts[labels]])
    _, equal = np.unique(hashes, return_inverse=True)
    _, unit = np.unique(np.where(is_large, chain.max() + 1 + equal, chain), return_inverse=True)
    return unit


def _leaders(unit: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """The member of each unit (n,) that is the first by its rank (n,): (units,)."""
    order = np.lexsort((rank, unit))
    _, first = np.unique(unit[order], return_index=True)
    return order[first]


def _movable(
    nearest_first: np.ndarray, unit: np.ndarray, labels: np.ndarray, is_test: np.ndarray
) -> np.ndarray | None:
    """The images of the first unit that leaves each class one on its side; None: none does."""
    for image in nearest_first:
        together = np.flatnonzero(unit == unit[image])
        others = (is_test == is_test[image]) & (unit != unit[image])
        if np.isin(labels[together], labels[others]).all():
            return together
    return None


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Numbers uint64 (n,) made of others, as if at random (the last step of SplitMix64)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
