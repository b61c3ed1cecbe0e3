"""What is measured of batches while a model trains."""

from __future__ import annotations

from collections.abc import Callable

import keras


class BatchMean(keras.metrics.Metric):
    """The mean of a figure's batch means; a smaller last batch weighs as much as any other.

    Args:
        figure: Takes integer labels (n,) and logits (n, classes), gives one value an image (n,).
        name: The metric's name in the logs.
    """

    def __init__(self, figure: Callable, name: str) -> None:
        super().__init__(name=name)
        self._figure = figure
        self._total = self.add_variable((), initializer="zeros", name="total")
        self._batches = self.add_variable((), initializer="zeros", name="batches")

    def update_state(self, y_true: object, y_pred: object, sample_weight: object = None) -> None:
        """Adds one batch."""
        self._total.assign_add(keras.ops.mean(self._figure(y_true, y_pred)))
        self._batches.assign_add(1.0)

    def result(self) -> object:
        """The mean over the batches since the last reset."""
        return self._total / keras.ops.maximum(self._batches, 1.0)


def hits(labels: object, logits: object) -> object:
    """1 for each image (n,) whose largest logit (n, classes) is its label's, else 0."""
    return keras.metrics.sparse_categorical_accuracy(labels, logits)


def cross_entropy(labels: object, logits: object) -> object:
    """Of the softmax of logits (n, classes) against labels (n,): (n,)."""
    return keras.ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
