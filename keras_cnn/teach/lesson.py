"""The best candidate taught with all training images, and what the folds say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_cnn.methods.on_features import Head
from keras_cnn.teach import calibration, familiar, folds, search
from keras_cnn.teach.backbones import Backbone
from keras_cnn.teach.calibration import Calibration
from keras_cnn.teach.familiar import Familiar
from keras_cnn.teach.figures import OutOfFold
from keras_cnn.teach.search import Compared, Notify, Photos
from keras_cnn.teach.taught import Point


@dataclass(frozen=True)
class Lesson:
    """A classifier of features, and how far it can be trusted.

    Attributes:
        compared: The candidate that it is, and what the folds say of it.
        backbone: Whose features it takes.
        head: From features to calibrated logits.
        calibration: Temperature, when to say unsure, prediction sets, what is strange.
        familiar: What tells a picture of another kind.
        familiarity: How familiar the training images are among themselves, (n,).
        drawn: The folds, as of `folds.draw`.
    """

    compared: Compared
    backbone: Backbone
    head: Head
    calibration: Calibration
    familiar: Familiar
    familiarity: np.ndarray
    drawn: np.ndarray

    @property
    def fold_count(self) -> int:
        """How many folds there were."""
        return int(self.drawn.max()) + 1

    def curve(self, photos: Photos) -> tuple[Point, ...]:
        """Accuracy on held-out images against training images a class."""
        candidate = self.compared.candidate
        features = search.features_of(photos, self.backbone, candidate.fit)
        return search.learning_curve(candidate.settings, features, photos.labels, self.drawn)


def of(
    compared: Compared,
    tried: Sequence[Backbone],
    photos: Photos,
    error_rate: float,
    seed: int,
    notify: Notify = lambda what, done, total: None,
) -> Lesson:
    """Teaches a candidate with all training images.

    Args:
        compared: The candidate, and what the folds say of it.
        tried: The backbones, its own among them.
        photos: The training images.
        error_rate: The share of answers that may be wrong where the model is not unsure.
        seed: Seeds the folds.
        notify: Called as the work goes on.
    """
    candidate, found, labels = compared.candidate, compared.found, photos.labels
    backbone = next(b for b in tried if (b.name, b.weights) == candidate.start)
    features = search.features_of(photos, backbone, candidate.fit, notify)
    familiarity = familiar.among_themselves(features, photos.groups, seed)
    head, temperature = compared.head, found.temperature
    return Lesson(
        compared=compared,
        backbone=backbone,
        head=head._replace(kernel=head.kernel / temperature, bias=head.bias / temperature),
        calibration=_calibration(found, familiarity, error_rate),
        familiar=familiar.of(features, seed),
        familiarity=familiarity,
        drawn=folds.draw(labels, photos.groups, seed),
    )


def _calibration(found: OutOfFold, familiarity: np.ndarray, error_rate: float) -> Calibration:
    probabilities, labels = found.each_probability
    images = int(found.told.sum())
    least = (
        calibration.least_of_set(probabilities, labels, coverage, images)
        for coverage in calibration.COVERAGES
    )
    return Calibration(
        temperature=found.temperature,
        error_rate=error_rate,
        threshold=calibration.threshold(probabilities, labels, error_rate),
        coverages=calibration.COVERAGES,
        least=tuple(least),
        familiar_threshold=familiar.threshold(familiarity),
    )
