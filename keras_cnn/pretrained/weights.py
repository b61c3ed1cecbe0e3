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
    is_keras = path.suffix.lower() in keras_files.ENDINGS
    variables = {
        (layer.name, place): variable
        for layer in model.layers
        if not layer.name.startswith(keras_files.HEAD)
        for place, variable in enumerate(layer.weights)
    }
    with (keras_files if is_keras else convert).opened(path) as stored:
        for at, weight in stored.items():
            if at not in variables:
                raise UserError(f"{path}: {model.name} has no {weight.name!r}")
            if weight.shape != (shape := tuple(variables[at].shape)):
                raise UserError(
                    f"{path}: {weight.name} has shape {weight.shape}, which does not fit "
                    f"{model.name}'s {variables[at].path} {shape}"
                )
        for at, variable in variables.items():
            if at not in stored:
                raise UserError(f"{path}: there is nothing for {model.name}'s {variable.path}")
        arrays = {at: weight.read().astype(np.float32) for at, weight in stored.items()}
    for at, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {stored[at].name} has values that are not finite: not used")
    for at, variable in variables.items():  # only now: a file that does not fit changes nothing
        variable.assign(arrays[at])
