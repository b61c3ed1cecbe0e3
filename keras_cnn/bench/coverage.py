"""How often intervals hold what they promise: experiments simulated from a known truth.

A run answers an image right with a probability whose logit is a sum of normal numbers: of the
image, of its class, of the repeat, and of the repeat in that class. The truth is the mean over all
images and repeats there could be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from keras_cnn.results import grid, intervals
from keras_cnn.results.grid import Column
from keras_cnn.results.intervals import Hits

EXPERIMENTS = 1000
REPEATS = (2, 3, 5, 10)
IMAGES = (40, 372, 2000)
ROWS = 6  # of a table without any difference, each in two variants
IMAGE_SPREAD = 2.0  # standard deviation of the images' logits
NODES = 200  # of the integral over a normal number


@dataclass(frozen=True)
class World:
    """Where the runs of an experiment come from.

    Attributes:
        name: A few words.
        logit: Of the mean image and repeat; of each class where there are several.
        repeat_spread: Standard deviation of the repeats' logits.
        class_shares: How probable an image of each class is.
        class_spread: Standard deviation of a repeat's logit in one class.
    """

    name: str
    logit: tuple[float, ...]
    repeat_spread: float
    class_shares: tuple[float, ...] = (1.0,)
    class_spread: float = 0.0

    @property
    def truth(self) -> float:
        """The accuracy on new images of new repeats."""
        spread = np.hypot(np.hypot(IMAGE_SPREAD, self.repeat_spread), self.class_spread)
        nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
        by_class = [_share(logit + spread * nodes) @ weights for logit in self.logit]
        return float(np.dot(self.class_shares, by_class) / weights.sum())

    def images(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Classes and logits of new images (count,)."""
        classes = rng.choice(len(self.logit), count, p=self.class_shares)
        return classes, np.take(self.logit, classes) + IMAGE_SPREAD * rng.normal(size=count)

    def repeat(
        self, classes: np.ndarray, logits: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """The probabilities (images,) that a new repeat is right."""
        by_class = self.class_spread * rng.normal(size=len(self.logit))
        return _share(logits + self.repeat_spread * rng.normal() + by_class[classes])


# Five classes in ten are rare, and hard; the spread of repeats within a class is that of its shots.
RARE = (0.26, 0.24, 0.2, 0.1, 0.1, 0.02, 0.02, 0.02, 0.02, 0.02)
WORLDS = (
    World("half right, equal repeats", (0.0,), 0.0),
    World("half right", (0.0,), 0.15),
    World("half right, unequal repeats", (0.0,), 0.3),
    World("65 percent", (1.0,), 0.1),
    World("65 percent, unequal repeats", (1.0,), 0.3),
    World("90 percent", (3.5,), 0.15),
    World("97 percent", (5.2,), 0.3),
    World("rare classes", (1.5,) * 5 + (-1.0,) * 5, 0.1, RARE, 0.5),
)


def _share(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def covered(
    world: World, repeats: int, images: int, experiments: int, seed: int = 0
) -> tuple[float, float]:
    """How many of the 95 percent intervals of an accuracy hold the truth, and their mean width.

    Args:
        world: Where the runs come from.
        repeats: Of an experiment.
        images: In its test set.
        experiments: How many.
        seed: Of all that is drawn.
    """
    rng = np.random.default_rng([seed, repeats, images])
    places, truth, hit, widths = np.arange(images), world.truth, 0, 0.0
    for _ in range(experiments):
        drawn = world.images(images, rng)
        chances = [world.repeat(*drawn, rng) for _ in range(repeats)]
        runs = [Hits(places, rng.random(images) < chance) for chance in chances]
        low, high = intervals.accuracy_interval(intervals.accuracy(runs))
        hit += low <= truth <= high
        widths += high - low
    return hit / experiments, widths / experiments


def claims(
    world: World, repeats: int, images: int, experiments: int, one_draw: bool, seed: int = 0
) -> float:
    """The share of tables without any difference whose `differences` claims one.

    Each has six rows in two variants, all of the same accuracy; the rows of a repeat share the
    spread of its shots, as far as `class_spread` is one.

    Args:
        world: Where all rows come from.
        repeats: Of a row.
        images: In the test set.
        experiments: How many tables.
        one_draw: One variant trains all repeats on the shots of the first.
        seed: Of all that is drawn.
    """
    rng = np.random.default_rng([seed, repeats, images, one_draw])
    return sum(
        min(intervals.holm(_p_values(world, repeats, images, one_draw, rng))) < intervals.ALPHA
        for _ in range(experiments)
    ) / float(experiments)


def _p_values(
    world: World, repeats: int, images: int, one_draw: bool, rng: np.random.Generator
) -> list[float]:
    """Of each row against the first, in both variants, and of the variants in each row."""
    classes, logits = world.images(images, rng)
    by_class = world.class_spread * rng.normal(size=(repeats, len(world.logit)))
    places = np.arange(images)

    def row(draws: Sequence[int]) -> dict[int, Hits]:
        chances = [
            _share(logits + by_class[draw, classes] + world.repeat_spread * rng.normal())
            for draw in draws
        ]
        return {
            repeat: Hits(places, rng.random(images) < chance)
            for repeat, chance in enumerate(chances)
        }

    draws = [[0] * repeats if one_draw else range(repeats), range(repeats)]
    variants = [[row(each) for _ in range(ROWS)] for each in draws]
    compared = [intervals.difference(other, rows[0]) for rows in variants for other in rows[1:]] + [
        intervals.difference(corrected, as_run, (False, one_draw))
        for as_run, corrected in zip(*variants, strict=True)
    ]
    return [intervals.p_value(one) for one in compared]


def report() -> Iterator[str]:
    """Both simulations as Markdown, table by table."""
    experiments = EXPERIMENTS
    yield (
        f"95 percent intervals of the accuracy on new images that hold the truth, in percent, of "
        f"{experiments:,} simulated experiments each:"
    )
    yield _coverage_table(experiments)
    yield (
        f"Tables that claim a difference where there is none, in percent, of {experiments:,} each: "
        f"{ROWS} rows in two variants, {2 * (ROWS - 1) + ROWS} comparisons, Holm's correction. "
        "Of one draw: all repeats of one variant share their training images."
    )
    yield _claims_table(experiments)


def _coverage_table(experiments: int) -> str:
    rows = []
    for world in WORLDS:
        for images in IMAGES:
            found = [covered(world, repeats, images, experiments) for repeats in REPEATS]
            cells = [f"{100 * share:.1f} ({100 * width:.0f})" for share, width in found]
            rows.append([world.name, f"{100 * world.truth:.1f}", f"{images:,}", *cells])
    headings = ["world", "truth", "images", *(f"n = {n} (width)" for n in REPEATS)]
    return _markdown(headings, rows)


def _claims_table(experiments: int) -> str:
    rows = []
    for world in (WORLDS[1], WORLDS[4], WORLDS[7]):
        for images in IMAGES:
            for one_draw in (False, True):
                shares = [claims(world, n, images, experiments, one_draw) for n in REPEATS]
                cells = [f"{100 * share:.1f}" for share in shares]
                rows.append([world.name, f"{images:,}", "one" if one_draw else "each", *cells])
    return _markdown(["world", "images", "draw", *(f"n = {n}" for n in REPEATS)], rows)


def _markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    columns = zip(headings, zip(*rows, strict=True), strict=True)
    return grid.markdown([Column(name, cells) for name, cells in columns])
