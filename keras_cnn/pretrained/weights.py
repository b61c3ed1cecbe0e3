"""The weights a backbone starts from, whichever kind of file they lie in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn.pretrained import convert, keras_files

if TYPE_CHECKING:
    import keras


def load(model: keras.Model, path: Path) -> None:
    """Gives a backbone the weights of a file; a head keeps its own.

    Args:
        model: From `models.classifier` or `models.backbone`.
        path: `.keras` or `.weights.h5`, `.safetensors`, or a torch file.

    Raises:
        UserError: The file cannot be read, lacks a weight, or holds one that fits nowhere.
    """
    if path.name.endswith(keras_files.ENDINGS):
        keras_files.load_keras_weights(model, path)
    else:
        convert.load_torch_weights(model, path)
