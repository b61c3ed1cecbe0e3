"""Training images changed at random: NumPy alone, so the same pictures on every backend.

Each kind takes images (n, h, w, 3) uint8, labels (n,), the number of classes and a generator, and
gives new images (n, h, w, 3) uint8 and labels: integers (n,), or of `cutmix` and `mixup` the
classes' shares (n, classes) float32. What it is given stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

Augmented = tuple[np.ndarray, np.ndarray]
Augmentation = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], Augmented]

FLIP_PROBABILITY = 0.5
ROTATION_DEGREES = 30.0
JITTER = 0.2  # brightness, contrast, saturation: factors 1 -+ this; hue: -+ this share of a turn
BETA = 1.0  # both parameters of the Beta distribution of shares: uniform
CUTOUT_SHARE = 0.5  # of the image's side: 16 pixels of 32, the paper's on CIFAR-10

LUMINANCE = (0.2989, 0.587, 0.114)  # of red, green and blue in grey: ITU-R 601-2, as torchvision
BLOCK_PIXELS = 2**16  # worked on together: bounds memory, and fits a core's cache

COORDINATE_BITS = 12  # of a pixel: positions are whole multiples of 1 / 4,096
WEIGHT_BITS = 13  # the four weights of bilinear interpolation add up to 8,192
CHANNEL_BITS = 21  # 255 * 8,192 and a rounding half fit; three channels fit 64 bits


def augmented(
    images: np.ndarray,
    labels: np.ndarray,
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
        seed: Whole numbers, not negative; the same give the same pictures.

    Returns:
        Images (n, h, w, 3) uint8 in the same order, and labels: as they were, or where the kind is
        in `MIXES_LABELS` shares (n, class_count) float32 of all images.
    """
    generator = np.random.default_rng((*seed, _STREAM))
    chosen = np.sort(generator.permutation(len(images))[: round(share * len(images))])
    changed, of_changed = KINDS[kind](images[chosen], labels[chosen], class_count, generator)
    everything = np.array(images)
    everything[chosen] = changed
    if kind not in MIXES_LABELS:
        return everything, labels
    shares = one_hot(labels, class_count)
    shares[chosen] = of_changed
    return everything, shares


def flip(
    images: np.ndarray, labels: np.ndarray, class_count: int, generator: np.random.Generator
) -> Augmented:
    """Mirrors left and right with probability 0.5."""
    mirrored = np.flatnonzero(generator.random(len(images)) < FLIP_PROBABILITY)
    flipped = np.array(images)
    flipped[mirrored] = images[mirrored, :, ::-1]
    return flipped, labels


def rotation(
    images: np.ndarray, labels: np.ndarray, class_count: int, generator: np.random.Generator
) -> Augmented:
    """Turns by uniform angles of -30 to 30 degrees; corners that come into view are black."""
    degrees = generator.uniform(-ROTATION_DEGREES, ROTATION_DEGREES, len(images))
    return rotate(images, degrees), labels


def jitter(
    images: np.ndarray, labels: np.ndarray, class_count: int, generator: np.random.Generator
) -> Augmented:
    """Varies brightness, contrast, saturation (factors 0.8 to 1.2) and hue (0.2 of a turn)."""
    factors = generator.uniform(1 - JITTER, 1 + JITTER, (3, len(images)))
    hue = generator.uniform(-JITTER, JITTER, len(images))
    return adjust_colour(images, *factors, hue), labels


def mixed(
    images: np.ndarray, labels: np.ndarray, class_count: int, generator: np.random.Generator
) -> Augmented:
    """Flip, rotation and colour jitter in turn on each image."""
    for augmentation in (flip, rotation, jitter):
        images, labels = augmentation(images, labels, class_count, generator)
    return images, labels


