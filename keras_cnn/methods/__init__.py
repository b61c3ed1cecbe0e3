"""Training methods: one file each, all with the signature of `supervised.train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Outcome:
    """What a method gives back.

    Attributes:
        history: One record an epoch, keys as in `store.HISTORY_COLUMNS`.
        probabilities: Of the test images, (n, classes) float32, rows sum to 1.
        model: Raw 0-255 RGB images (n, h, w, 3) to probabilities (n, classes).
        measures: What the method measures besides, by the names of `measures.MEASURES`.
    """

    history: list[dict[str, float]]
    probabilities: np.ndarray
    model: keras.Model
    measures: dict[str, float] = field(default_factory=dict)


def find(name: str) -> Callable[..., Outcome]:
    """The `train` function of a method; imports keras."""
    return import_module(f"keras_cnn.methods.{name}").train
