"""What methods share that leave a backbone as it is and look at its features once."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np

from keras_cnn import saved
from keras_cnn.data import Split
from keras_cnn.methods import Outcome, networks
from keras_cnn.resolve import Run
from keras_cnn.training.callbacks import Report

# Takes the features' tensor (n, channels), the shots' features (shots, channels) and labels
# (shots,), and puts layers on the tensor that give logits (n, classes).
Head = Callable[[keras.KerasTensor, np.ndarray, np.ndarray], keras.KerasTensor]


def classify(run: Run, train: Split, test: Split, report: Report, head: Head) -> Outcome:
    """Puts a head that is computed, not descended to, on a backbone's features.

    Args:
        run: Which network.
        train: Images (n, h, w, 3) uint8 and labels (n,) the head is computed from.
        test: The same, to evaluate on.
        report: Called with the one record.
        head: Makes it.

    Returns:
        A history of one record, the test images' probabilities (n, classes), the model to save.
    """
    began = time.perf_counter()
    backbone = networks.embedder(run, embedding=None)
    features = networks.frozen_outputs(backbone, train.images)
    logits = head(backbone.output, features, train.labels)
    classifier = saved.classifier(keras.Model(backbone.input, logits))
    of_train, of_test = (networks.outputs(classifier, split.images) for split in (train, test))
    record = {
        "epoch": 1,
        "learning_rate": float("nan"),  # there is none
        "train_loss": _cross_entropy(of_train, train.labels),
        "train_accuracy": _accuracy(of_train, train.labels),
        "test_loss": _cross_entropy(of_test, test.labels),
        "test_accuracy": _accuracy(of_test, test.labels),
        "seconds": time.perf_counter() - began,
    }
    report(record)
    return Outcome([record], of_test, classifier)


def _accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float((probabilities.argmax(axis=1) == labels).mean())


def _cross_entropy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    chosen = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(chosen, np.finfo(np.float32).tiny)).mean())
