"""Draws augmented images below their originals."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_cnn.data import augment, sources
from keras_cnn.data.sources import Dataset, Split
from keras_cnn.errors import UserError, nearest

GRID_SEED = 0
COLUMNS = 10  # images, of as many classes as there are
DRAWS, DRAWS_OF_ALL = 4, 2  # of each image, where one kind or where all are shown
NAME_LENGTH = 11  # of a class, in the caption of a picture


def kinds(name: str) -> list[str]:
    """The kinds a name stands for.

    Args:
        name: One of `augment.KINDS`, or `all`.

    Raises:
        UserError: It is neither.
    """
    if name == "all":
        return list(augment.KINDS)
    if name not in augment.KINDS:
        raise UserError(f"no augmentation {name!r}: {nearest(name, [*augment.KINDS, 'all'])}")
    return [name]


def draw(dataset: Dataset, shown: list[str], path: Path) -> None:
    """Draws images of a source above what each kind of augmentation makes of them.

    Where labels are mixed, the classes' shares stand below each picture.

    Args:
        dataset: What `keras_cnn.data.load` gave.
        shown: Some of `augment.KINDS`.
        path: Where the picture goes.

    Raises:
        UserError: It cannot be written there.
    """
    from matplotlib.figure import Figure

    originals = _originals(dataset)
    draws = DRAWS if len(shown) == 1 else DRAWS_OF_ALL
    lines = [("original", originals, augment.one_hot(originals.labels, len(dataset.class_names)))]
    for kind in shown:
        for number in range(draws):
            made, labels = augment.augmented(
                originals.images,
                originals.labels,
                len(dataset.class_names),
                kind,
                share=1.0,
                seed=(GRID_SEED, number),
            )
            shares = labels if kind in augment.MIXES_LABELS else None
            lines.append((kind if number == 0 else "", Split(made, originals.labels), shares))
    columns = len(originals.labels)
    figure = Figure(figsize=(0.85 * columns + 1.0, 1.05 * len(lines) + 0.6), layout="constrained")
    figure.suptitle(
        f"{sources.title(dataset.name)} at {dataset.image_size}x{dataset.image_size}: "
        f"{', '.join(shown)}",
        fontsize=10,
        parse_math=False,
    )
    axes = figure.subplots(len(lines), columns, squeeze=False)
    for row, (title, split, shares) in zip(axes, lines, strict=True):
        for column, (axis, image) in enumerate(zip(row, split.images, strict=True)):
            axis.imshow(image, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            for side in axis.spines.values():
                side.set_visible(False)
            if shares is not None:
                caption = _caption(shares[column], dataset.class_names)
                axis.set_xlabel(caption, fontsize=6, labelpad=2, parse_math=False)
        row[0].set_ylabel(title, fontsize=9)
    try:
        figure.savefig(path, dpi=120, bbox_inches="tight")
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None


def _originals(dataset: Dataset) -> Split:
    """Training images, class after class in turn."""
    split = dataset.splits["train"]
    generator = np.random.default_rng(GRID_SEED)
    orders = [
        generator.permutation(np.flatnonzero(split.labels == label)).tolist()
        for label in np.unique(split.labels)[:COLUMNS]
    ]
    in_turn = [order[turn] for turn in range(COLUMNS) for order in orders if turn < len(order)]
    chosen = np.array(in_turn[:COLUMNS])
    return Split(split.images[chosen], split.labels[chosen])


def _caption(shares: np.ndarray, class_names: tuple[str, ...]) -> str:
    """`cat 61 %` above `dog 39 %`; the name alone of a whole label."""
    named = sorted(np.flatnonzero(shares), key=lambda label: -shares[label])
    short = [class_names[label][:NAME_LENGTH] for label in named]
    if len(named) == 1:
        return short[0]
    percents = [f"{100 * shares[label]:.0f} %" for label in named]
    return "\n".join(f"{name} {share}" for name, share in zip(short, percents, strict=True))
