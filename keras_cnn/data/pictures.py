"""Pictures of a source's images: samples of each class, and what augmentation makes of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_cnn.data import augment, sources
from keras_cnn.data.sources import Dataset

SEED = 0
CLASSES, PANEL_CLASSES = 200, 20  # shown at most, and in a panel, one a row
COLUMNS = 10
DRAWS, DRAWS_OF_ALL = 4, 2  # of each image, where one kind or where all are shown
CAPTION_SHARE = 0.4  # of an image's side, below it
CAPTION_LETTERS = 11  # of a class's name
LETTER_INCHES = 0.085  # of the names beside rows


class _Panel(NamedTuple):
    """A column of a picture: images (rows, columns, s, s, 3) uint8 and the rows' names."""

    names: Sequence[str]
    images: np.ndarray


def samples(dataset: Dataset, path: Path) -> None:
    """Draws training images of each class, of the first 200 at most.

    Args:
        dataset: What `keras_cnn.data.load` gave.
        path: Where the picture goes; its ending says what kind it is.

    Raises:
        UserError: It cannot be written there.
    """
    names = dataset.class_names[:CLASSES]
    starts = range(0, len(names), PANEL_CLASSES)
    columns = max(1, COLUMNS // len(starts))
    drawn = _samples(dataset, len(names), columns)
    panels = [_Panel(names[at:][:PANEL_CLASSES], drawn[at:][:PANEL_CLASSES]) for at in starts]
    some = f"{len(names)} of " if len(names) < len(dataset.class_names) else ""
    what = f"train, samples of {some}{len(dataset.class_names)} classes"
    _draw(path, dataset, what, panels, side_inches=0.55)


def augmented(dataset: Dataset, kinds: Sequence[str], path: Path) -> None:
    """Draws training images above what each kind of augmentation makes of them.

    Where labels are mixed, the classes' shares stand below each image.

    Args:
        dataset: What `keras_cnn.data.load` gave.
        kinds: Some of `augment.KINDS`.
        path: Where the picture goes; its ending says what kind it is.

    Raises:
        UserError: It cannot be written there.
    """
    class_names = dataset.class_names
    images, labels = _in_turn(dataset)
    shares = augment.one_hot(labels, len(class_names))
    rows, captions = [images], {0: _captions(shares, class_names)}
    for kind in kinds:
        for number in range(DRAWS if len(kinds) == 1 else DRAWS_OF_ALL):
            seed = (SEED, number)
            made, shares = augment.augmented(images, labels, len(class_names), kind, 1.0, seed)
            if kind in augment.MIXES_LABELS:
                captions[len(rows)] = _captions(shares, class_names)
            rows.append(made)
    blanks = [""] * ((len(rows) - 1) // len(kinds) - 1)
    names = ["original", *(name for kind in kinds for name in (kind, *blanks))]
    panel = _Panel(names, np.stack(rows))
    _draw(path, dataset, ", ".join(kinds), [panel], side_inches=0.85, captions=captions)


def _samples(dataset: Dataset, class_count: int, columns: int) -> np.ndarray:
    """Images of each class, white where it has no more: (classes, columns, s, s, 3) uint8."""
    split, side = dataset.splits["train"], dataset.image_size
    drawn = np.full((class_count, columns, side, side, 3), 255, np.uint8)
    for label, row in enumerate(drawn):
        members = np.flatnonzero(split.labels == label)
        chosen = np.random.default_rng([SEED, label]).permutation(members)[:columns]
        row[: len(chosen)] = split.images[chosen]
    return drawn


def _in_turn(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """A few training images and their labels, one class after the other."""
    split = dataset.splits["train"]
    generator = np.random.default_rng(SEED)
    orders = [
        generator.permutation(np.flatnonzero(split.labels == label)).tolist()
        for label in np.unique(split.labels)[:COLUMNS]
    ]
    in_turn = [order[turn] for turn in range(COLUMNS) for order in orders if turn < len(order)]
    chosen = np.array(in_turn[:COLUMNS])
    return split.images[chosen], split.labels[chosen]


def _captions(shares: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """`cat 61%` above `dog 39%` for each image; the name alone of a whole label."""
    return ["\n".join(_shares(share.tolist(), class_names)) for share in shares]


def _shares(shares: Sequence[float], class_names: Sequence[str]) -> list[str]:
    from keras_cnn.plots.canvas import short

    names = [short(name, CAPTION_LETTERS) for name in class_names]
    named = sorted(((share, name) for share, name in zip(shares, names, strict=True) if share))
    return [name if share == 1 else f"{name} {share:.0%}" for share, name in reversed(named)]


def _draw(
    path: Path,
    dataset: Dataset,
    what: str,
    panels: Sequence[_Panel],
    side_inches: float,
    captions: Mapping[int, Sequence[str]] | None = None,
) -> None:
    """Draws panels side by side; `captions` gives those below the images of some rows."""
    from matplotlib.figure import Figure

    from keras_cnn.plots import canvas
    from keras_cnn.results.grid import width

    rows, columns, side = panels[0].images.shape[:3]
    gap = round(CAPTION_SHARE * side) if captions else max(1, side // 16)  # pixels between rows
    height = 1 + gap / side  # of a row, in sides
    names = [[canvas.short(name) for name in panel.names] for panel in panels]
    letters = max(width(name) for panel_names in names for name in panel_names)
    inches = len(panels) * (columns * side_inches + LETTER_INCHES * letters + 0.3)
    size = max(inches, 5.0), rows * height * side_inches + 0.6
    pixels = f"{dataset.image_size}x{dataset.image_size}"
    title = f"{sources.title(dataset.name)} at {pixels}: {what}"

    def draw() -> Figure:
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(canvas.wrapped(title, size[0], points=10), fontsize=10)
        axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axis, panel, panel_names in zip(axes, panels, names, strict=True):
            tops = np.arange(len(panel_names)) * height
            extent = (0, columns, len(panel_names) * height, 0)  # one unit a side
            axis.imshow(_mosaic(panel.images, gap), extent=extent, interpolation="auto")
            axis.set_yticks(tops + 0.5, panel_names)
            axis.set_xticks([])
            axis.tick_params(length=0)
            axis.set_frame_on(False)
            axis.set_anchor("N")
            for row, texts in (captions or {}).items():
                for column, text in enumerate(texts):
                    at = column + 0.5, tops[row] + 1.05
                    axis.text(*at, text, fontsize=6, ha="center", va="top")
        return figure

    canvas.save(draw, path)


def _mosaic(images: np.ndarray, gap: int) -> np.ndarray:
    """(rows, columns, s, s, 3) as one image, with white pixels below and beside each."""
    beside = max(1, images.shape[2] // 16)
    padded = np.pad(images, ((0, 0), (0, 0), (0, gap), (0, beside), (0, 0)), constant_values=255)
    rows, columns, height, width = padded.shape[:4]
    # (rows, columns, h, w, 3) to (rows * h, columns * w, 3)
    return padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
