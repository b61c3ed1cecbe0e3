"""Confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from keras_cnn.results.store import Result


def confusion(title: str, group: Sequence[Result]) -> Figure:
    """Confusion matrix summed over repeats: share of each true class, counts written in.

    Args:
        title: The plot's title.
        group: The repeats.
    """
    counts = np.sum([result.confusion for result in group], axis=0)
    repeats = f"{title}, sum of {len(group)} repeats" if len(group) > 1 else title
    return confusion_matrix(repeats, counts, group[0].class_names)


def confusion_matrix(title: str, counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """One confusion matrix.

    Args:
        title: The plot's title.
        counts: (classes, classes) integers, true class by row.
        class_names: In the order of the labels.
    """
    classes = len(class_names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.5, 0.55 * classes + 1.5)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=panel, fraction=0.046, label="share of the true class")
    if classes <= 20:
        for true in range(classes):
            for predicted in range(classes):
                if counts[true, predicted]:
                    colour = "white" if share[true, predicted] > 0.5 else "black"
                    text = str(counts[true, predicted])
                    panel.text(
                        predicted, true, text, ha="center", va="center", color=colour, fontsize=8
                    )
    panel.set_xticks(range(classes), class_names, rotation=45, ha="right", parse_math=False)
    panel.set_yticks(range(classes), class_names, parse_math=False)
    panel.set_xlabel("predicted class")
    panel.set_ylabel("true class")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    heading = f"{title}\naccuracy {accuracy:.1%} of {counts.sum()} images"
    panel.set_title(heading, fontsize=10, parse_math=False)
    return figure
