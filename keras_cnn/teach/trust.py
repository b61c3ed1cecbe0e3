"""How far the answers of a model that `teach` left can be trusted, as its file tells."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keras_cnn.errors import UserError
from keras_cnn.models import archive
from keras_cnn.teach.familiar import Familiar

MEMBER = "keras_cnn_familiar.npz"  # of the file, which Keras ignores
LARGEST = 1 << 28  # bytes


class _Card(BaseModel):
    """The part of a model's card that is of this."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    error_rate: float = Field(gt=0, lt=1)
    threshold: float = Field(ge=0, le=1)
    sets: dict[float, float]
    familiar_threshold: float


@dataclass(frozen=True, repr=False)
class Trust:
    """What a model knows of its own answers.

    Attributes:
        error_rate: The share of answers that may be wrong, as was asked for.
        threshold: Below this probability the answer is `unsure`.
        sets: By coverage, the least probability of a class in a prediction set.
        familiar: What tells a picture that is nothing of the kind.
        familiar_threshold: Below this it is one.
    """

    error_rate: float
    threshold: float
    sets: dict[float, float]
    familiar: Familiar
    familiar_threshold: float

    def unsure(self, probabilities: np.ndarray) -> np.ndarray:
        """Of which images the answer is unsure, from probabilities (n, classes): bool (n,)."""
        return probabilities.max(axis=1) < self.threshold

    def strange(self, features: np.ndarray) -> np.ndarray:
        """Which images are nothing of the kind, from features (n, channels): bool (n,)."""
        return self.familiar.score(features) < self.familiar_threshold

    def prediction_sets(self, probabilities: np.ndarray, coverage: float) -> np.ndarray:
        """Which classes an image may be of, the most probable among them: bool (n, classes).

        Args:
            probabilities: (n, classes).
            coverage: The share of images whose true class is in the set; one of `sets`.

        Raises:
            UserError: It is another one.
        """
        if coverage not in self.sets:
            known = ", ".join(f"{one:g}" for one in self.sets)
            raise UserError(f"coverage is {coverage:g}: the model knows of {known}")
        inside = probabilities >= self.sets[coverage]
        inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return inside


def read(path: Path, card: dict[str, object]) -> Trust | None:
    """What a file tells of it; None of a model that `teach` has not left.

    Raises:
        UserError: It is damaged.
    """
    if "calibration" not in card:
        return None
    try:
        told = _Card.model_validate(card["calibration"])
        with archive.opened(path) as members:
            packed = archive.read(members, MEMBER, most_bytes=LARGEST)
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            familiar = Familiar(arrays["center"], arrays["directions"])
        channels = familiar.directions.shape[1:]
        if familiar.center.shape != channels or len(channels) != 1 or not len(familiar.directions):
            raise ValueError("features of other shapes")
    except (ValidationError, ValueError, KeyError, zipfile.BadZipFile) as error:
        first, *_ = str(error).splitlines() or [""]
        raise UserError(f"{path}: what it knows of its answers is damaged ({first})") from None
    return Trust(told.error_rate, told.threshold, told.sets, familiar, told.familiar_threshold)
