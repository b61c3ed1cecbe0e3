"""Backbones in Keras's own files: read from a saved model or a weights file, written at half size.

Both kinds hold the same tree of arrays, in which each layer's has its name.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from keras_cnn import files
from keras_cnn.errors import UserError
from keras_cnn.models import archive, hdf5
from keras_cnn.pretrained.stored import Stored, Weights

ENDINGS = (".keras", ".h5", ".hdf5")
WEIGHTS_IN_ARCHIVE = "model.weights.h5"
HEAD = "head_"


@contextmanager
def opened(path: Path) -> Iterator[Weights]:
    """The weights in a Keras file, but those of a head; their values can be read in the block.

    Args:
        path: A `.keras` model that this package saved, or the `.weights.h5` of a backbone.

    Raises:
        UserError: The file cannot be read.
    """
    with _file(path) as file:
        yield {
            (layer, place): Stored(layer, array.shape, partial(hdf5.read, array))
            for layer, arrays in _layers(file, path)
            for place, array in enumerate(arrays)
        }


def write_backbone(source: Path, path: Path) -> None:
    """Writes a saved model's backbone as a weights file in half precision.

    Keras's own `load_weights` of a `models.backbone` reads it too.

    Args:
        source: A `.keras` model that this package saved, or the `.weights.h5` of a backbone.
        path: Ends in `.weights.h5`; appears whole or not at all.

    Raises:
        UserError: The source cannot be read, or a weight is too large for half precision.
    """
    written = io.BytesIO()  # so that a full disk is an error of the file system, not of HDF5
    with _file(source) as file, h5py.File(written, "w", libver="latest") as halves:
        for layer, arrays in _layers(file, source):
            for array in arrays:
                with np.errstate(over="ignore"):
                    half = hdf5.read(array).astype(np.float16)
                if not np.isfinite(half).all():
                    raise UserError(f"{source}: {layer} has weights beyond half precision, or NaN")
                halves[array.name] = half
            halves[arrays[0].parent.name].attrs["name"] = layer
    with files.replacing(path) as whole:
        whole.write_bytes(written.getbuffer())
        files.seal(whole)


def _layers(file: h5py.File, path: Path) -> Iterator[tuple[str, list[h5py.Dataset]]]:
    """The layers of a backbone that have weights, by name: arrays in the order of the weights."""
    if not isinstance(layers := file.get("layers"), h5py.Group):
        raise UserError(f"{path}: has no layers of Keras 3: save the model with it, as .keras")
    for group in layers.values():
        arrays = group.get("vars", {})
        if len(arrays) and not arrays.attrs["name"].startswith(HEAD):
            yield arrays.attrs["name"], [arrays[f"{number}"] for number in range(len(arrays))]


@contextmanager
def _file(path: Path) -> Iterator[h5py.File]:
    """The HDF5 file that a Keras file is, or has inside."""
    if path.suffix.lower() == ".keras":
        with archive.opened(path) as members:
            if WEIGHTS_IN_ARCHIVE not in members.namelist():
                raise UserError(f"{path}: has no {WEIGHTS_IN_ARCHIVE} inside: not a Keras model")
            content = io.BytesIO(members.read(WEIGHTS_IN_ARCHIVE))
    else:
        files.require(path)
        if files.sealed(path) and not files.intact(path):
            raise UserError(f"{path}: is damaged: its content is not what was written")
        content = path.open("rb")
    with content, hdf5.opened(content, path) as file:
        yield file
