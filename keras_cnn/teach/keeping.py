"""The model that `teach` leaves: a `.keras` file, with what is known of its answers inside."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn.teach import trust
from keras_cnn.teach.lesson import Lesson

if TYPE_CHECKING:
    import keras


def model(lesson: Lesson) -> keras.Model:
    """Raw images (n, s, s, 3), 0 to 255, to calibrated probabilities (n, classes)."""
    import keras

    from keras_cnn.models import saved

    network = lesson.network
    logits = lesson.head.put_on(network.output)
    return saved.classifier(keras.Model(network.input, logits, name=lesson.backbone.name))


def card(lesson: Lesson, class_names: Sequence[str]) -> dict[str, object]:
    """What the file says of itself."""
    calibration = lesson.calibration
    sets = zip(map(str, calibration.coverages), calibration.least, strict=True)
    return {
        "class_names": list(class_names),
        "image_size": lesson.backbone.image_size,
        "fit": lesson.compared.candidate.fit,
        "input": "RGB images (n, height, width, 3), values 0 to 255",
        "output": "calibrated probabilities (n, classes)",
        "calibration": {
            "temperature": calibration.temperature,
            "error_rate": calibration.error_rate,
            "threshold": calibration.threshold,
            "sets": dict(sets),
            "familiar_threshold": calibration.familiar_threshold,
        },
    }


def save(lesson: Lesson, class_names: Sequence[str], path: Path) -> None:
    """Writes the file, whole or not at all."""
    from keras_cnn.models import saved

    packed = io.BytesIO()
    np.savez(packed, **lesson.familiar._asdict())
    members = {trust.MEMBER: packed.getvalue()}
    saved.save(model(lesson), path, card(lesson, class_names), members)
