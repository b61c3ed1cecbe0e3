"""Saved models at work: classify a user's images, evaluate on a data source. Prints nothing."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn.data import decode, folders, sources
from keras_cnn.errors import UserError, printable
from keras_cnn.models import saved
from keras_cnn.results import grid

if TYPE_CHECKING:
    import keras

BATCH_SIZE = 256


@dataclass(frozen=True, repr=False)
class Predictions:
    """What a model makes of image files.

    Attributes:
        paths: The n images that could be read.
        class_names: In the order of the columns.
        probabilities: (n, classes) float32; rows sum to 1.
        unreadable: The other files, each with the reason.
    """

    paths: list[Path]
    class_names: list[str]
    probabilities: np.ndarray
    unreadable: list[tuple[Path, str]]

    def __repr__(self) -> str:
        return f"Predictions({len(self.paths)} images, {len(self.class_names)} classes)"

    def best(self, count: int) -> list[list[tuple[str, float]]]:
        """The most probable classes of each image, with their probabilities."""
        return [
            [(self.class_names[k], float(row[k])) for k in np.argsort(-row, kind="stable")[:count]]
            for row in self.probabilities
        ]


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What a model makes of images whose classes are known.

    Attributes:
        class_names: The model's.
        labels: The true classes (n,), counted as the model counts them.
        probabilities: (n, classes).
        shared: How many of the images have the pixels of training images of the source.
    """

    class_names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    shared: int = 0

    def __repr__(self) -> str:
        return f"Evaluation({self.accuracy:.1%} of {len(self.labels)} images)"

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image (n,); -1 where the model gives no numbers."""
        is_told = np.isfinite(self.probabilities).all(axis=1)
        return np.where(is_told, self.probabilities.argmax(axis=1), -1)

    @property
    def accuracy(self) -> float:
        """The share of images that are classified right."""
        return float((self.predicted == self.labels).mean())

    def report(self) -> str:
        """Precision, recall, F1 and images of each class, and their means over the classes here.

        Classes of the model that the data has no image of have `-`, and are in no mean.
        """
        from sklearn.metrics import precision_recall_fscore_support

        *measures, support = precision_recall_fscore_support(
            self.labels, self.predicted, labels=range(len(self.class_names)), zero_division=0
        )
        measures = np.stack(measures)  # (3, classes)
        rows = [["", "precision", "recall", "f1-score", "images"]]
        for name, values, images in zip(self.class_names, measures.T, support, strict=True):
            cells = [f"{value:.3f}" if images else "-" for value in values]
            rows.append([printable(name), *cells, f"{images:,}"])
        total = f"{len(self.labels):,}"
        rows += [[], ["accuracy", "", "", f"{self.accuracy:.3f}", total]]
        for name, weights in (("macro", support > 0), ("weighted", support)):
            means = np.average(measures, axis=1, weights=weights)
            rows.append([f"{name} avg", *(f"{mean:.3f}" for mean in means), total])
        filled = [row or [""] * len(rows[0]) for row in rows]
        return "\n".join(grid.aligned(filled, right=range(1, len(rows[0])))) + "\n"

    def confusion(self) -> np.ndarray:
        """Counts int64 (classes, classes), true class by row, predicted class by column."""
        return saved.confusion(self.labels, self.probabilities)


def predict(model: str | Path, images: Sequence[str | Path]) -> Predictions:
    """Classifies image files.

        predict("model.keras", ["photo.jpg", "photos"]).best(3)

    Args:
        model: A `.keras` file.
        images: Image files or folders, searched with their subfolders.

    Raises:
        UserError: The model cannot be used, there is no image, or none can be read.
    """
    model = Path(model).expanduser()
    paths = _image_files([Path(image).expanduser() for image in images])
    _require_readable(paths)  # before the framework starts
    network, card = saved.load(model)
    size = _image_size(network, model)
    names = _class_names(network, card)
    read, unreadable, probabilities = [], [], []
    for batch in decode.batches([str(path) for path in paths], size):
        unreadable += [(Path(path), reason) for path, reason in batch.unreadable]
        if len(batch.indices):
            read += [paths[index] for index in batch.indices]
            outputs = network.predict(batch.images, batch_size=BATCH_SIZE, verbose=0)
            probabilities.append(np.asarray(outputs))
    told = np.concatenate(probabilities)
    is_told = _told(told, model)
    no_number = "the model gives what is no number"
    unreadable += [(path, no_number) for path, ok in zip(read, is_told, strict=True) if not ok]
    read = [path for path, ok in zip(read, is_told, strict=True) if ok]
    return Predictions(read, names, told[is_told], unreadable)


def evaluate(model: str | Path, source: str, split: str = "test") -> Evaluation:
    """Classifies the images of a data source.

    Args:
        model: A `.keras` file.
        source: A data source's name or a folder of images: of a flat one all, or those drawn for
            testing where the model was trained on it.
        split: Which of its splits.

    Raises:
        UserError: The model or the data cannot be used, or their classes differ.
    """
    model = Path(model).expanduser()
    network, card = saved.load(model)
    fingerprints = card.get("fingerprints")
    trained_on = fingerprints.get("data", "") if isinstance(fingerprints, dict) else ""
    dataset = sources.load_for_testing(source, _image_size(network, model), split, trained_on)
    names = _class_names(network, card)
    labels = _labels_of_model(dataset.splits[split].labels, dataset.class_names, names)
    images = dataset.splits[split].images
    probabilities = np.asarray(network.predict(images, batch_size=BATCH_SIZE, verbose=0))
    _told(probabilities, model)
    shared = sources.count_shared(dataset, split) if split != "train" else 0
    return Evaluation(names, labels, probabilities, shared)


def _told(probabilities: np.ndarray, model: Path) -> np.ndarray:
    """Of which images a model's outputs (n, classes) are numbers: bool (n,).

    Raises:
        UserError: Of none, as where its training diverged.
    """
    is_told = np.isfinite(probabilities).all(axis=1)
    if not is_told.any():
        raise UserError(
            f"{model}: what it gives is no number for any image: its training diverged; train it "
            "again, at a lower learning rate"
        )
    return is_told


def _image_files(given: Sequence[Path]) -> list[Path]:
    if not given:
        raise UserError("predict needs image files or a folder of them after the model")
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                # Images of other kinds, pipes and devices are among them: they are then told.
                if file.suffix.lower() in (*folders.IMAGE_SUFFIXES, *folders.OTHER_SUFFIXES)
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
                and file.exists()
                and not file.is_dir()
            )
            if not inside:
                raise UserError(f"{path}: no images in this folder")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return found


def _require_readable(paths: Sequence[Path]) -> None:
    """Refuses files of which not one is an image."""
    unreadable: list[tuple[str, str]] = []
    for path in paths:
        found = decode.decode_batch([str(path)], image_size=8).unreadable
        if not found:
            return
        unreadable += found
    path, reason = unreadable[0]
    others = f"; none of the {len(paths)} files can be read" if len(paths) > 1 else ""
    raise UserError(f"{path}: {reason}{others}")


def _image_size(model: keras.Model, path: Path) -> int:
    shape = model.input_shape
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[1] != shape[2] or not shape[1]:
        raise UserError(f"{path}: takes {shape}, not square images (n, height, width, 3)")
    return shape[1]


def _class_names(model: keras.Model, card: dict[str, object]) -> list[str]:
    count = model.output_shape[-1]
    names = card.get("class_names") or [f"class {label}" for label in range(count)]
    if len(names) != count:
        raise UserError(
            f"the model gives {count} probabilities, its card names {len(names)} classes"
        )
    return [str(name) for name in names]


def _labels_of_model(
    labels: np.ndarray, class_names: Sequence[str], model_names: Sequence[str]
) -> np.ndarray:
    """The data's labels (n,) counted as the model counts its classes."""
    model_names = [unicodedata.normalize("NFC", name) for name in model_names]
    unknown = [name for name in class_names if name not in model_names]
    if unknown:
        raise UserError(
            f"the data has classes the model was not taught: {', '.join(unknown[:5])} "
            f"(it knows {', '.join(model_names[:10])})"
        )
    return np.array([model_names.index(name) for name in class_names])[labels]
