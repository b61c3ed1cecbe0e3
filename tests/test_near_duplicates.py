"""Perceptual hashes against SciPy, and near duplicates against counting bits one by one."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.fft import dctn
from test_decode import smooth

from keras_cnn import data
from keras_cnn.data import image_file, inspect, near_duplicates
from keras_cnn.data.fit import FITS

RNG = np.random.default_rng(0)


def squashed(image: Image.Image) -> np.ndarray:
    return image_file.decode_image(np.asarray(image), near_duplicates.SIDE, "squash")[0]


def test_hashes_are_signs_of_scipys_dct():
    images = RNG.integers(0, 256, (40, 32, 32, 3), np.uint8)
    images[:, 8:, :, 0] //= 3  # colours that differ between parts of a picture
    images[:, :, 9:, 2] //= 2
    found = near_duplicates.hashes(images)
    grey = images @ np.array([0.299, 0.587, 0.114])
    along_diagonals = sorted((u + v, u, v) for u in range(32) for v in range(32))[1:49]
    for image, light, number in zip(images.astype(float), grey, found, strict=True):
        parts = dctn(light, norm="ortho")
        bits = [parts[u, v] > 0 for _, u, v in along_diagonals]
        for channel, weight in ((2, 0.564), (0, 0.713)):
            parts = dctn(weight * (image[..., channel] - light), norm="ortho")
            bits += [parts[u, v] > 20 for _, u, v in along_diagonals[:8]]
        assert [int(number) >> place & 1 for place in range(64)] == bits


def test_plain_pictures_are_like_their_equals_alone():
    shades = np.repeat(np.arange(0, 250, 25), 2)
    plain = np.broadcast_to(shades[:, None, None, None], (20, 32, 32, 3)).astype(np.uint8)
    chains = near_duplicates.chains(near_duplicates.hashes(plain))
    assert len(np.unique(chains)) == 10 and (chains[::2] == chains[1::2]).all()
    assert near_duplicates.hashes(plain[:0]).shape == (0,)


def planted(count: int, most_bits: int) -> np.ndarray:
    """Random hashes, half of them with a few bits of another one changed."""
    numbers = RNG.integers(0, 2**64, count, np.uint64)
    for index in range(count // 2, count):
        changed = RNG.choice(64, RNG.integers(0, most_bits + 3), replace=False)
        flips = sum(1 << int(bit) for bit in changed)
        numbers[index] = numbers[RNG.integers(count // 2)] ^ np.uint64(flips)
    return numbers


@pytest.mark.parametrize("most_bits", [0, 1, 4, 9])
@pytest.mark.parametrize("has_others", [False, True])
@pytest.mark.parametrize("numpy", [1, 2])
def test_pairs_are_those_of_counting_bits(most_bits, has_others, numpy, monkeypatch):
    if numpy == 1:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    monkeypatch.setattr(near_duplicates, "BLOCK", 50)
    numbers, others = planted(120, most_bits), planted(90, most_bits)
    others[:40] = numbers[-40:]
    rest = others if has_others else numbers
    expected = [
        [i, j]
        for i, one in enumerate(numbers.tolist())
        for j, other in enumerate(rest.tolist())
        if (has_others or i < j) and (one ^ other).bit_count() <= most_bits
    ]
    found = near_duplicates.pairs(numbers, others if has_others else None, most_bits)
    assert found.tolist() == expected and len(expected) > 10


def test_chains_join_what_is_near_to_something_near():
    links = [0, 0b1111, 0b1111_1111, 0b1111_1111_1111]  # each 4 bits from the next
    apart = np.array([*links, 2**63 + 2**40 + 2**50 + 2**60 + 2**30, 0], np.uint64)
    assert near_duplicates.groups(apart) == [[0, 1, 2, 3, 5]]
    assert near_duplicates.groups(apart, most_bits=3) == [[0, 5]]
    many = np.zeros(300_000, np.uint64)  # of which there are too many pairs to list
    assert (near_duplicates.chains(many) == 0).all()


@pytest.fixture(scope="module")
def photos():
    return data.load("clothing", 64).splits["train"].images[::15]


ALTERED = {
    "jpeg": (lambda image: image, 0.99),
    "half": (lambda image: image.resize((32, 32), Image.Resampling.BILINEAR), 0.98),
    "darker": (lambda image: ImageEnhance.Brightness(image).enhance(0.8), 0.97),
    "brighter": (lambda image: ImageEnhance.Brightness(image).enhance(1.2), 0.85),
    "cut": (lambda image: image.crop((1, 1, 64, 64)), 0.7),  # 1.6 percent of two edges
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_photographs_are_near_and_others_are_not(photos, name):
    alter, least = ALTERED[name]
    hashes, altered = [], []
    for photo in photos:
        file = io.BytesIO()
        alter(Image.fromarray(photo)).save(file, "JPEG", quality=75)
        hashes.append(squashed(Image.fromarray(photo)))
        altered.append(squashed(Image.open(file)))
    hashes, altered = (near_duplicates.hashes(np.stack(one)) for one in (hashes, altered))
    near = near_duplicates.pairs(hashes, altered)
    assert (near[:, 0] == near[:, 1]).sum() >= least * len(photos)
    assert (near[:, 0] != near[:, 1]).sum() <= 2  # of 42,000


def test_hashes_are_the_same_at_any_size_and_fit(tmp_path):
    for split, name in ((split, name) for split in ("train", "test") for name in "ab"):
        (tmp_path / split / name).mkdir(parents=True)
        for number, (height, width) in enumerate([(900, 700), (64, 640), (333, 222)]):
            image = smooth(height, width)
            middle = slice(height // 4, height // 2), slice(width // 3, width // 2)
            image[middle] = RNG.integers(0, 256, 3)
            place = tmp_path / split / name / str(number)
            Image.fromarray(image).save(place.with_suffix(".jpg"), quality=90)
            Image.fromarray(image).save(place.with_suffix(".png"))
    first = data.load(str(tmp_path), 32).hashes["train"]
    for size, fit in ((size, fit) for size in (8, 100, 224) for fit in FITS):
        np.testing.assert_array_equal(
            data.load(str(tmp_path), size, ("train",), fit).hashes["train"], first
        )


def test_near_duplicates_across_given_splits_are_told(tmp_path, photos):
    for number, photo in enumerate(photos[:8]):
        for split, name in (("train", "ab"[number % 2]), ("test", "ab"[number % 2])):
            (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
            picture = photo if split == "train" else photos[-1 - number]
            Image.fromarray(picture).save(tmp_path / split / name / f"{number}.png")
    for number in (0, 3):  # smaller, and in other bytes
        copy = tmp_path / "test" / "ab"[number % 2] / f"copy {number}.jpg"
        Image.fromarray(photos[number]).resize((48, 48)).save(copy, quality=85)
    description = inspect.describe(str(tmp_path), 32)
    found = {tuple(one.name for one in g) for g in description.nearly_shared("train", "test")}
    assert found == {
        ("train/a/0.png", "test/a/copy 0.jpg"), ("train/b/3.png", "test/b/copy 3.jpg"),
    }  # fmt: skip
    text = inspect.render(description)
    assert "nearly the same pictures in train and test (2)" in text and "same pixels" not in text
    assert inspect.describe("digits", 32).near_duplicates == ()
