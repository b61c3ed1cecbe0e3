"""Random-resized crops (Szegedy et al. 2015, arXiv:1409.4842), an augmentation."""

from __future__ import annotations

import numpy as np
from PIL import Image

VERSION = 1  # raised when a change makes the same call give other images

WIDEST_RATIO = 4 / 3  # of a crop's sides, either way


def random_resized_crops(
    images: np.ndarray, size: int, smallest_share: float, generator: np.random.Generator
) -> np.ndarray:
    """Cuts a random box from each image, flips half of them, scales each to a square.

    The box has a uniformly drawn share of the image's area and a ratio of its sides drawn uniformly
    on a logarithmic scale from 3/4 to 4/3; a side longer than the image's is cut to it. It lies
    anywhere.

    Args:
        images: (n, s, s, 3) uint8.
        size: Height and width of the crops, in pixels.
        smallest_share: Of the area, in (0, 1]; the largest is 1.
        generator: Draws the boxes.

    Returns:
        uint8 (n, size, size, 3).
    """
    count, side = images.shape[:2]
    share = generator.uniform(smallest_share, 1, count)
    ratio = np.exp(generator.uniform(-np.log(WIDEST_RATIO), np.log(WIDEST_RATIO), count))
    heights = side * np.minimum(np.sqrt(share / ratio), 1)
    widths = side * np.minimum(np.sqrt(share * ratio), 1)
    tops = generator.uniform(0, 1, count) * (side - heights)
    lefts = generator.uniform(0, 1, count) * (side - widths)
    flipped = generator.random(count) < 0.5
    return resized(images, tops, lefts, heights, widths, flipped, size)


def resized(
    images: np.ndarray,
    tops: np.ndarray,
    lefts: np.ndarray,
    heights: np.ndarray,
    widths: np.ndarray,
    flipped: np.ndarray,
    size: int,
) -> np.ndarray:
    """Scales a box of each image to a square, bilinear and antialiased.

    Args:
        images: (n, s, s, 3) uint8.
        tops: (n,) floats, the boxes' first rows, in pixels.
        lefts: (n,) floats, their first columns.
        heights: (n,) floats.
        widths: (n,) floats.
        flipped: (n,) whether left and right change places.
        size: Height and width of the result, in pixels.

    Returns:
        uint8 (n, size, size, 3).
    """
    boxes = np.stack([lefts, tops, lefts + widths, tops + heights], axis=1)
    result = np.empty((len(images), size, size, 3), np.uint8)
    for index, box in enumerate(boxes):
        image = Image.fromarray(images[index])
        result[index] = image.resize((size, size), Image.Resampling.BILINEAR, tuple(box))
    result[flipped] = result[flipped, :, ::-1]
    return result
