"""What a long run needs to go on after its last epoch, to the same result."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import h5py
import keras
import numpy as np

from keras_cnn import files


class Checkpoint(keras.callbacks.Callback):
    """Writes all of a model's and its optimizer's state after each epoch.

    Going on gives the same bits if all else that is random is drawn from the epoch's number, as
    `Feed` does.

    Args:
        path: The file; it appears whole or not at all. None keeps nothing.
    """

    def __init__(self, path: str | Path | None) -> None:
        super().__init__()
        self._path = Path(path) if path else None
        self._records: list[dict[str, float]] = []
        self._epochs = 0
        self._read = _read(self._path) if self._path else None

    def planned_epochs(self) -> int | None:
        """How many epochs the interrupted run was to have; None where there is none."""
        return self._read["epochs"] if self._read else None

    def restore(self, model: keras.Model) -> list[dict[str, float]]:
        """Brings a compiled model to where the file left it.

        Args:
            model: As it was when the file was written, but for the values of its variables.

        Returns:
            The records of the epochs done; none where there is no file.
        """
        model.optimizer.build(model.trainable_variables)
        if not self._read:
            return []
        state, values = _state(model), self._read["values"]
        if [tuple(variable.shape) for variable in state] != [value.shape for value in values]:
            return []  # of another version of the software: from the beginning
        for variable, value in zip(state, values, strict=True):
            variable.assign(value)
        return self._read["records"]

    def keep(self, records: list[dict[str, float]], epochs: int) -> None:
        """Names what is written beside the state after each epoch.

        Args:
            records: One of each epoch done; grows as they are.
            epochs: How many there will be.
        """
        self._records, self._epochs = records, epochs

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Writes the file."""
        if self._path is None:
            return
        with files.replacing(self._path) as partial:
            # No lock: some file systems have none, and only this process knows the file.
            with h5py.File(partial, "w", locking=False) as file:
                file.attrs["epochs"] = self._epochs
                file.attrs["records"] = json.dumps(self._records)
                for number, variable in enumerate(_state(self.model)):
                    file[f"{number}"] = keras.ops.convert_to_numpy(variable)
            files.seal(partial)


def _read(path: Path) -> dict[str, object] | None:
    if not path.exists():
        return None
    if not files.intact(path):
        logging.getLogger(__name__).warning("%s is damaged: training begins anew", path)
        return None
    with h5py.File(path, "r", locking=False) as file:
        return {
            "epochs": int(file.attrs["epochs"]),
            "records": json.loads(file.attrs["records"]),
            "values": [np.asarray(file[f"{number}"]) for number in range(len(file))],
        }


def _state(model: keras.Model) -> list[keras.Variable]:
    """Weights, statistics, seeds of dropout, and the optimizer's own; metrics begin anew."""
    metrics = {id(variable) for metric in model.metrics for variable in metric.variables}
    kept = [variable for variable in model.variables if id(variable) not in metrics]
    return [*kept, *model.optimizer.variables]
