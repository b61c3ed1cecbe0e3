"""What a run's final model makes of each test image: `predictions.npz` in the run's folder.

    images         int64 (n,), each image's place in the test split of the data source
    labels         int32 (n,), its true class
    predicted      int32 (n,), the most probable class; -1 where the model gives no numbers
    probabilities  float16 (n, k), of the classes in the columns
    classes        int32 (k,) all classes, or (n, k) of each image where there are more than 20
    names          text (n,), each image's file, where the data is a folder of the user's; else (0,)

NumPy reads it: `numpy.load(path)`. All methods have it of the model they save, which tells all
classes apart: what MAML and prototypical networks make of the tasks and episodes they are also
tested on is not in it.
"""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from keras_cnn import files
from keras_cnn.results.intervals import Hits

MOST_CLASSES = 20  # of which all probabilities are in the file
LARGEST = 1 << 30  # bytes of an array


@dataclass(frozen=True, repr=False)
class Predictions:
    """The content of `predictions.npz`, as the module tells it."""

    images: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray
    classes: np.ndarray
    names: np.ndarray

    def __repr__(self) -> str:
        right = (self.labels == self.predicted).mean()
        return f"Predictions({len(self.labels)} images, {right:.1%} right)"


def of(
    labels: np.ndarray, probabilities: np.ndarray, images: np.ndarray, names: Sequence[str] = ()
) -> Predictions:
    """What there is to keep of a model's probabilities.

    Of more than 20 classes those of the true one, first, and of the 19 most probable others.

    Args:
        labels: (n,).
        probabilities: (n, classes), in full.
        images: (n,), places in the test split.
        names: The images' files, or none.
    """
    count = probabilities.shape[1]
    told = np.isfinite(probabilities).all(axis=1)
    classes = np.arange(count)
    if count > MOST_CLASSES:
        ranked = probabilities.astype(np.float32)
        ranked[np.arange(len(labels)), labels] = np.inf
        classes = np.argsort(-ranked, axis=1, kind="stable")[:, :MOST_CLASSES]
        probabilities, full = np.take_along_axis(probabilities, classes, axis=1), probabilities
    else:
        full = probabilities
    return Predictions(
        images=np.asarray(images, np.int64),
        labels=np.asarray(labels, np.int32),
        predicted=np.where(told, full.argmax(axis=1), -1).astype(np.int32),
        probabilities=probabilities.astype(np.float16),
        classes=classes.astype(np.int32),
        names=np.array(names, np.str_) if len(names) else np.array([], "U1"),
    )


def write(predictions: Predictions, path: Path) -> None:
    """Writes the file, sealed."""
    with path.open("wb") as file:
        np.savez_compressed(file, **vars(predictions))
    files.seal(path)


def check(path: Path) -> None:
    """Refuses a file of which a bit has changed; reads all of it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged, or no regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):  # nothing is waited for
        raise ValueError(f"{path.name} is no regular file")
    if not files.intact(path):
        raise ValueError(f"{path.name} is damaged")


def read(path: Path) -> Predictions:
    """Reads the file.

    Raises:
        FileNotFoundError: There is none, as in results of earlier versions.
        OSError: It cannot be read.
        ValueError: It is damaged, or holds something else.
    """
    found = Predictions(**_arrays(path, list(Predictions.__annotations__)))
    if not _is_whole(found):
        raise ValueError(f"{path.name} holds something else")
    return found


def hits(path: Path) -> Hits:
    """Which images are classified right, read without the probabilities.

    Raises:
        FileNotFoundError: As `read`; so are the others.
        OSError: Likewise.
        ValueError: Likewise.
    """
    images, labels, predicted = _arrays(path, ["images", "labels", "predicted"]).values()
    if not images.shape == labels.shape == predicted.shape == (images.size,) or not images.size:
        raise ValueError(f"{path.name} holds something else")
    all_of_them = _first(len(images))  # the same array for every run
    whole = np.array_equal(images, all_of_them)
    return Hits(all_of_them if whole else images, labels == predicted)


@lru_cache(maxsize=4)
def _first(count: int) -> np.ndarray:
    return np.arange(count)


def _arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    check(path)
    try:
        with zipfile.ZipFile(path) as members:
            if max(member.file_size for member in members.infolist()) > LARGEST:
                raise ValueError(f"{path.name} is too large")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except (zipfile.BadZipFile, KeyError, EOFError, MemoryError, TypeError) as error:
        raise ValueError(f"{path.name} holds something else ({error})") from None


def _is_whole(found: Predictions) -> bool:
    """Whether the arrays have their types and fit one another."""
    count, columns = len(found.labels), found.probabilities.shape[-1:]
    kinds = {"images": "i", "labels": "i", "predicted": "i", "probabilities": "f", "classes": "i"}
    flat = (found.images, found.labels, found.predicted)
    return (
        all(getattr(found, name).dtype.kind == kind for name, kind in kinds.items())
        and found.names.dtype.kind == "U"
        and all(array.shape == (count,) for array in flat)
        and found.probabilities.shape == (count, *columns)
        and found.classes.shape in (columns, found.probabilities.shape)
        and found.names.shape in ((0,), (count,))
        and count > 0
        and len(np.unique(found.images)) == count
        and min(found.images.min(), found.labels.min(), found.predicted.min() + 1) >= 0
    )
