"""Curves with bands and confusion matrices, drawn from results. Never imports keras."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn import store
from keras_cnn.store import Result

TRAIN_COLOUR, TEST_COLOUR = "#4c72b0", "#c44e52"
STAMPS = ".figures.json"


def draw(title: str, results: Sequence[Result], folder: Path) -> list[Path]:
    """Draws, for each row, its curves and each variant's confusion matrix.

    A picture whose runs have not changed since it was drawn is left alone.

    Args:
        title: The recipe's title.
        results: Finished runs of one recipe.
        folder: Where the pictures go.

    Returns:
        The pictures' paths.
    """
    stamps_path = folder / STAMPS
    stamps = _read_stamps(stamps_path)
    wanted: dict[str, tuple] = {}
    for row in dict.fromkeys(result.run["row"] for result in results):
        of_row = [result for result in results if result.run["row"] == row]
        variants = dict.fromkeys(result.run["variant"] for result in of_row)
        by_variant = {
            name: [result for result in of_row if result.run["variant"] == name]
            for name in variants
        }
        wanted[f"row-{row}-curves.png"] = (of_row, curves, (f"{title}, row {row}", by_variant))
        for name, group in by_variant.items():
            heading = f"{title}\nrow {row}, {name}"
            wanted[f"row-{row}-{name}-confusion.png"] = (group, confusion, (heading, group))
    for name, (group, picture, arguments) in wanted.items():
        stamp = [[r.folder.name, r.folder.stat().st_mtime_ns] for r in group]
        if stamps.get(name) != stamp or not (folder / name).is_file():
            with store.replacing(folder / name) as partial:
                picture(*arguments).savefig(partial, format="png", dpi=120)
            stamps[name] = stamp
    store.write_text(stamps_path, json.dumps(stamps))
    return [folder / name for name in wanted]


def _read_stamps(path: Path) -> dict[str, list]:
    try:
        stamps = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # then everything is drawn
    return stamps if isinstance(stamps, dict) else {}


def curves(title: str, by_variant: dict[str, Sequence[Result]]) -> Figure:
    """Accuracy and loss by epoch: a row of panels a variant, mean line and one-sigma band.

    Args:
        title: Of the picture.
        by_variant: The repeats of each variant.
    """
    figure = Figure(figsize=(10, 0.6 + 3.2 * len(by_variant)), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(len(by_variant), 2, squeeze=False, sharex=True, sharey="col")
    for (variant, group), (left, right) in zip(by_variant.items(), panels, strict=True):
        for panel, quantity, scale in ((left, "accuracy", 100.0), (right, "loss", 1.0)):
            for split, colour in (("train", TRAIN_COLOUR), ("test", TEST_COLOUR)):
                _band(panel, group, f"{split}_{quantity}", scale, colour, split)
            panel.set_title(f"{variant}, n = {len(group)}", fontsize=10)
            panel.set_ylabel("accuracy, percent" if quantity == "accuracy" else "loss")
            panel.grid(alpha=0.3)
        left.legend(loc="lower right", frameon=False)
        left.set_ylim(0, 102)
    for panel in panels[-1]:
        panel.set_xlabel("epoch")
        panel.xaxis.get_major_locator().set_params(integer=True)
    return figure


def confusion(title: str, group: Sequence[Result]) -> Figure:
    """Confusion matrix summed over repeats: share of each true class, counts written in.

    Args:
        title: Of the picture.
        group: The repeats.
    """
    counts = np.sum([result.confusion for result in group], axis=0)
    repeats = f"{title}, sum of {len(group)} repeats" if len(group) > 1 else title
    return confusion_matrix(repeats, counts, group[0].class_names)


def confusion_matrix(title: str, counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """One confusion matrix.

    Args:
        title: Of the picture.
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
    panel.set_xticks(range(classes), class_names, rotation=45, ha="right")
    panel.set_yticks(range(classes), class_names)
    panel.set_xlabel("predicted class")
    panel.set_ylabel("true class")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    panel.set_title(f"{title}\naccuracy {accuracy:.1%} of {counts.sum()} images", fontsize=10)
    return figure


def _band(
    panel: Axes, group: Sequence[Result], key: str, scale: float, colour: str, label: str
) -> None:
    """Mean over repeats, and one sample standard deviation on each side of it."""
    epochs = [record["epoch"] for record in group[0].history]
    values = scale * np.array([[record[key] for record in result.history] for result in group])
    mean = values.mean(axis=0)  # (repeats, epochs) -> (epochs,)
    marker = "o" if len(epochs) == 1 else None
    panel.plot(epochs, mean, color=colour, label=label, marker=marker)
    if len(group) > 1:
        sd = values.std(axis=0, ddof=1)
        panel.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
