"""What the folds say of a candidate: accuracy, log loss, and what to expect of new images."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from scipy.special import ndtri, softmax

from keras_cnn.results.intervals import wilson
from keras_cnn.statistics import CONFIDENCE
from keras_cnn.teach import calibration
from keras_cnn.teach.taught import Accuracy

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
    return OutOfFold(labels, logits, calibration.temperature(flat, np.tile(labels[told], repeats)))


def log_loss(found: OutOfFold) -> float:
    """The mean negative log likelihood after calibration, over repeats and images told."""
    told = found.told
    probabilities = softmax(found.logits[:, told] / found.temperature, axis=-1)
    return float(np.mean([calibration.log_loss(p, found.labels[told]) for p in probabilities]))


def accuracy(share: float, images: int) -> Accuracy:
    """A share of images with its 95 percent interval on new ones (Wilson's)."""
    return Accuracy(share, *wilson(share, images, NORMAL), images)


def foretold(found: OutOfFold, test_images: int) -> Accuracy:
    """The accuracy that the folds foretell on so many test images.

    Its interval is of what those images will show: both they and the training images are a draw.
    """
    count = int(found.told.sum())
    share = float(found.right.mean())
    both = 1 / (1 / count + 1 / test_images)
    return Accuracy(share, *wilson(share, both, NORMAL), count)


def worse(found: OutOfFold, best: OutOfFold) -> float:
    """By how many standard errors a candidate is worse than another, paired by image."""
    difference = best.right - found.right
    error = difference.std(ddof=1) / sqrt(len(difference))
    return float(difference.mean() / error) if error else float(np.sign(difference.mean())) * np.inf
