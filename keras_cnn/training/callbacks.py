"""Keras callbacks: the learning rate's schedule, the eval mode that sticks, history, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import keras

from keras_cnn.settings import Descent

Report = Callable[[dict[str, float]], None]


def learning_rate_at(
    epoch: int, base: float, schedule: str, schedule_epochs: int, schedule_factor: float
) -> float:
    """The learning rate of an epoch.

    Args:
        epoch: Counted from 0.
        base: The rate at the first epoch.
        schedule: `constant`; `step`, torch's StepLR; or `cosine`, torch's CosineAnnealingLR,
            which climbs back after `schedule_epochs`.
        schedule_epochs: The period of the steps, or the half period of the cosine.
        schedule_factor: What each step multiplies the rate by.
    """
    if schedule == "step":
        return base * schedule_factor ** (epoch // schedule_epochs)
    if schedule == "cosine":
        return base * (1 + math.cos(math.pi * epoch / schedule_epochs)) / 2
    return base


def schedule(settings: Descent) -> keras.callbacks.Callback:
    """Sets the learning rate of each epoch as the settings' schedule has it."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: learning_rate_at(
            epoch,
            settings.learning_rate,
            settings.schedule,
            settings.schedule_epochs,
            settings.schedule_factor,
        )
    )


class EvalModeSticks(keras.callbacks.Callback):
    """After the first epoch the model trains on in inference mode.

    What a loop does that calls `eval()` for its first test pass and never `train()` again: dropout
    is off, BatchNorm runs on (and no longer updates) its statistics, weights go on training.
    Needs a model with `inference_mode`, as `model.TrainedModel`.
    """

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Switches the model over once, and has its training step traced anew."""
        if not self.model.inference_mode:
            self.model.inference_mode = True
            self.model.make_train_function(force=True)


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
