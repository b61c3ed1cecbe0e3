"""Keras callbacks: the learning rate's schedule, history, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import keras

from keras_cnn.recipe.settings import Descent

Report = Callable[[dict[str, float]], None]


def learning_rate_at(epoch: int, settings: Descent) -> float:
    """The learning rate of an epoch, counted from 0.

    `step` is torch's StepLR, `cosine` its CosineAnnealingLR, which climbs back after
    `schedule_epochs`.
    """
    if settings.schedule == "step":
        return settings.learning_rate * settings.schedule_factor ** (
            epoch // settings.schedule_epochs
        )
    if settings.schedule == "cosine":
        half_period = settings.schedule_epochs
        return settings.learning_rate * (1 + math.cos(math.pi * epoch / half_period)) / 2
    return settings.learning_rate


def schedule(settings: Descent) -> keras.callbacks.Callback:
    """Sets the learning rate of each epoch as the settings' schedule has it."""
    return keras.callbacks.LearningRateScheduler(lambda epoch: learning_rate_at(epoch, settings))


class History(keras.callbacks.Callback):
    """Keeps one record an epoch and reports it.

    Args:
        report: Called with each record, as it is made.
        loss: The log that holds the loss.

    Attributes:
        records: Dicts with the keys of `store.HISTORY_COLUMNS`; accuracies in [0, 1].
    """

    def __init__(self, report: Report, loss: str = "loss") -> None:
        super().__init__()
        self._loss = loss
        self.records: list[dict[str, float]] = []
        self._report = report
        self._began = 0.0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the clock: what other callbacks draw before an epoch's steps is part of it."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Makes the epoch's record."""
        record = {
            "epoch": epoch + 1,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "train_loss": float(logs[self._loss]),
            "train_accuracy": float(logs["accuracy"]),
            "test_loss": float(logs[f"val_{self._loss}"]),
            "test_accuracy": float(logs["val_accuracy"]),
            "seconds": time.perf_counter() - self._began,
        }
        self._began = time.perf_counter()
        self.records.append(record)
        self._report(record)
