"""What methods share that leave a backbone as it is and look at its features once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.methods.interface import Learned, Report
from keras_cnn.models import heads, saved
from keras_cnn.training import evaluation, frozen
from keras_cnn.training.history import record

VERSION = 1  # raised when a change makes the same head give another result


class Head(NamedTuple):
    """A linear classifier of features, which may be centred and brought to length 1 before it.

    Attributes:
        kernel: (channels, classes).
        bias: (classes,).
        center: Subtracted from the features first, (channels,); None leaves them.
        normalised: Bring them to length 1 then.
    """

    kernel: np.ndarray
    bias: np.ndarray
    center: np.ndarray | None = None
    normalised: bool = False

    def logits(self, features: np.ndarray) -> np.ndarray:
        """What it makes of features (n, channels): (n, classes)."""
        if self.center is not None:
            features = features - self.center
        if self.normalised:
            features = unit_length(features)
        return features @ self.kernel + self.bias

    def put_on(self, features: keras.KerasTensor) -> keras.KerasTensor:
        """The same as layers on a tensor (n, channels), of which Keras alone loads the model."""
        if self.center is not None:
            variance = np.ones_like(self.center)
            features = keras.layers.Normalization(
                mean=self.center.tolist(), variance=variance.tolist(), name=heads.CENTERING
            )(features)
        if self.normalised:
            features = keras.layers.UnitNormalization(name=heads.NORM)(features)
        dense = keras.layers.Dense(len(self.bias), name=heads.LOGITS)
        logits = dense(features)
        dense.set_weights([self.kernel, self.bias])
        return logits


# From features (n, channels) and labels (n,), every class from 0 on at least once.
Fit = Callable[[np.ndarray, np.ndarray], Head]


def unit_length(features: np.ndarray) -> np.ndarray:
    """Rows (n, channels) brought to length 1; those of zeros stay."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def learn(network: keras.Model, train: Split, test: Split, report: Report, fit: Fit) -> Learned:
    """Puts a head that is computed, not descended to, on a network's features.

    Args:
        network: Raw images (n, h, w, 3) to logits; its own head is left out, the rest stays.
        train: Images (n, h, w, 3) uint8 and labels (n,) the head is computed from.
        test: The same, to evaluate on.
        report: Called with the one record.
        fit: Makes the head of the shots' features and labels.

    Returns:
        A history of one record, and the network with the new head.
    """
    began = time.perf_counter()
    backbone = heads.embedder(network)
    features = [frozen.features_of(backbone, split.images) for split in (train, test)]
    logits = fit(features[0], train.labels).put_on(backbone.output)
    classify = evaluation.evaluator(saved.classifier(keras.Model(backbone.output, logits)))
    probabilities = [classify(inputs) for inputs in features]
    figures = [
        evaluation.loss_and_accuracy(given, split.labels)
        for given, split in zip(probabilities, (train, test), strict=True)
    ]
    no_rate = float("nan")
    made = record(1, no_rate, *figures, time.perf_counter() - began)
    report(made)
    classifier = keras.Model(backbone.input, logits, name=network.name)
    return Learned([made], classifier, {}, probabilities[1])
