"""Sources that need no network: scikit-learn's digits, and gratings drawn by rule."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image

from keras_cnn.data.listing import Listing, Source
from keras_cnn.data.sampling import draw_shots

DIGITS_SEED = 0
DIGITS_TRAIN_SHOTS = 100

ORIENTATIONS = (0, 36, 72, 108, 144)  # degrees
WAVELENGTHS = {"fine": 4.0, "coarse": 8.0}  # pixels


def digits() -> Source:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, as 32x32 RGB.

    100 of each class, drawn with a fixed seed, are train; the other 797 are test.
    """
    splits = {
        split: partial(Listing, f"digits 1 {split}", partial(_digits, split))
        for split in ("train", "test")
    }
    return Source(tuple("0123456789"), splits)


def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # here: it takes a second

    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    train = draw_shots(labels, DIGITS_TRAIN_SHOTS, DIGITS_SEED)
    rest = np.setdiff1d(np.arange(len(labels)), train)
    chosen = np.sort(train) if split == "train" else rest
    grey = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)  # ink from 0 to 16
    large = [Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC) for image in grey]
    return np.stack([np.asarray(image.convert("RGB")) for image in large]), labels[chosen]


def synthetic(count: int) -> Source:
    """Gratings in ten classes: five orientations by two wavelengths, 32x32.

    Phase, both colours, contrast and noise are random, so that neither a pixel nor a mean tells the
    class; one layer of small filters does.

    Args:
        count: Images in each split; classes take turns.
    """
    class_names = tuple(f"{name}_{angle}" for name in WAVELENGTHS for angle in ORIENTATIONS)
    splits = {
        split: partial(Listing, f"synthetic 1 {split} {count}", partial(_gratings, count, seed))
        for seed, split in enumerate(("train", "test"))
    }
    return Source(class_names, splits)


def _gratings(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(count, dtype=np.int64) % (len(WAVELENGTHS) * len(ORIENTATIONS))
    images = np.empty((count, 32, 32, 3), np.uint8)
    for start in range(0, count, 1000):  # in blocks: the noise is eight times the images' size
        stop = min(start + 1000, count)
        rng = np.random.default_rng([seed, start])
        images[start:stop] = _draw_gratings(labels[start:stop], rng)
    return images, labels


def _draw_gratings(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One grating for each label: uint8 (n, 32, 32, 3)."""
    n = len(labels)
    wavelength = np.array(list(WAVELENGTHS.values()))[labels // len(ORIENTATIONS)]
    radians = np.deg2rad(np.array(ORIENTATIONS))[labels % len(ORIENTATIONS)]
    frequency = 2 * np.pi / wavelength[:, None] * np.stack([np.sin(radians), np.cos(radians)], 1)
    pixels = np.mgrid[0:32, 0:32].reshape(2, -1)  # (y and x, h * w)
    phase = rng.uniform(0, 2 * np.pi, (n, 1))
    wave = np.sin(frequency @ pixels + phase).reshape(n, 32, 32, 1)
    middle = rng.uniform(80, 176, (n, 1, 1, 3))
    swing = rng.uniform(20, 70, (n, 1, 1, 3)) * rng.choice([-1, 1], (n, 1, 1, 3))
    noise = rng.normal(0, 10, (n, 32, 32, 3))
    return np.clip(np.rint(middle + swing * wave + noise), 0, 255).astype(np.uint8)