def cutmix(
    images: np.ndarray, labels: np.ndarray, class_count: int, generator: np.random.Generator
) -> Augmented:
    """Pastes a box of another image; classes share the label by area (Yun et al. 2019).

    The box has the image's proportions, an area of 1 - lambda with lambda from Beta(1, 1), and its
    centre anywhere; what of it lies outside the image is cut off and does not count.
    """
    count, height, width, _ = images.shape
    others = _partners(count, generator)
    side = np.sqrt(1 - generator.beta(BETA, BETA, count))  # of the box, as a share of the image's
    boxes = _boxes(side * height, side * width, height, width, generator)
    pasted = np.array(images)
    for image, other, (top, bottom, left, right) in zip(pasted, others, boxes, strict=True):
        image[top:bottom, left:right] = images[other, top:bottom, left:right]
    area = (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])
    return pasted, _shares(labels, labels[others], area / (height * width), class_count)


def mixup(
    images: np.ndarray, labels: np.ndarray, class_count: int, generator: np.random.Generator
) -> Augmented:
    """Averages two images and their labels with weights from Beta(1, 1) (Zhang et al. 2018)."""
    others = _partners(len(images), generator)
    weights = generator.beta(BETA, BETA, len(images))  # of the first image
    averaged = np.empty_like(images)
    for block in _blocks(images):
        first = images[block].astype(np.float32)
        second = images[others[block]].astype(np.float32)
        weight = weights[block, None, None, None].astype(np.float32)
        averaged[block] = np.rint(second + weight * (first - second))
    return averaged, _shares(labels, labels[others], 1 - weights, class_count)


def cutout(
    images: np.ndarray, labels: np.ndarray, class_count: int, generator: np.random.Generator
) -> Augmented:
    """Covers a square of half the shorter side with the images' mean (DeVries & Taylor 2017).

    Its centre may be any pixel, so part of it may lie outside the image.
    """
    count, height, width, _ = images.shape
    side = np.full(count, CUTOUT_SHARE * min(height, width))
    covered = np.array(images)
    if count:
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
MIXES_LABELS = ("cutmix", "mixup")
_STREAM = 1  # sets these draws apart from others made with the same seed


