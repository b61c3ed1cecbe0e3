"""Describes a source of images: counts, statistics, faults, and a picture of samples."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from keras_cnn.data import cache, copies, near_duplicates, sources
from keras_cnn.data.cache import Decoded
from keras_cnn.data.fit import Fit, check
from keras_cnn.data.listing import Listing
from keras_cnn.errors import printable
from keras_cnn.results import grid

SMALL_CLASS = 1 / 3  # of the split's median class
SMALL_IMAGE = 1 / 2  # of the image size asked for
BLOCK = 512  # images looked at together
NAMED = 5  # examples given of each fault
TABLE_CLASSES = 40  # above this the counts of single classes are not listed


class Sample(NamedTuple):
    """An image: its split, its file within the source's folder (or `train 17`), its class."""

    split: str
    name: str
    class_name: str


@dataclass(frozen=True)
class SplitDescription:
    """One split; pixels are those at the size asked for.

    Attributes:
        counts: Images of each class, in the order of the labels.
        mean: Of red, green and blue over all pixels, in [0, 1].
        standard_deviation: Likewise (of the population).
        heights: Least and greatest height in pixels before scaling.
        widths: Least and greatest width.
        unreadable: Path and reason of each file that cannot be decoded; not counted above.
        small_classes: Classes of fewer than a third of the median class's images.
        small_images: Names of images whose shorter side (padded: whose longer one) is less than
            half the size asked for.
    """

    counts: tuple[int, ...]
    mean: tuple[float, float, float]
    standard_deviation: tuple[float, float, float]
    heights: tuple[int, int]
    widths: tuple[int, int]
    unreadable: tuple[tuple[str, str], ...]
    small_classes: tuple[str, ...]
    small_images: tuple[str, ...]


@dataclass(frozen=True)
class Description:
    """A source.

    Attributes:
        name: As it was asked for.
        image_size: Height and width in pixels.
        class_names: In the order of the labels.
        notes: How its splits and classes came about, a line each.
        splits: By name, those that were looked at.
        strays: What lies among the images, or where none are looked for, and is not read.
        duplicates: Groups of images with the same pixels, in any splits and classes.
        near_duplicates: Groups of images that look nearly the same, and are not all equal.
        fit: How images were brought to a square.
    """

    name: str
    image_size: int
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    splits: dict[str, SplitDescription]
    strays: tuple[str, ...]
    duplicates: tuple[tuple[Sample, ...], ...]
    near_duplicates: tuple[tuple[Sample, ...], ...] = ()
    fit: Fit = "crop"

    def shared(self, first: str, second: str) -> list[tuple[Sample, ...]]:
        """For each image that two splits share, or one holds more than once, its copies there."""
        return _shared(self.duplicates, first, second)

    def nearly_shared(self, first: str, second: str) -> list[tuple[Sample, ...]]:
        """As `shared`, of images that look nearly the same."""
        return _shared(self.near_duplicates, first, second)

    def conflicting(self) -> list[tuple[Sample, ...]]:
        """Groups of the same pixels in different classes."""
        return _of_several_classes(self.duplicates)


def _of_several_classes(groups: Sequence[tuple[Sample, ...]]) -> list[tuple[Sample, ...]]:
    return [group for group in groups if len({sample.class_name for sample in group}) > 1]


def _shared(
    groups: Sequence[tuple[Sample, ...]], first: str, second: str
) -> list[tuple[Sample, ...]]:
    """What of each group lies in two splits, where it lies in both."""
    inside = (tuple(s for s in group if s.split in (first, second)) for group in groups)
    return [g for g in inside if len(g) > 1 and {s.split for s in g} == {first, second}]


