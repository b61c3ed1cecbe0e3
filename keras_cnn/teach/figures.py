"""What the folds say of a candidate: accuracy, log loss, and what to expect of new images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, softmax

from keras_cnn.results.intervals import wilson
from keras_cnn.statistics import CONFIDENCE
from keras_cnn.teach import calibration
from keras_cnn.teach.taught import Accuracy

VERSION = 2  # raised when the same logits give other probabilities
NORMAL = float(ndtri((1 + CONFIDENCE) / 2))


@dataclass(frozen=True)
class OutOfFold:
    """What models say of training images that they have not seen.

    Attributes:
        labels: (n,).
        logits: (repeats, n, classes); minus infinity for a class of which a fold had no image.
        temperature: Of least log loss.
    """

    labels: np.ndarray
    logits: np.ndarray
    temperature: float

    @property
    def told(self) -> np.ndarray:
        """Which images a fold can say something of, bool (n,): it knew their class."""
        own = self.logits[:, np.arange(len(self.labels)), self.labels]
        return np.isfinite(own).all(axis=0)

    @property
    def probabilities(self) -> np.ndarray:
        """Calibrated, the mean over the repeats, (n, classes); nan where nothing is told."""
        mean = softmax(self.logits / self.temperature, axis=-1).mean(axis=0)
        return np.where(self.told[:, None], mean, np.nan)

    @property
    def each_probability(self) -> tuple[np.ndarray, np.ndarray]:
        """As `probabilities` of the images told, repeat by repeat, and their labels.

        A single model is less certain than a mean over repeats, and so will be the final one:
        thresholds are learnt from these. Shapes (repeats * told, classes) and (repeats * told,).
        """
        given = softmax(self.logits[:, self.told] / self.temperature, axis=-1)
        return given.reshape(-1, given.shape[-1]), np.tile(self.labels[self.told], len(given))

    @property
    def right(self) -> np.ndarray:
        """How often each image told is classified right, (told,), in [0, 1]."""
        return (self.logits.argmax(axis=-1) == self.labels).mean(axis=0)[self.told]


def out_of_fold(labels: np.ndarray, logits: np.ndarray) -> OutOfFold:
    """Calibrates what the folds say; its arguments are those of `OutOfFold`."""
    one = OutOfFold(labels, logits, 1.0)
    told = one.told
    repeats, _, classes = logits.shape
    if not told.any():
        return one
    flat = logits[:, told].reshape(-1, classes)
    known = np.tile(labels[told], repeats)
    return OutOfFold(labels, logits, calibration.temperature(flat, known, int(told.sum())))


def log_loss(found: OutOfFold, balance: bool = False) -> float:
    """The mean negative log likelihood after calibration, over repeats and images told.

    Args:
        found: What the folds say.
        balance: Take the mean of the classes' means.
    """
    probabilities, labels = found.each_probability
    if not balance:
        return calibration.log_loss(probabilities, labels)
    members = (labels == label for label in np.unique(labels))
    return float(np.mean([calibration.log_loss(probabilities[m], labels[m]) for m in members]))


def accuracy(share: float, images: int) -> Accuracy:
    """A share of images with its 95 percent interval on new ones (Wilson's)."""
    return Accuracy(share, *wilson(share, images, NORMAL), images)


def foretold(found: OutOfFold, gain: float | None, trained_share: float, images: int) -> Accuracy:
    """The accuracy that the folds foretell of a model taught with all training images.

    A fold's model has fewer images: the accuracy goes on as from half of these to all, on a
    logarithmic axis. The interval is of what so many test images will show, where they are like
    the training images: both are a draw.

    Args:
        found: Of the chosen candidate.
        gain: From `curve.gain_of_doubling`.
        trained_share: The share of the training images that a fold's model has learnt from.
        images: Test images.
    """
    count = int(found.told.sum())
    share = float(found.right.mean())
    share += max(0.0, gain or 0.0) * float(np.log2(1 / trained_share))
    both = 1 / (1 / count + 1 / images)
    return Accuracy(min(share, 1.0), *wilson(min(share, 1.0), both, NORMAL), count)
