"""What methods share that leave a backbone as it is and look at its features once."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.methods import Outcome, networks
from keras_cnn.models import saved
from keras_cnn.recipe.resolve import Run
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
    shots, asked = (networks.frozen_outputs(backbone, split.images) for split in (train, test))
    logits = head(backbone.output, shots, train.labels)
    on_features = saved.classifier(keras.Model(backbone.output, logits))
    of_train, of_test = (networks.outputs(on_features, features) for features in (shots, asked))
    train_loss, train_accuracy = networks.loss_and_accuracy(of_train, train.labels)
    test_loss, test_accuracy = networks.loss_and_accuracy(of_test, test.labels)
    record = {
        "epoch": 1,
        "learning_rate": float("nan"),  # there is none
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "seconds": time.perf_counter() - began,
    }
    report(record)
    classifier = saved.classifier(keras.Model(backbone.input, logits))
    return Outcome([record], of_test, classifier)
