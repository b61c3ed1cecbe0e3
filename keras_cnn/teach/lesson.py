"""The best candidate taught with all training images, and what the folds say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn.methods.on_features import Head
from keras_cnn.methods.settings import Supervised
from keras_cnn.teach import backbones, calibration, curve, familiar, folds, search, tuning
from keras_cnn.teach.backbones import Backbone
from keras_cnn.teach.calibration import Calibration
from keras_cnn.teach.familiar import Familiar
from keras_cnn.teach.figures import OutOfFold
from keras_cnn.teach.search import Compared, Notify, Photos, quiet
from keras_cnn.teach.taught import Point

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Lesson:
    """A classifier of features, and how far it can be trusted.

    Attributes:
        compared: The candidate that it is, and what the folds say of it.
        backbone: What it begins with.
        network: From raw images to the features it takes: the backbone, fine-tuned or as it was.
        head: From features to calibrated logits.
        calibration: Temperature, when to say unsure, prediction sets, what is strange.
        familiar: What tells a picture of another kind.
        familiarity: How familiar the training images are among themselves, (n,).
        drawn: The folds of the learning curve, as of `folds.draw`.
    """

    compared: Compared
    backbone: Backbone
    network: keras.Model
    head: Head
    calibration: Calibration
    familiar: Familiar
    familiarity: np.ndarray
    drawn: np.ndarray

    def curve(self, photos: Photos) -> tuple[tuple[Point, ...], float | None]:
        """Accuracy on held-out images against training images a class, and a doubling's gain."""
        candidate = self.compared.candidate
        features = search.features_of(photos, self.backbone, candidate.fit)
        is_tuned = isinstance(candidate.settings, Supervised)  # whose curve would take hours
        settings = tuning.START if is_tuned else candidate.settings
        given = settings, features, photos.labels, self.drawn
        return curve.learning_curve(*given), curve.gain_of_doubling(*given)


def of(
    compared: Compared,
    tried: Sequence[Backbone],
    photos: Photos,
    error_rate: float,
    seed: int,
    notify: Notify = quiet,
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
    network, head = backbones.network(backbone), compared.head
    if compared.network is not None:
        network, head = _taken_apart(compared.network)
    images = photos.images(backbone.image_size, candidate.fit)
    what = f"features of {backbone.name}, {candidate.fit}"
    features = backbones.features(network, images, lambda done: notify(what, done, len(images)))
    familiarity = familiar.among_themselves(features, photos.groups, seed)
    temperature = found.temperature
    return Lesson(
        compared=compared,
        backbone=backbone,
        network=network,
        head=head._replace(kernel=head.kernel / temperature, bias=head.bias / temperature),
        calibration=_calibration(found, familiarity, error_rate),
        familiar=familiar.of(features, seed),
        familiarity=familiarity,
        drawn=folds.draw(labels, photos.groups, seed),
    )


def _taken_apart(network: keras.Model) -> tuple[keras.Model, Head]:
    """A network from images to logits as one to features, and its head."""
    from keras_cnn.models import heads

    kernel, bias = map(np.asarray, heads.head_layer(network).get_weights())
    features = heads.embedder(network)
    features.trainable = False
    return features, Head(kernel, bias)


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
