"""What a model's probabilities are worth: temperature, when to say unsure, prediction sets.

All of it is learnt from what the folds say of training images that they have not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from keras_cnn.errors import UserError

COVERAGES = (0.8, 0.9, 0.95, 0.99)  # of the prediction sets that a model can give


@dataclass(frozen=True)
class Calibration:
    """How a classifier's logits become probabilities, and what is said of an image.

    Attributes:
        temperature: Logits are divided by it (Guo et al. 2017, arXiv:1706.04599).
        error_rate: The share of wrong answers that was asked for, in (0, 1).
        threshold: Below this probability of the most probable class the answer is `unsure`; the
            answers above it keep `error_rate` on the folds. 0 where all answers do, 1 where none.
        coverages: Of prediction sets, in (0, 1).
        least: For each coverage: a class belongs to the set if its probability is at least this.
        familiar_threshold: Below this a picture is nothing of the kind; 1 in 20 training images is.
    """

    temperature: float
    error_rate: float
    threshold: float
    coverages: tuple[float, ...]
    least: tuple[float, ...]
    familiar_threshold: float


def check_error_rate(error_rate: float) -> None:
    """Refuses a share of wrong answers that nothing can be held to.

    Raises:
        UserError: It is not between 0 and 1.
    """
    if not 0 < error_rate < 1:
        raise UserError(f"the error rate is {100 * error_rate:g} percent: above 0 and below 100")


def temperature(logits: np.ndarray, labels: np.ndarray, images: int | None = None) -> float:
    """The temperature of least log loss (Guo et al. 2017, arXiv:1706.04599).

    Where all are classified right it would be 0, and the model certain of whatever it is shown.
    Then labels count as right with (images + 1) / (images + 2), as in Platt's scaling (1999).

    Args:
        logits: (n, classes); minus infinity for a class that is out of the question.
        labels: (n,).
        images: How many images these are, where each is there several times; None: n.
    """
    all_right = bool((logits.argmax(axis=1) == labels).all())
    doubt = 1 / ((len(labels) if images is None else images) + 2) if all_right else 0.0

    def log_loss(log_temperature: float) -> float:
        shares = log_softmax(logits / np.exp(log_temperature), axis=1)
        own = shares[np.arange(len(labels)), labels]
        known = np.isfinite(shares)  # not of classes that a fold had no image of
        rest = np.where(known, shares, 0).sum(axis=1) - own
        others = rest / np.maximum(known.sum(axis=1) - 1, 1)
        return float(-((1 - doubt) * own + doubt * others).mean())

    found = minimize_scalar(log_loss, bounds=(np.log(1e-3), np.log(1e3)), method="bounded")
    return float(np.exp(found.x))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The mean negative log likelihood of probabilities (n, classes)."""
    told = probabilities[np.arange(len(labels)), labels]
    return float(np.abs(np.log(np.maximum(told, np.finfo(np.float64).tiny))).mean())


def threshold(probabilities: np.ndarray, labels: np.ndarray, error_rate: float) -> float:
    """The least probability from which on answers are wrong no more often than asked.

    Args:
        probabilities: (n, classes), of images that were held out.
        labels: (n,).
        error_rate: The share of the answers given that may be wrong.

    Returns:
        0 where all answers keep it, 1 where none do.
    """
    sure = probabilities.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    wrong = np.cumsum((probabilities.argmax(axis=1) != labels)[order])
    kept = wrong <= error_rate * np.arange(1, len(labels) + 1)
    if kept[-1]:
        return 0.0
    # Images of equal probability are answered together.
    last_of_equal = np.append(np.diff(sure[order]) != 0, True)
    (allowed,) = np.nonzero(kept & last_of_equal)
    return float(sure[order][allowed[-1]]) if len(allowed) else 1.0


def least_of_set(
    probabilities: np.ndarray, labels: np.ndarray, coverage: float, images: int | None = None
) -> float:
    """The least probability of a class in a prediction set (split conformal; Sadinle et al. 2019).

    arXiv:1609.00451. On new images the sets hold the true class in at least `coverage` of cases,
    where these are like the held-out ones and the models of the folds like the final one.

    Args:
        probabilities: (n, classes), of images that were held out.
        labels: (n,).
        coverage: In (0, 1).
        images: How many images these are, where each is there several times; None: n.

    Returns:
        0, all classes, where there are too few images to promise anything.
    """
    told = np.sort(probabilities[np.arange(len(labels)), labels])
    images = len(told) if images is None else images
    above = int(np.ceil(coverage * (images + 1) - 1e-9))  # of all images, with the new one
    place = len(told) - above * len(told) // images
    return float(told[place]) if above <= images else 0.0
