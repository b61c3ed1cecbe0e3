"""Random augmentation of training images, the same on every backend: NumPy and Pillow alone.

Each kind takes images (n, h, w, 3) uint8, labels (n,), the number of classes and a generator, and
gives new images (n, h, w, 3) uint8 and labels: integers (n,), or of `cutmix` and `mixup` the
classes' shares (n, classes) float32. What it is given stays as it is.

To add a kind, write its function and name it in `KINDS`. NumPy is imported where it is used:
recipes are checked against these names, and reading a recipe imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from keras_cnn.errors import UserError, nearest

if TYPE_CHECKING:
    from numpy import ndarray
    from numpy.random import Generator

VERSION = 1  # raised when a change makes the same call give other images

Augmented: TypeAlias = "tuple[ndarray, ndarray]"
Augmentation: TypeAlias = "Callable[[ndarray, ndarray, int, Generator], Augmented]"

FLIP_PROBABILITY = 0.5
ROTATION_DEGREES = 30.0
JITTER = 0.2  # brightness, contrast, saturation: factors 1 -+ this; hue: -+ this share of a turn
BETA = 1.0  # both parameters of the Beta distribution of shares: uniform
CUTOUT_SHARE = 0.5  # of the image's side: 16 pixels of 32, the paper's on CIFAR-10

LUMINANCE = (0.2989, 0.587, 0.114)  # of red, green and blue in grey: ITU-R 601-2, as torchvision
BLOCK_PIXELS = 2**16  # worked on together: bounds memory, and fits a core's cache


def augmented(
    images: ndarray,
    labels: ndarray,
    class_count: int,
    kind: str,
    share: float,
    seed: Sequence[int],
) -> Augmented:
    """Changes a share of the images, drawn at random; the others stay as they are.

    Args:
        images: (n, h, w, 3) uint8.
        labels: (n,) integers.
        class_count: Classes there are.
        kind: One of `KINDS`.
        share: Of the images, in [0, 1]; rounded to whole images. Images that are mixed are mixed
            among themselves.
        seed: Whole numbers, not negative; the same give the same images.

    Returns:
        Images (n, h, w, 3) uint8 in the same order, and labels: as they were, or where the kind is
        in `MIXES_LABELS` shares (n, class_count) float32 of all images.
    """
    import numpy as np

    generator = np.random.default_rng((*seed, _STREAM))
    chosen = np.sort(generator.permutation(len(images))[: round(share * len(images))])
    changed = images.copy()
    changed[chosen], shares = KINDS[kind](images[chosen], labels[chosen], class_count, generator)
    if kind in MIXES_LABELS:
        labels = one_hot(labels, class_count)
        labels[chosen] = shares
    return changed, labels


def flip(images: ndarray, labels: ndarray, class_count: int, generator: Generator) -> Augmented:
    """Mirrors left and right with probability 0.5."""
    mirrored = generator.random(len(images)) < FLIP_PROBABILITY
    flipped = images.copy()
    flipped[mirrored] = images[mirrored, :, ::-1]
    return flipped, labels


def rotation(images: ndarray, labels: ndarray, class_count: int, generator: Generator) -> Augmented:
    """Turns by uniform angles of -30 to 30 degrees; corners that come into view are black."""
    degrees = generator.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, len(images))
    return rotate(images, degrees), labels


def jitter(images: ndarray, labels: ndarray, class_count: int, generator: Generator) -> Augmented:
    """Varies brightness, contrast, saturation (factors 0.8 to 1.2) and hue (0.2 of a turn)."""
    factors = generator.uniform(1 - JITTER, 1 + JITTER, (3, len(images)))
    hue = generator.uniform(-JITTER, JITTER, len(images))
    return adjust_colour(images, *factors, hue), labels


def mixed(images: ndarray, labels: ndarray, class_count: int, generator: Generator) -> Augmented:
    """Flip, rotation and colour jitter in turn on each image."""
    for augmentation in (flip, rotation, jitter):
        images, labels = augmentation(images, labels, class_count, generator)
    return images, labels


def cutmix(images: ndarray, labels: ndarray, class_count: int, generator: Generator) -> Augmented:
    """Pastes a box of another image; classes share the label by area (Yun et al. 2019).

    The box has the image's proportions, an area of 1 - lambda with lambda from Beta(1, 1), and its
    centre anywhere; what of it lies outside the image is cut off and does not count.
    """
    count, height, width, _ = images.shape
    others = _partners(count, generator)
    side = (1 - generator.beta(BETA, BETA, count)) ** 0.5  # of the box, as a share of the image's
    boxes = _boxes(side * height, side * width, height, width, generator)
    pasted = images.copy()
    for image, other, (top, bottom, left, right) in zip(pasted, others, boxes, strict=True):
        image[top:bottom, left:right] = images[other, top:bottom, left:right]
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    return pasted, _shares(labels, labels[others], area / (height * width), class_count)


def mixup(images: ndarray, labels: ndarray, class_count: int, generator: Generator) -> Augmented:
    """Averages two images and their labels with weights from Beta(1, 1) (Zhang et al. 2018)."""
    others = _partners(len(images), generator)
    weights = generator.beta(BETA, BETA, len(images))  # of the first image
    averaged = images.copy()
    for block in _blocks(images):
        first, second = images[block].astype("float32"), images[others[block]].astype("float32")
        weight = weights[block, None, None, None].astype("float32")
        averaged[block] = (second + weight * (first - second)).round()
    return averaged, _shares(labels, labels[others], 1 - weights, class_count)


def cutout(images: ndarray, labels: ndarray, class_count: int, generator: Generator) -> Augmented:
    """Covers a square of half the shorter side with the images' mean (DeVries & Taylor 2017).

    Its centre may be any pixel, so part of it may lie outside the image.
    """
    import numpy as np

    count, height, width, _ = images.shape
    covered = images.copy()
    if count:
        side = np.full(count, CUTOUT_SHARE * min(height, width))
        # The paper's zero after normalisation. Image by image first: many times faster.
        total = images.sum(axis=0, dtype=np.int64).sum(axis=(0, 1))  # (h, w, 3) to (3,)
        mean = np.rint(total / (count * height * width))
        for image, (top, bottom, left, right) in zip(
            covered, _boxes(side, side, height, width, generator), strict=True
        ):
            image[top:bottom, left:right] = mean
    return covered, labels


KINDS: dict[str, Augmentation] = {
    "flip": flip,
    "rotation": rotation,
    "jitter": jitter,
    "mixed": mixed,
    "cutmix": cutmix,
    "mixup": mixup,
    "cutout": cutout,
}
MIXES_LABELS = ("cutmix", "mixup")  # give the classes' shares as labels
_STREAM = 1  # sets these draws apart from others made with the same seed


def kinds(name: str) -> list[str]:
    """The kinds that a name stands for: one of `KINDS`, or `all` of them.

    Raises:
        UserError: It is neither.
    """
    if name not in (*KINDS, "all"):
        raise UserError(f"no augmentation {name!r}: {nearest(name, [*KINDS, 'all'])}")
    return list(KINDS) if name == "all" else [name]


def rotate(images: ndarray, degrees: ndarray) -> ndarray:
    """Turns each image about its centre, bilinear, black outside.

    Args:
        images: (n, h, w, 3) uint8.
        degrees: (n,), counterclockwise.

    Returns:
        (n, h, w, 3) uint8.
    """
    import numpy as np
    from PIL import Image

    # Pillow blends a pixel only with others of the image: a black frame makes the edges fade too.
    framed = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rotated = np.empty_like(framed)
    for index, angle in enumerate(degrees):
        image = Image.fromarray(framed[index])
        rotated[index] = image.rotate(angle, Image.Resampling.BILINEAR)
    return rotated[:, 1:-1, 1:-1]


def adjust_colour(
    images: ndarray, brightness: ndarray, contrast: ndarray, saturation: ndarray, hue: ndarray
) -> ndarray:
    """Changes colours in this order, by torchvision's definitions; rounds once, at the end.

    Args:
        images: (n, h, w, 3) uint8.
        brightness: (n,) factors of all values.
        contrast: (n,) factors of the distance to the image's mean grey.
        saturation: (n,) factors of the distance to each pixel's own grey.
        hue: (n,) added to the hue of HSV, in turns.

    Returns:
        (n, h, w, 3) uint8.
    """
    import numpy as np

    adjusted = np.empty_like(images)
    for block in _blocks(images):
        channels = images[block].transpose(3, 0, 1, 2).astype(np.float32) / np.float32(255)
        brighter, stronger, purer, turn = (
            values[block, None, None].astype(np.float32)
            for values in (brightness, contrast, saturation, hue)
        )
        channels = np.clip(channels * brighter, 0, 1)
        mean = _grey(channels).mean(axis=(1, 2), keepdims=True, dtype=np.float64)
        channels = _blend(channels, mean.astype(np.float32), stronger)
        channels = _blend(channels, _grey(channels), purer)
        channels = _turn_hue(channels, turn)
        adjusted[block] = np.rint(channels * 255).transpose(1, 2, 3, 0)
    return adjusted


def one_hot(labels: ndarray, class_count: int) -> ndarray:
    """Labels (n,) as shares (n, class_count) float32, each the whole of one class."""
    import numpy as np

    return np.eye(class_count, dtype=np.float32)[labels]


def _blocks(images: ndarray) -> Iterator[slice]:
    """Slices of few images each."""
    count, height, width, _ = images.shape
    size = max(1, BLOCK_PIXELS // (height * width))
    return (slice(start, start + size) for start in range(0, count, size))


def _grey(channels: ndarray) -> ndarray:
    """(3, b, h, w) to (b, h, w)."""
    return sum(channel * share for channel, share in zip(channels, LUMINANCE, strict=True))


def _blend(channels: ndarray, grey: ndarray, factor: ndarray) -> ndarray:
    return (grey + factor * (channels - grey)).clip(0, 1)


def _turn_hue(channels: ndarray, turn: ndarray) -> ndarray:
    """Adds to the hue of colours (3, b, h, w) in [0, 1]; value and saturation stay."""
    import numpy as np

    red, green, blue = channels
    value = channels.max(axis=0)
    chroma = value - channels.min(axis=0)
    safe = np.where(chroma == 0, np.float32(1), chroma)  # grey has no hue, and keeps none
    # HSV's hue in sixths of a turn: red at 0, green at 2, blue at 4, between them linear.
    sixths = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixths += 6 * turn
    # And back: a channel is at `value` within a sixth of its own hue, falls over the next sixth to
    # `value - chroma`, and stays there for the half turn opposite.
    turned = np.empty_like(channels)
    for channel, offset in enumerate((5, 3, 1)):
        phase = sixths + np.float32(offset)
        phase -= 6 * np.floor(phase / 6)  # as np.mod, which takes a hundred times as long
        turned[channel] = value - chroma * np.clip(np.minimum(phase, 4 - phase), 0, 1)
    return turned


def _partners(count: int, generator: Generator) -> ndarray:
    """For each image another one, any with the same probability; itself where it is alone."""
    import numpy as np

    if count < 2:
        return np.zeros(count, np.int64)
    return (np.arange(count) + generator.integers(1, count, count)) % count


def _boxes(
    heights: ndarray, widths: ndarray, image_height: int, image_width: int, generator: Generator
) -> ndarray:
    """Boxes about random pixels, cut off at the edges: (n, 4) of top, bottom, left, right."""
    import numpy as np

    edges: list[ndarray] = []
    for sizes, limit in ((heights, image_height), (widths, image_width)):
        whole = np.rint(sizes).astype(np.int64)
        start = generator.integers(0, limit, len(whole)) - whole // 2
        edges += [np.clip(start, 0, limit), np.clip(start + whole, 0, limit)]
    return np.stack(edges, axis=1)


def _shares(first: ndarray, second: ndarray, share_of_second: ndarray, classes: int) -> ndarray:
    """Two labels of each image as the classes' shares, (n, classes) float32."""
    share = share_of_second[:, None]
    return ((1 - share) * one_hot(first, classes) + share * one_hot(second, classes)).astype(
        "float32"
    )
