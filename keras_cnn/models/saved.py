"""Saved models: a `.keras` file that needs nothing but Keras, with a card inside.

The file is an ordinary Keras archive with one more member, `keras_cnn.json`, which Keras ignores:
class names, image size, and where the model comes from.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn import files
from keras_cnn.errors import UserError

if TYPE_CHECKING:
    import keras
    import numpy as np

CARD = "keras_cnn.json"


def classifier(model: keras.Model) -> keras.Model:
    """A trained network as users want it: raw 0-255 RGB images to probabilities.

    Args:
        model: Raw images (n, h, w, 3) to logits (n, classes).

    Returns:
        A flat functional model of built-in layers on the same weights, a softmax at its end.
    """
    import keras

    from keras_cnn.models.heads import plain_head

    plain = plain_head(model)
    probabilities = keras.layers.Softmax(name="probabilities")(plain.output)
    return keras.Model(plain.input, probabilities, name="classifier")


def save(model: keras.Model, path: str | Path, card: dict[str, object]) -> None:
    """Writes a model and its card.

    Args:
        model: Any Keras model.
        path: Ends in `.keras`.
        card: `class_names` and whatever else tells where the model comes from.
    """
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CARD, files.json_text(card))


def load(path: str | Path) -> tuple[keras.Model, dict[str, object]]:
    """Reads a model and its card.

    Args:
        path: A `.keras` file; one that Keras itself wrote has an empty card.

    Raises:
        UserError: There is no such file, or it is not a Keras model.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; a finished run's model is <run folder>/model.keras")
    try:
        with zipfile.ZipFile(path) as archive:
            card = json.loads(archive.read(CARD)) if CARD in archive.namelist() else {}
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"{path}: not a .keras file ({error})") from None
    import keras

    try:
        return keras.models.load_model(path, compile=False), card
    except Exception as error:  # Keras raises whatever the damaged part provokes
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{path}: Keras cannot load it ({reason})") from None


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts int64 (classes, classes), true class by row, predicted class by column.

    Args:
        labels: (n,) integers.
        probabilities: (n, classes); an image without finite ones is not counted.
    """
    import numpy as np

    count = probabilities.shape[1]
    told = np.isfinite(probabilities).all(axis=1)
    cells = labels[told] * count + probabilities[told].argmax(axis=1)
    return np.bincount(cells, minlength=count * count).reshape(count, count)
