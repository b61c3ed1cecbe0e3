"""Candidates compared on held-out training images, until the time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn.methods.settings import LinearDiscriminant, LinearProbe, Method, NearestMean
from keras_cnn.teach import figures, folds, learners
from keras_cnn.teach.candidates import Candidate
from keras_cnn.teach.figures import OutOfFold

if TYPE_CHECKING:
    pass

STRENGTHS = (30.0, 300.0)  # of the linear probe's penalty
SHRINKAGES = (0.03, 0.1, 0.2, 0.4, 0.7, 0.9)  # of the linear discriminant
HEADS: dict[str, tuple[Method, ...]] = {
    "nearest_mean": (NearestMean(),),
    "linear_discriminant": tuple(
        LinearDiscriminant(shrinkage=one, normalised=normalised)
        for one in SHRINKAGES
        for normalised in (False, True)
    ),
    "linear_probe": tuple(LinearProbe(regularization_strength=one) for one in STRENGTHS),
}


@dataclass(frozen=True)
class Backbone:
    """A network that gives features.

    Attributes:
        name: Of `models.NETWORKS`.
        weights: As of `models.classifier`.
        image_size: Height and width that it takes, in pixels.
    """

    name: str
    weights: str
    image_size: int


@dataclass(frozen=True)
class Photos:
    """Training images.

    Attributes:
        labels: int64 (n,), every class at least once.
        groups: (n,) equal for images that are to stay on one side of every fold.
        images: From a height and width in pixels, and a fit, to uint8 (n, s, s, 3).
    """

    labels: np.ndarray
    groups: np.ndarray
    images: Callable[[int, str], np.ndarray]


@dataclass(frozen=True)
class Compared:
    """A candidate, and what the folds say.

    Attributes:
        candidate: What was tried.
        found: What models say of images they have not seen.
        seconds: It took, without the features.
    """

    candidate: Candidate
    found: OutOfFold
    seconds: float


def compare(
    photos: Photos,
    backbone: Backbone,
    fit: str,
    features: np.ndarray,
    heads: Sequence[Method],
    seed: int,
) -> Iterator[Compared]:
    """Compares heads on the features of one backbone.

    Args:
        photos: The training images.
        backbone: Whose features they are.
        fit: How the images were brought to a square.
        features: (n, channels).
        heads: Settings of the methods to try.
        seed: Seeds the folds.
    """
    drawn = folds.draw(photos.labels, photos.groups, seed)
    for settings in heads:
        began = time.perf_counter()
        learn = learners.on_features(settings, features, photos.labels)
        found = said(learn, photos.labels, drawn)
        candidate = Candidate(backbone.name, backbone.weights, backbone.image_size, fit, settings)
        yield Compared(candidate, found, time.perf_counter() - began)


def said(learn: folds.Learner, labels: np.ndarray, drawn: np.ndarray) -> OutOfFold:
    """What a learner says of each image from the folds that do not hold it."""
    classes = int(labels.max()) + 1
    logits = np.empty((len(drawn), len(labels), classes))
    for repeat, _, held_out, given in folds.out_of_fold(learn, labels, drawn, classes):
        logits[repeat, held_out] = given
    return figures.out_of_fold(labels, logits)


def best_first(compared: Sequence[Compared]) -> list[Compared]:
    """Candidates by log loss on the folds, which tells more of few images than accuracy does."""
    return sorted(compared, key=lambda one: figures.log_loss(one.found))
