"""Backbones in Keras's own files: read from a saved model or a weights file, written at half size.

Both kinds hold the same tree of arrays, in which each layer's has its name.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from keras_cnn import files
from keras_cnn.errors import UserError

ENDINGS = (".keras", ".weights.h5")
WEIGHTS_IN_ARCHIVE = "model.weights.h5"
HEAD = "head_"


def read(path: Path) -> dict[tuple[str, int], tuple[str, np.ndarray]]:
    """The weights in a Keras file, but those of a head.

    Args:
        path: A `.keras` model that this package saved, or the `.weights.h5` of a backbone.

    Returns:
        For each weight the name of its layer and its place among the layer's weights, then the
        layer's name again, as what the file calls it, and its values.

    Raises:
        UserError: The file cannot be read.
    """
    with _opened(path) as file:
        return {
            (layer, place): (layer, array[()])
            for layer, arrays in _layers(file)
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
