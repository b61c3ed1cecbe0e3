"""What a run's result measures: names, units, digits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, isfinite, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_cnn.results.store import Result


@dataclass(frozen=True)
class Measure:
    """What a number of a run means and how it is written.

    Attributes:
        label: What it is, in words.
        unit: Unit of the numbers shown; empty for a pure number.
        scale: From the number in the result to the one shown.
        decimals: How many are written; None takes as many as give a column's smallest number
            three digits, and at least one.
        by_epoch: The history has it for each epoch, under the same name.
        varies: Whether repeats differ in it.
    """

    label: str
    unit: str = ""
    scale: float = 1.0
    decimals: int | None = None
    by_epoch: bool = False
    varies: bool = True

    @property
    def heading(self) -> str:
        """The label with its unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


MEASURES: dict[str, Measure] = {
    "train_accuracy": Measure("train accuracy", "percent", 100, 1, by_epoch=True),
    "test_accuracy": Measure("test accuracy", "percent", 100, 1, by_epoch=True),
    "train_loss": Measure("train loss", decimals=3, by_epoch=True),
    "test_loss": Measure("test loss", decimals=3, by_epoch=True),
    "test_accuracy_over_images": Measure("accuracy of the saved model", "percent", 100, 1),
    "macro_recall": Measure("recall, mean over classes", "percent", 100, 1),
    "macro_f1": Measure("F1, mean over classes", "percent", 100, 1),
    "negative_log_likelihood": Measure("negative log likelihood", decimals=3),
    "calibration_error": Measure("expected calibration error", "percentage points", 100, 1),
    "pair_accuracy": Measure("accuracy on test pairs", "percent", 100, 1),
    "episode_accuracy": Measure("accuracy on test episodes", "percent", 100, 1),
    "episode_interval": Measure(
        "95 percent interval of the accuracy on test episodes, ±", "percentage points", 100, 1
    ),
    "weights_moved": Measure("distance the weights moved", decimals=2),
    "seconds": Measure("seconds of training"),
    "seconds_an_epoch": Measure("seconds an epoch"),
    "images_a_second": Measure("training images a second", decimals=0),
    "epochs": Measure("epochs", decimals=0),
    "parameters": Measure("parameters", decimals=0, varies=False),
    "processor_use": Measure("processor use", "cores", decimals=2),
    "worker_seconds": Measure("processor seconds of loading processes"),
    "peak_memory_megabytes": Measure("peak memory", "megabytes", decimals=0),
}


def final(result: Result, name: str) -> float | None:
    """A run's final number in the measure's unit; None where it diverged or lacks it."""
    value = None if result.diverged_at else result.metrics.get(name)
    return None if value is None else MEASURES[name].scale * value


def by_epoch(result: Result, name: str) -> list[float]:
    """A run's number after each epoch, in the measure's unit."""
    return [MEASURES[name].scale * record[name] for record in result.history]


def decimals(name: str, numbers: Sequence[float]) -> int:
    """How many decimals the numbers of one column are written with."""
    fixed = MEASURES[name].decimals
    if fixed is not None:
        return fixed
    smallest = min((abs(number) for number in numbers if number and isfinite(number)), default=1.0)
    return min(max(2 - floor(log10(smallest)), 1), 4)


def written(mean: float | None, sd: float | None, places: int) -> str:
    """`61.0 ± 0.4`; without the spread where there is none, `-` where there is no number."""
    if mean is None:
        return "-"
    return f"{mean:,.{places}f}" if sd is None else f"{mean:,.{places}f} ± {sd:,.{places}f}"
