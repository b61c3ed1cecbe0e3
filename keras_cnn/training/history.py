"""One record an epoch, of whatever trains: its figures and its seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import keras

Report = Callable[[dict[str, float]], None]


def record(
    epoch: int,
    learning_rate: float,
    train: tuple[float, float],
    test: tuple[float, float],
    seconds: float,
) -> dict[str, float]:
    """An epoch's record.

    Args:
        epoch: Counted from 1.
        learning_rate: Of the epoch; not a number where there is none.
        train: Loss and accuracy in [0, 1] of what was trained on.
        test: Likewise, of what was not.
        seconds: What the epoch took, evaluation included.

    Returns:
        The keys are `results.store.HISTORY_COLUMNS`.
    """
    return {
        "epoch": epoch,
        "learning_rate": float(learning_rate),
        "train_loss": float(train[0]),
        "train_accuracy": float(train[1]),
        "test_loss": float(test[0]),
        "test_accuracy": float(test[1]),
        "seconds": seconds,
    }


class History(keras.callbacks.Callback):
    """Keeps `records`, one an epoch of `fit`.

    Args:
        report: Called with each record, as it is made.
        loss: The log that holds the loss.
    """

    def __init__(self, report: Report, loss: str = "loss") -> None:
        super().__init__()
        self.records: list[dict[str, float]] = []
        self._report = report
        self._loss = loss
        self._began = 0.0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the clock: what other callbacks draw before an epoch's steps is part of it."""
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Makes the epoch's record."""
        made = record(
            epoch + 1,
            self.model.optimizer.learning_rate,
            (logs[self._loss], logs["accuracy"]),
            (logs[f"val_{self._loss}"], logs["val_accuracy"]),
            time.perf_counter() - self._began,
        )
        self._began = time.perf_counter()
        self.records.append(made)
        self._report(made)