def describe(
    name: str, image_size: int, fit: Fit = "crop", wanted: Sequence[str] | None = None
) -> Description:
    """Looks at splits of a source, decoding them the first time.

    Args:
        name: As for `keras_cnn.data.load`.
        image_size: Height and width in pixels the images are scaled to.
        fit: How they are brought to a square, as for `keras_cnn.data.load`.
        wanted: The splits to look at; all by default.

    Raises:
        UserError: As `keras_cnn.data.load` does.
    """
    check(fit)
    source = sources.find(name)
    splits: dict[str, SplitDescription] = {}
    strays, notes = dict.fromkeys(source.strays), dict.fromkeys(source.notes)
    samples: list[Sample] = []
    digests: list[np.ndarray] = []
    hashes: list[np.ndarray] = []
    has_files = False
    for split in source.splits if wanted is None else wanted:
        listing = source.splits[split]()
        title = sources.title(name)
        decoded = cache.decoded(listing, source.class_names, image_size, title, split, fit)
        names = _names(split, listing, decoded)
        splits[split] = _describe_split(decoded, names, source.class_names, image_size, fit)
        strays |= dict.fromkeys(listing.strays)
        notes |= dict.fromkeys(listing.notes)
        samples += [
            Sample(split, image_name, source.class_names[label])
            for image_name, label in zip(names, decoded.labels, strict=True)
        ]
        digests.append(decoded.digests)
        hashes.append(decoded.hashes)
        has_files = bool(listing.folder)
    pixels = np.concatenate(digests)
    # What is no folder's is not the user's to mend.
    near = near_duplicates.groups(np.concatenate(hashes)) if has_files else []
    near = [group for group in near if len(np.unique(pixels[group])) > 1]

    def sampled(groups: list[list[int]]) -> tuple[tuple[Sample, ...], ...]:
        return tuple(tuple(samples[index] for index in group) for group in groups)

    return Description(
        name=name,
        image_size=image_size,
        class_names=source.class_names,
        notes=tuple(notes),
        splits=splits,
        strays=tuple(strays),
        duplicates=sampled(copies.groups(pixels)),
        near_duplicates=sampled(near),
        fit=fit,
    )


def render(description: Description) -> str:
    """A description as text for people."""
    size = description.image_size
    fit = "" if description.fit == "crop" else f", fit {description.fit}"
    pixels = f"{size}x{size} pixels{fit}"
    lines = [f"{description.name}: {len(description.class_names)} classes, at {pixels}"]
    lines += description.notes
    faults = faults_of(description)
    if not faults:
        faults = ["no faults: every file is an image, none occurs twice, no class is far smaller"]
    return "\n".join(map(printable, [*lines, "", *_table(description), "", *faults, ""]))


def _names(split: str, listing: Listing, decoded: Decoded) -> list[str]:
    """A name for each decoded image."""
    items, _ = listing.content()
    if isinstance(items, np.ndarray):
        return [f"{split} {index}" for index in decoded.indices]
    paths = (items[index] for index in decoded.indices)
    return [path.removeprefix(listing.folder + os.sep) for path in paths]


