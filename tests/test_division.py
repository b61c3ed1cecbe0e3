"""The split of a flat folder: what moves, what stays together, what each class gets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_folders import SIZE, fill

from keras_cnn import data
from keras_cnn.data import division
from keras_cnn.data.fit import FITS


def by_content(folder: Path, image_size: int = SIZE, fit: str = "crop") -> dict[bytes, str]:
    """The side of each image of a flat folder, by the content of its file."""
    dataset = data.load(str(folder), image_size, fit=fit)
    return {
        (folder / name).read_bytes(): split
        for split, names in dataset.files.items()
        for name in names()
    }


@pytest.mark.parametrize("seed", range(20))
def test_no_image_moves_when_others_join_leave_or_change_places(seed):
    rng = np.random.default_rng(seed)
    count = rng.integers(150, 400)
    hashes = rng.integers(0, 2**64, count, np.uint64)
    labels = rng.integers(0, 3, count)
    whole = division.draw_test(labels, hashes)
    order = rng.permutation(count)[: rng.integers(120, count)]
    np.testing.assert_array_equal(division.draw_test(labels[order], hashes[order]), whole[order])
    moved = (labels + 1) % 3  # to another class
    np.testing.assert_array_equal(division.draw_test(moved, hashes), whole)


def test_a_folder_that_grows_shrinks_and_is_renamed_keeps_its_sides(tmp_path):
    folder = tmp_path / "flat"
    fill(folder, 0, a=60, b=40)
    before = by_content(folder)
    fill(folder / "more", 1, a=30)
    for number in range(30):
        (folder / "more" / "a" / f"{number}.png").rename(folder / "a" / f"0 new {number}.png")
    shutil.rmtree(folder / "more")
    (folder / "b" / "7.png").unlink()
    (folder / "b").rename(folder / "z")
    for number in range(20):
        (folder / "a" / f"{number}.png").rename(folder / "a" / f"renamed {number}.png")
    after = by_content(folder)
    kept = before.keys() & after.keys()
    assert len(kept) == 99 and {after[content] for content in after.keys() - kept} <= {
        *before.values()
    }
    assert all(before[content] == after[content] for content in kept)
    for size, fit in ((17, "crop"), *((64, fit) for fit in FITS)):
        assert by_content(folder, size, fit) == after


def test_a_fifth_is_test_and_near_duplicates_are_on_one_side():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 20_000, np.uint64)
    labels = rng.integers(0, 7, 20_000)
    shares = [division.draw_test(labels, hashes)[labels == label].mean() for label in range(7)]
    assert np.abs(np.array(shares) - 0.2).max() < 0.03  # four standard errors of a binomial
    bursts = np.repeat(hashes[:1000], 5)
    flips = np.uint64(1) << rng.integers(0, 64, 5000).astype(np.uint64)
    is_test = division.draw_test(labels[:5000], bursts ^ flips).reshape(1000, 5)
    assert (is_test == is_test[:, :1]).all()
    assert abs(is_test.mean() - 0.2) < 0.05  # bursts are no likelier to be test


def test_a_copy_of_the_same_hash_takes_nothing_along():
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**64, 300, np.uint64)
    labels = np.zeros(300, int)
    whole = division.draw_test(labels, hashes)
    with_copies = division.draw_test(np.zeros(400, int), np.append(hashes, hashes[:100]))
    np.testing.assert_array_equal(with_copies, np.append(whole, whole[:100]))
    near = np.append(hashes, hashes[:100] ^ np.uint64(1))
    moved = division.draw_test(np.zeros(400, int), near)[:300] != whole
    assert not moved[100:].any() and moved.mean() < 0.1


@pytest.mark.parametrize("seed", range(60))
def test_each_class_has_both_sides_however_few_and_alike_its_images_are(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(2, 9, rng.integers(1, 6))
    labels = np.repeat(np.arange(len(counts)), counts)
    # Few hashes, near to each other, in several classes.
    hashes = rng.integers(0, 2**64, 1 + seed % 12, np.uint64)[
        rng.integers(0, 1 + seed % 12, len(labels))
    ]
    hashes ^= np.uint64(1) << rng.integers(0, 4 + seed, len(labels)).astype(np.uint64)
    is_test = division.draw_test(labels, hashes)
    for label in range(len(counts)):
        assert 0 < is_test[labels == label].sum() < counts[label]


def test_a_class_of_one_image_has_no_split():
    assert division.draw_test(np.array([0, 0, 1]), np.arange(3, dtype=np.uint64)) is None


def test_images_that_are_all_alike_are_split_all_the_same():
    """As digits are: one chain holds a class, or more than one."""
    labels = np.repeat([0, 1], 200)
    hashes = (np.uint64(1) << np.arange(400, dtype=np.uint64) % np.uint64(64)) ^ np.uint64(2**63)
    counts = np.bincount(labels[division.draw_test(labels, hashes)])
    assert (counts > 10).all() and (counts < 80).all()
