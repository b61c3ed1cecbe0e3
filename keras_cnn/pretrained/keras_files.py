"""Backbones in Keras's own files: read from a saved model or a weights file, written at half size.

Both kinds hold the same tree of arrays, in which each layer's has its name. A file must hold each
weight the backbone has, of the right shape, and no layer the backbone does not have but a head.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from keras_cnn import files
from keras_cnn.errors import UserError

if TYPE_CHECKING:
    import keras

ENDINGS = (".keras", ".weights.h5")
WEIGHTS_IN_ARCHIVE = "model.weights.h5"
HEAD = "head_"


def load_keras_weights(model: keras.Model, path: Path) -> None:
    """Gives a backbone the weights of a Keras file; a head keeps its own.

    Args:
        model: From `models.classifier` or `models.backbone`.
        path: A `.keras` model that this package saved, or the `.weights.h5` of a backbone.

    Raises:
        UserError: The file cannot be read, lacks a weight, or holds one that fits nowhere.
    """
    with _opened(path) as file:
        found = {name: [array[()] for array in arrays] for name, arrays in _layers(file)}
    assignments = []
    for layer in model.layers:
        if layer.name.startswith(HEAD) or not layer.weights:
            continue
        arrays = found.pop(layer.name, [])
        if len(arrays) != len(layer.weights):
            raise UserError(f"{path}: there is nothing for {model.name}'s {layer.name}")
        for variable, array in zip(layer.weights, arrays, strict=True):
            if array.shape != tuple(variable.shape):
                raise UserError(
                    f"{path}: {layer.name} has shape {array.shape}, which does not fit "
                    f"{model.name}'s {variable.path} {tuple(variable.shape)}"
                )
            assignments.append((variable, array))
    if found:
        raise UserError(f"{path}: {next(iter(found))!r} is no layer of {model.name}")
    for variable, array in assignments:
        variable.assign(array.astype(np.float32))


def write_backbone(source: Path, path: Path) -> None:
    """Writes a saved model's backbone as a weights file in half precision.

    Keras's own `load_weights` of a `models.backbone` reads it too.

    Args:
        source: A `.keras` model that this package saved, or the `.weights.h5` of a backbone.
        path: Ends in `.weights.h5`; appears whole or not at all.

    Raises:
        UserError: The source cannot be read, or a weight is too large for half precision.
    """
    halves = {}
    with _opened(source) as read:
        for layer, arrays in _layers(read):
            for array in arrays:
                with np.errstate(over="ignore"):
                    half = array[()].astype(np.float16)
                if not np.isfinite(half).all():
                    raise UserError(f"{source}: {layer} has weights beyond half precision")
                halves[array.name] = layer, half
    with files.replacing(path) as partial, h5py.File(partial, "w", libver="latest") as written:
        for name, (layer, half) in halves.items():
            written[name] = half
            written[name].parent.attrs["name"] = layer


def _layers(file: h5py.File) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    """The layers of a backbone that have weights, by name: arrays in the order of the weights."""
    for group in file["layers"].values():
        arrays = group.get("vars", {})
        if len(arrays) and not arrays.attrs["name"].startswith(HEAD):
            yield arrays.attrs["name"], [arrays[f"{number}"] for number in range(len(arrays))]


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; a finished run's model is <run folder>/model.keras")
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read(WEIGHTS_IN_ARCHIVE))
        else:
            content = path
        with h5py.File(content, "r") as file:
            yield file
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path}: not a Keras model or weights file ({reason})") from None
