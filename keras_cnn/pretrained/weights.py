"""The weights a backbone starts from, whichever kind of file they lie in.

A file must hold each weight the backbone has, of the right shape, and no other but those of a head
or classifier.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn.errors import UserError
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
    read = keras_files.read if path.name.endswith(keras_files.ENDINGS) else convert.read
    arrays = read(path)
    variables = {
        (layer.name, place): variable
        for layer in model.layers
        if not layer.name.startswith(keras_files.HEAD)
        for place, variable in enumerate(layer.weights)
    }
    for at, (name, array) in arrays.items():
        if at not in variables:
            raise UserError(f"{path}: {model.name} has no {name!r}")
        if array.shape != (shape := tuple(variables[at].shape)):
            raise UserError(
                f"{path}: {name} has shape {array.shape}, which does not fit {model.name}'s "
                f"{variables[at].path} {shape}"
            )
    for at, variable in variables.items():
        if at not in arrays:
            raise UserError(f"{path}: there is nothing for {model.name}'s {variable.path}")
    for at, variable in variables.items():  # only now: a file that does not fit changes nothing
        variable.assign(arrays[at][1].astype(np.float32))
