"""Saved models: a `.keras` file that needs nothing but Keras, with a card inside.

The file is an ordinary Keras archive with one more member, `keras_cnn.json`, which Keras ignores:
class names, image size, and where the model comes from. Settings at their defaults are left out of
its layers' configurations: an earlier Keras refuses those it does not know.
"""

from __future__ import annotations

import inspect
import io
import json
import math
import re
import shutil
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cnn import files
from keras_cnn.errors import UserError
from keras_cnn.models import archive, hdf5

if TYPE_CHECKING:
    import keras
    import numpy as np

CARD = "keras_cnn.json"
LARGEST_CARD, LARGEST_JSON = 1 << 20, 1 << 22  # bytes; thousands of layers are in 4 MB
CONFIG = "config.json"  # of the layers, by Keras
OLDEST_KERAS = "3.11"  # that loads what is saved here, as tried

# What Keras raises for a model that is damaged, of another version or made of a user's own classes.
FAULTS = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    *(OSError, RuntimeError, ImportError, MemoryError),
)


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


def save(
    model: keras.Model,
    path: str | Path,
    card: dict[str, object],
    members: Mapping[str, bytes] | None = None,
) -> None:
    """Writes a model and its card.

    Args:
        model: Any Keras model.
        path: Ends in `.keras`; appears whole or not at all.
        card: `class_names` and whatever else tells where the model comes from. The earliest
            version of Keras that loads the file is added to it.
        members: What else is to be in the archive, by name; Keras ignores it.

    Raises:
        UserError: The name ends otherwise.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise UserError(f"{path}: a model's name ends in .keras")
    card = {**card, "keras": f">= {OLDEST_KERAS}"}
    with files.temporary_folder() as folder:
        by_keras = Path(folder, "model.keras")
        with _without_tensorflow(), _attributes_listed_once():
            model.save(by_keras)
        with (
            files.replacing(path) as partial,
            zipfile.ZipFile(by_keras) as source,
            zipfile.ZipFile(partial, "w") as target,
        ):
            for member in source.infolist():
                with source.open(member) as read, target.open(member.filename, "w") as written:
                    if member.filename == CONFIG:
                        written.write(json.dumps(_without_defaults(json.load(read))).encode())
                    else:
                        shutil.copyfileobj(read, written, 1 << 20)
            target.writestr(CARD, files.json_text(card))
            for name, content in (members or {}).items():
                target.writestr(name, content)


@contextmanager
def _without_tensorflow() -> Iterator[None]:
    """Keeps Keras from importing TensorFlow, 2 s, only to ask whether a setting is a type of it.

    Nothing can be, where it has not been imported. A Keras of other private names imports it.
    """
    module = sys.modules.get("keras.src.utils.module_utils")
    lazy = getattr(module, "tensorflow", None)
    if "tensorflow" in sys.modules or getattr(lazy, "_available", False) is not None:
        yield
        return
    lazy._available = False
    try:
        yield
    finally:
        lazy._available = None  # not known, as it was


@contextmanager
def _attributes_listed_once() -> Iterator[None]:
    """Keeps Keras from listing the attributes of its classes anew for each layer, 1 ms of each.

    It means to keep them, and looks for them under another name than it keeps them by.
    """
    module = sys.modules.get("keras.src.saving.saving_lib")
    listed = getattr(module, "get_attr_skipset", None)
    if listed is None:  # a Keras of other private names
        yield
        return
    module.get_attr_skipset = cache(listed)
    try:
        yield
    finally:
        module.get_attr_skipset = listed


def _without_defaults(entry: object) -> object:
    """The same configuration without what `__init__` of Keras's classes takes by default."""
    if isinstance(entry, list):
        return [_without_defaults(each) for each in entry]
    if not isinstance(entry, dict):
        return entry
    entry = {key: _without_defaults(value) for key, value in entry.items()}
    module, config = entry.get("module"), entry.get("config")
    if str(module).startswith("keras.") and isinstance(config, dict):
        made_by = getattr(import_module(module), entry["class_name"])
        taken = _parameters(made_by)
        reads_itself = "from_config" in vars(made_by)  # and may ask for numbers, as Rescaling does
        entry["config"] = {
            key: value
            for key, value in config.items()
            if key not in taken
            or value != taken[key].default
            or (reads_itself and value is not None)
        }
    return entry


