"""Means over batches, not images: what the deck printed."""

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


def accuracy(y_true: object, y_pred: object) -> object:
    """1 where the largest logit is the label's, else 0."""
    labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")  # (n, 1) or (n,) -> (n,)
    hits = keras.ops.equal(keras.ops.cast(keras.ops.argmax(y_pred, axis=-1), "int32"), labels)
    return keras.ops.cast(hits, "float32")


def cross_entropy(y_true: object, y_pred: object) -> object:
    """Cross-entropy of the softmax of the logits against the label."""
    labels = keras.ops.reshape(y_true, (-1,))  # (n, 1) or (n,) -> (n,)
    return keras.ops.sparse_categorical_crossentropy(labels, y_pred, from_logits=True)
