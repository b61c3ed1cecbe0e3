"""What methods share that leave a backbone as it is and look at its features once."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.methods.interface import Learned, Report
from keras_cnn.models import heads, saved
from keras_cnn.training import evaluation, frozen
from keras_cnn.training.history import record

VERSION = 1  # raised when a change makes the same head give another result

# Takes the features' tensor (n, channels), the shots' features (shots, channels) and labels
# (shots,), and puts layers on the tensor that give logits (n, classes).
Head = Callable[[keras.KerasTensor, np.ndarray, np.ndarray], keras.KerasTensor]


def learn(network: keras.Model, train: Split, test: Split, report: Report, head: Head) -> Learned:
    """Puts a head that is computed, not descended to, on a network's features.

    Args:
        network: Raw images (n, h, w, 3) to logits; its own head is left out, the rest stays.
        train: Images (n, h, w, 3) uint8 and labels (n,) the head is computed from.
        test: The same, to evaluate on.
        report: Called with the one record.
        head: Makes it.

    Returns:
        A history of one record, and the network with the new head.
    """
    began = time.perf_counter()
    backbone = heads.embedder(network)
    features = [frozen.features_of(backbone, split.images) for split in (train, test)]
    logits = head(backbone.output, features[0], train.labels)
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