@cache
def _parameters(layer: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(layer.__init__).parameters


def load(path: str | Path) -> tuple[keras.Model, dict[str, object]]:
    """Reads a model and its card.

    Args:
        path: A `.keras` file; one that Keras itself wrote has an empty card.

    Raises:
        UserError: There is no such file, or it is not a Keras model, or one with more inside than
            an archive of plain arrays.
    """
    path = Path(path)
    with archive.opened(path) as members:
        card = _card(members, path) if CARD in members.namelist() else {}
        config, stored = "", 0
        for name in members.namelist():
            # All are read, and their checksums compared.
            content = archive.read(members, name, LARGEST_JSON if name.endswith(".json") else None)
            if name == CONFIG:
                config = content.decode()
            elif name.endswith(".h5"):
                with hdf5.opened(io.BytesIO(content), path) as file:
                    stored += hdf5.size(file)
    try:
        _check_size(config, stored, path)
        return _loaded_by_keras(path), card
    except faults() as error:
        raise UserError(f"{path}: Keras cannot load it ({first_line(error)})") from None


def faults() -> tuple[type[Exception], ...]:
    """`FAULTS`, and what TensorFlow raises where it is in use, which is none of them."""
    errors = getattr(sys.modules.get("tensorflow"), "errors", None)
    return (*FAULTS, errors.OpError) if errors else FAULTS


def first_line(error: Exception) -> str:
    """The beginning of what Keras says, which may be pages, and in bold."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))
    first, *_ = text.strip().splitlines() or [type(error).__name__]
    return textwrap.shorten(first, 200, placeholder=" …")


def _card(members: zipfile.ZipFile, path: Path) -> dict[str, object]:
    """What the card says, as far as it is of use: its class names are texts, no two alike."""
    try:
        card = json.loads(archive.read(members, CARD, most_bytes=LARGEST_CARD))
    except (ValueError, RecursionError):
        raise UserError(f"{path}: its card, {CARD} in it, is no JSON") from None
    names = card.get("class_names", []) if isinstance(card, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: its card, {CARD} in it, has no list of class names")
    if len({*names}) < len(names):
        raise UserError(f"{path}: its card, {CARD} in it, names a class twice")
    return card


def _check_size(config: str, stored: int, path: Path) -> None:
    """Refuses a model that asks for more weights than its file holds, before they take memory."""
    wanted = _weights_of(config)
    if wanted > stored:
        raise UserError(f"{path}: is made of {wanted:,} weights, and the file holds {stored:,}")


@lru_cache(maxsize=16)  # as many files of one network have the same, a third of loading each
def _weights_of(config: str) -> int:
    """How many weights the layers have, which are made where no array takes memory."""
    import keras

    counts: list[int] = []

    def count() -> None:
        weights = keras.models.model_from_json(config).weights
        counts.append(sum(math.prod(weight.shape) for weight in weights))

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.eval_shape(count)
        return counts[0]
    if backend == "tensorflow":
        import tensorflow

        without_memory = tensorflow.Graph().as_default()
    else:
        without_memory = keras.device("meta")
    with without_memory:
        count()
    return counts[0]


def _loaded_by_keras(path: Path) -> keras.Model:
    import keras

    with warnings.catch_warnings(action="ignore"), files.temporary_folder() as folder:
        if path.suffix != ".keras":  # Keras insists on the ending in small letters
            (link := Path(folder, "model.keras")).symlink_to(path.resolve())
            path = link
        with _attributes_listed_once():
            return keras.models.load_model(path, compile=False)


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