def rotate(images: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Turns each image about its centre, bilinear, black outside.

    Args:
        images: (n, h, w, 3) uint8.
        degrees: (n,), counterclockwise.

    Returns:
        (n, h, w, 3) uint8.
    """
    rotated = np.empty_like(images)
    for block in _blocks(images):
        _rotate_block(images[block], np.deg2rad(degrees[block]), rotated[block])
    return rotated


def adjust_colour(
    images: np.ndarray,
    brightness: np.ndarray,
    contrast: np.ndarray,
    saturation: np.ndarray,
    hue: np.ndarray,
) -> np.ndarray:
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


def one_hot(labels: np.ndarray, class_count: int) -> np.ndarray:
    """Labels (n,) as shares (n, class_count) float32, each the whole of one class."""
    return np.eye(class_count, dtype=np.float32)[labels]


def _blocks(images: np.ndarray) -> Iterator[slice]:
    """Slices of few images each."""
    count, height, width, _ = images.shape
    size = max(1, BLOCK_PIXELS // (height * width))
    return (slice(start, start + size) for start in range(0, count, size))


def _rotate_block(images: np.ndarray, radians: np.ndarray, rotated: np.ndarray) -> None:
    """Whole-number arithmetic on a pixel's three channels at once, packed in 64 bits."""
    count, height, width, _ = images.shape
    # Black around the image: a pixel before it, and two behind it for the neighbours of the first.
    padded = np.zeros((count, height + 3, width + 3, 4), np.uint8)
    for channel in range(3):
        padded[:, 1 : height + 1, 1 : width + 1, channel] = images[..., channel]
    # (b, h + 3, w + 3, 4) to a row of pixels: one number each, its lowest byte red.
    numbers = padded.reshape(-1).view("<u4").astype(np.uint64)
    pixels = numbers & np.uint64(0xFF)
    for channel in (1, 2):
        apart = np.uint64(channel * (CHANNEL_BITS - 8))
        pixels |= (numbers & np.uint64(0xFF << (8 * channel))) << apart

    # Where each pixel of the result comes from: (b, h, w), as a sum of (b, h, 1) and (b, 1, w).
    one = 1 << COORDINATE_BITS
    cosine, sine = np.cos(radians)[:, None, None], np.sin(radians)[:, None, None]
    y = (np.arange(height) - (height - 1) / 2)[:, None]
    x = np.arange(width) - (width - 1) / 2
    source_x = _whole(((width - 1) / 2 - sine * y) * one) + _whole(cosine * x * one)
    source_y = _whole(((height - 1) / 2 + cosine * y) * one) + _whole(sine * x * one)
    np.clip(source_x, -one, width * one, out=source_x)
    np.clip(source_y, -one, height * one, out=source_y)

    index = ((source_y >> COORDINATE_BITS) + 1) * (width + 3)
    index += (source_x >> COORDINATE_BITS) + 1
    index += np.arange(count, dtype=np.int32)[:, None, None] * ((height + 3) * (width + 3))
    index = index.astype(np.intp)

    source_x &= one - 1
    source_y &= one - 1
    both = source_x * source_y
    both += 1 << (2 * COORDINATE_BITS - WEIGHT_BITS - 1)
    both >>= 2 * COORDINATE_BITS - WEIGHT_BITS
    right = (source_x << (WEIGHT_BITS - COORDINATE_BITS)) - both
    below = (source_y << (WEIGHT_BITS - COORDINATE_BITS)) - both
    here = (1 << WEIGHT_BITS) - both - right - below

    half = sum(1 << (channel * CHANNEL_BITS + WEIGHT_BITS - 1) for channel in range(3))
    total = np.full(index.shape, half, np.uint64)
    for weight, step in ((here, 0), (right, 1), (below, width + 3), (both, width + 4)):
        neighbour = pixels[step:].take(index)
        neighbour *= weight.astype(np.uint64)
        total += neighbour
    for channel in range(3):
        shifted = total >> np.uint64(channel * CHANNEL_BITS + WEIGHT_BITS)
        rotated[..., channel] = shifted.astype(np.uint8)  # keeps the lowest eight bits


def _whole(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.int32)


def _grey(channels: np.ndarray) -> np.ndarray:
    """(3, b, h, w) to (b, h, w)."""
    red, green, blue = (
        channel * np.float32(share) for channel, share in zip(channels, LUMINANCE, strict=True)
    )
    return red + green + blue


def _blend(channels: np.ndarray, grey: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return np.clip(grey + factor * (channels - grey), 0, 1)


def _turn_hue(channels: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Adds to the hue of colours (3, b, h, w) in [0, 1]; value and saturation stay."""
    red, green, blue = channels
    value = channels.max(axis=0)
    chroma = value - channels.min(axis=0)
    safe = np.where(chroma == 0, np.float32(1), chroma)  # grey has no hue, and keeps none
    sixths = np.where(
        value == red,
        (green - blue) / safe,
        np.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sixths += 6 * turn
    turned = np.empty_like(channels)
    for channel, offset in enumerate((5, 3, 1)):
        phase = sixths + np.float32(offset)
        phase -= 6 * np.floor(phase / 6)  # as np.mod, which takes a hundred times as long
        turned[channel] = value - chroma * np.clip(np.minimum(phase, 4 - phase), 0, 1)
    return turned


def _partners(count: int, generator: np.random.Generator) -> np.ndarray:
    """For each image another one, any with the same probability; itself where it is alone."""
    if count < 2:
        return np.zeros(count, np.int64)
    return (np.arange(count) + generator.integers(1, count, count)) % count


def _boxes(
    heights: np.ndarray,
    widths: np.ndarray,
    image_height: int,
    image_width: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Boxes of these sizes about random pixels, cut off at the image's edges.

    Returns:
        (n, 4) integers: top, bottom, left, right, the second and fourth exclusive.
    """
    edges: list[np.ndarray] = []
    for sizes, limit in ((heights, image_height), (widths, image_width)):
        whole = np.rint(sizes).astype(np.int64)
        start = generator.integers(0, limit, len(whole)) - whole // 2
        edges += [np.clip(start, 0, limit), np.clip(start + whole, 0, limit)]
    return np.stack(edges, axis=1)


def _shares(
    first: np.ndarray, second: np.ndarray, share_of_second: np.ndarray, class_count: int
) -> np.ndarray:
    """Two labels of each image as the classes' shares, (n, class_count) float32."""
    share = share_of_second[:, None]
    return (
        (1 - share) * one_hot(first, class_count) + share * one_hot(second, class_count)
    ).astype(np.float32)