def _describe_split(
    decoded: Decoded,
    names: Sequence[str],
    class_names: Sequence[str],
    image_size: int,
    fit: Fit,
) -> SplitDescription:
    counts = np.bincount(decoded.labels, minlength=len(class_names))
    mean, standard_deviation = _moments(decoded.images)
    heights, widths = decoded.sizes.T
    scaled = decoded.sizes.max(axis=1) if fit == "pad" else decoded.sizes.min(axis=1)
    small = np.flatnonzero(scaled < SMALL_IMAGE * image_size)
    return SplitDescription(
        counts=tuple(counts.tolist()),
        mean=tuple(mean.tolist()),
        standard_deviation=tuple(standard_deviation.tolist()),
        heights=(int(heights.min()), int(heights.max())),
        widths=(int(widths.min()), int(widths.max())),
        unreadable=tuple(decoded.unreadable),
        small_classes=tuple(
            class_names[label] for label in np.flatnonzero(counts < SMALL_CLASS * np.median(counts))
        ),
        small_images=tuple(names[index] for index in small),
    )


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel in [0, 1], from exact whole-number sums."""
    histogram = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), BLOCK):
        pixels = images[start : start + BLOCK].reshape(-1, 3)  # (k, h, w, 3) to (k * h * w, 3)
        for channel in range(3):
            histogram[channel] += np.bincount(pixels[:, channel], minlength=256)
    values = np.arange(256) / 255
    share = histogram / histogram.sum(axis=1, keepdims=True)
    mean = share @ values
    variance = (share * (values - mean[:, None]) ** 2).sum(axis=1)  # (3, 256) to (3,)
    return mean, np.sqrt(variance)


def _table(description: Description) -> list[str]:
    splits = description.splits.values()
    rows = [["", *description.splits]]
    if len(description.class_names) <= TABLE_CLASSES:
        for label, name in enumerate(description.class_names):
            rows.append([printable(name), *(f"{split.counts[label]:,}" for split in splits)])
    else:
        rows.append(["images a class", *(_span(split.counts) for split in splits)])
    rows += [
        ["images", *(f"{sum(split.counts):,}" for split in splits)],
        ["mean, R G B", *(_three(split.mean) for split in splits)],
        ["standard deviation", *(_three(split.standard_deviation) for split in splits)],
        ["original height", *(_span(split.heights) for split in splits)],
        ["original width", *(_span(split.widths) for split in splits)],
    ]
    return grid.aligned(rows, right=range(1, len(rows[0])))


def faults_of(description: Description) -> list[str]:
    """Lines that name the faults of a source, each with its first cases."""
    faults: list[str] = []
    unreadable = [case for split in description.splits.values() for case in split.unreadable]
    named = [f"{path}: {reason}" for path, reason in dict.fromkeys(unreadable)]
    faults += _fault("files that cannot be decoded and are left out", named)
    faults += _fault("not images, or not where images are looked for", description.strays)
    for same, sign, groups in (
        ("same pixels", " = ", description.duplicates),
        ("nearly the same pictures", " ≈ ", description.near_duplicates),
    ):
        conflicting = [_joined(group, sign) for group in _of_several_classes(groups)]
        faults += _fault(f"{same} in different classes", conflicting)
    pairs = [*combinations(description.splits, 2), *((name, name) for name in description.splits)]
    for first, second in pairs:
        groups = [_joined(group) for group in description.shared(first, second)]
        where = f"more than once in {first}" if first == second else f"in {first} and {second}"
        faults += _fault(f"same pixels {where}", groups)
        groups = [_joined(group, " ≈ ") for group in description.nearly_shared(first, second)]
        faults += _fault(f"nearly the same pictures {where}", groups)
    for name, split in description.splits.items():
        counts = dict(zip(description.class_names, split.counts, strict=True))
        named = [f"{class_name}: {counts[class_name]:,}" for class_name in split.small_classes]
        median = f"{np.median(split.counts):,.0f}"
        faults += _fault(f"{name}: classes much smaller than the median of {median}", named)
        size = f"{description.image_size}x{description.image_size}"
        faults += _fault(f"{name}: images much smaller than {size}", split.small_images)
    return faults


def _fault(what: str, cases: Sequence[str]) -> list[str]:
    """Lines that name a fault, how often it occurs, and the first cases; none where it does not."""
    if not cases:
        return []
    more = [f"    and {len(cases) - NAMED:,} more"] if len(cases) > NAMED else []
    return [f"{what} ({len(cases):,})", *(f"    {case}" for case in cases[:NAMED]), *more]


def _joined(group: Sequence[Sample], sign: str = " = ") -> str:
    """`train 17 (cat) = test 3 (dog)`."""
    named = sign.join(f"{s.name} ({s.class_name})" for s in group[:NAMED])
    return named + (f" and {len(group) - NAMED:,} more" if len(group) > NAMED else "")


def _span(values: Sequence[int]) -> str:
    least, greatest = min(values), max(values)
    return f"{least:,}" if least == greatest else f"{least:,} to {greatest:,}"


def _three(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)
