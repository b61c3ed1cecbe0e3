"""Confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn.plots.canvas import LETTER_INCHES, LINE_INCHES, short, wrapped
from keras_cnn.results.grid import width
from keras_cnn.results.store import Result

COUNTED = 20  # with more classes no counts are written in
INCHES, MOST_INCHES = 0.55, 12.0  # of a class along a side, and of all
NAMED = 10  # the most frequent confusions, where not all names are written


def confusion(title: str, group: Sequence[Result]) -> Figure:
    """Confusion matrix summed over repeats that did not diverge, at least one.

    Args:
        title: The plot's title.
        group: The repeats.
    """
    counts = np.sum([result.confusion for result in group], axis=0)
    return confusion_matrix(title, counts, group[0].class_names, runs=len(group))


def confusion_matrix(
    title: str, counts: np.ndarray, class_names: Sequence[str], runs: int = 1
) -> Figure:
    """One confusion matrix: the share of each true class, with counts where there are few classes.

    Its size is bounded: of many classes every second name is written, or every third…, and below
    are the most frequent confusions.

    Args:
        title: The plot's title.
        counts: (classes, classes) integers, true class by row.
        class_names: In the order of the labels.
        runs: Over how many runs the counts are summed.
    """
    classes = len(class_names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(3.5, INCHES * classes), MOST_INCHES)
    step = int(np.ceil(classes * LINE_INCHES / side))  # so many classes to a name
    places = range(0, classes, step)
    names = [short(class_names[place]) for place in places]
    few = classes <= COUNTED
    beside = max(map(width, names)) * (LETTER_INCHES if few else 0.7 * LETTER_INCHES)
    size = side + beside + 1.5, side + beside * (0.7 if few else 1) + 1.0
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=panel, fraction=0.046, label="share of the true class")
    turned = {"rotation": 45, "ha": "right"} if few else {"rotation": 90, "fontsize": 7}
    panel.set_xticks(places, names, **turned)
    panel.set_yticks(places, names, fontsize=10 if few else 7)
    panel.set_xlabel("predicted class")
    panel.set_ylabel("true class")
    if few:
        _write_counts(panel, counts, share)
    elif step > 1:
        figure.supxlabel(_most_frequent(counts, share, class_names), fontsize=8, x=0.02, ha="left")
    heading = wrapped(title, size[0], points=10)
    figure.suptitle(f"{heading}\n{_heading(counts, runs)}", fontsize=10)
    return figure


def _heading(counts: np.ndarray, runs: int) -> str:
    total = int(counts.sum())
    accuracy = f"accuracy {np.trace(counts) / max(total, 1):.1%}"
    if runs == 1:
        return f"{accuracy} of {total:,} images"
    return f"{accuracy}, sum of {runs} runs on {total / runs:,.0f} images each"


def _write_counts(panel: Axes, counts: np.ndarray, share: np.ndarray) -> None:
    for (true, predicted), count in np.ndenumerate(counts):
        if count:
            ink = "white" if share[true, predicted] > 0.5 else "black"
            style = {"ha": "center", "va": "center", "color": ink, "fontsize": 8}
            panel.text(predicted, true, f"{count}", **style)


def _most_frequent(counts: np.ndarray, share: np.ndarray, class_names: Sequence[str]) -> str:
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:NAMED]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    lines = [
        f"{short(class_names[true])} taken for {short(class_names[predicted])}: "
        f"{counts[true, predicted]:,}, {share[true, predicted]:.0%} of its images"
        for true, predicted in pairs
        if wrong[true, predicted]
    ]
    return "\n".join(["Most frequent confusions", *lines]) if lines else ""
