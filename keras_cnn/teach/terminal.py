"""What `teach` says on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_cnn.errors import printable
from keras_cnn.results import grid
from keras_cnn.teach.taught import Accuracy, Taught

SHOWN = 8  # candidates; all are on the page
MOST_CLASSES = 40  # of which each has a line


def lines(taught: Taught) -> Iterator[str]:
    """What was found out, line by line."""
    train, test = len(taught.train.labels), len(taught.test.labels)
    yield f"{len(taught.class_names)} classes, {train:,} training and {test:,} test images"
    yield from taught.notes
    yield from taught.faults
    yield ""
    yield f"backbone: {taught.why_backbone}"
    yield f"{len(taught.candidates)} candidates, compared on held-out training images:"
    yield from _candidates(taught)
    yield ""
    yield f"test images, looked at once: {_percent(taught.tested)}, n = {test:,}"
    yield f"foretold from the training images: {_percent(taught.foretold)}"
    if taught.runner_up:
        yield f"runner-up of another method: {_percent(taught.runner_up)}"
    yield f"always the most frequent class: {100 * taught.majority:.1f} percent"
    yield from _trust(taught)
    yield ""
    if len(taught.class_names) <= MOST_CLASSES:
        yield from _classes(taught)


def _percent(accuracy: Accuracy) -> str:
    value, low, high = (100 * share for share in (accuracy.value, accuracy.low, accuracy.high))
    return f"{value:.1f} percent right (95 percent interval {low:.1f} to {high:.1f})"


def _candidates(taught: Taught) -> list[str]:
    rows = [("method", "settings", "backbone", "fit", "accuracy", "log loss")]
    for one in taught.candidates[:SHOWN]:
        candidate = one.candidate
        rows.append(
            (
                candidate.method,
                candidate.own_settings,
                candidate.backbone,
                candidate.fit,
                f"{100 * one.accuracy.value:.1f}",
                f"{one.log_loss:.3f}",
            )
        )
    shown = grid.aligned(rows, right=(4, 5))
    more = len(taught.candidates) - SHOWN
    return [*shown, *([f"and {more} more, on the page"] if more > 0 else [])]


def _trust(taught: Taught) -> Iterator[str]:
    calibration, told = taught.calibration, taught.test
    sure = told.probabilities.max(axis=1) >= calibration.threshold
    right = told.predicted == told.labels
    if not sure.any():
        yield "unsure of all of them: more training images are needed"
    elif sure.all():
        yield (
            "unsure of none of them: of held-out training images no more than the "
            f"{100 * calibration.error_rate:g} percent asked for were answered wrong"
        )
    else:
        yield (
            f"unsure of {100 * (1 - sure.mean()):.1f} percent of them (below "
            f"{100 * calibration.threshold:.0f} percent): {100 * (1 - right[sure].mean()):.1f} "
            f"percent of the other answers are wrong, {100 * calibration.error_rate:g} were asked "
            f"for; of all answers {100 * (1 - right.mean()):.1f}"
        )


def _classes(taught: Taught) -> list[str]:
    told = taught.test
    rows = [("class", "training images", "test images", "recall", "precision")]
    for label, name in enumerate(taught.class_names):
        own, said = told.labels == label, told.predicted == label
        both = (own & said).sum()
        rows.append(
            (
                printable(name),
                f"{(taught.train.labels == label).sum():,}",
                f"{own.sum():,}",
                f"{100 * both / own.sum():.1f}" if own.any() else "-",
                f"{100 * both / said.sum():.1f}" if said.any() else "-",
            )
        )
    recalls = [
        (told.predicted[told.labels == label] == label).mean() for label in np.unique(told.labels)
    ]
    rows.append(("mean over classes", "", "", f"{100 * np.mean(recalls):.1f}", ""))
    return grid.aligned(rows, right=(1, 2, 3, 4))
