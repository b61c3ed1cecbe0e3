"""Random-resized crops (Szegedy et al. 2015, arXiv:1409.4842): the usual change for pretraining."""

from __future__ import annotations

import numpy as np

BLOCK_IMAGES = 64
WIDEST_RATIO = 4 / 3  # of a crop's sides, either way
SAMPLES = 2  # along each side of a pixel: what is scaled down by up to twice is not aliased


def random_resized_crops(
    images: np.ndarray, size: int, smallest_share: float, generator: np.random.Generator
) -> np.ndarray:
    """Cuts a random box from each image, flips half of them, scales each to a square.

    The box has a uniformly drawn share of the image's area and a ratio of its sides drawn uniformly
    on a logarithmic scale from 3/4 to 4/3; a side longer than the image's is cut to it. It lies
    anywhere. Pixels are means of bilinear samples.

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
    """Scales a box of each image to a square.

    Args:
        images: (n, s, s, 3) uint8.
        tops: (n,) of the boxes, in pixels; not whole, as the other three.
        lefts: (n,).
        heights: (n,).
        widths: (n,).
        flipped: (n,) whether left and right change places.
        size: Height and width of the result, in pixels.

    Returns:
        uint8 (n, size, size, 3).
    """
    result = np.empty((len(images), size, size, 3), np.uint8)
    fractions = (np.arange(size * SAMPLES) + 0.5) / (size * SAMPLES)
    for start in range(0, len(images), BLOCK_IMAGES):
        block = slice(start, start + BLOCK_IMAGES)
        across = np.where(flipped[block, None], fractions[::-1], fractions)
        rows = tops[block, None] + heights[block, None] * fractions
        columns = lefts[block, None] + widths[block, None] * across
        sampled = _interpolated(images[block].astype(np.float32), rows)  # (b, size, s, 3)
        # (b, size, s, 3) -> (b, s, size, 3) -> (b, size, size, 3), and the axes back again
        sampled = _interpolated(sampled.transpose(0, 2, 1, 3), columns).transpose(0, 2, 1, 3)
        result[block] = np.rint(sampled)
    return result


def _interpolated(images: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Bilinear along the second axis, then the mean of each pixel's samples.

    Args:
        images: (b, s, w, 3) float32.
        places: (b, size * SAMPLES), pixels from the edge; the centre of pixel i is at i + 0.5.

    Returns:
        (b, size, w, 3) float32.
    """
    count, side, width, _ = images.shape
    at = np.clip(places - 0.5, 0, side - 1)
    first = np.minimum(at.astype(np.intp), max(side - 2, 0))
    second = np.minimum(first + 1, side - 1)
    weight = (at - first).astype(np.float32)
    # As a matrix (b, size, s), each row the weights of all pixels: one product a block.
    rows = np.zeros((count, places.shape[1] // SAMPLES, side), np.float32)
    image = np.arange(count)[:, None]
    pixel = np.arange(places.shape[1]) // SAMPLES
    np.add.at(rows, (image, pixel, first), (1 - weight) / SAMPLES)
    np.add.at(rows, (image, pixel, second), weight / SAMPLES)
    mixed = rows @ images.reshape(count, side, width * 3)  # (b, s, w, 3) -> (b, s, w * 3)
    return mixed.reshape(count, -1, width, 3)
