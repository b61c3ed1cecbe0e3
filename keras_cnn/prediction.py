"""Saved models at work: classify a user's images, evaluate on a data source. Prints nothing."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn import classifier, files
from keras_cnn.classifier import Classifier
from keras_cnn.data import decode, formats, sources
from keras_cnn.errors import UserError, printable
from keras_cnn.models import saved
from keras_cnn.results import grid, intervals, scores

UNSURE, STRANGE = "unsure", "nothing of the kind"

if TYPE_CHECKING:
    from keras_cnn.teach.trust import Trust


@dataclass(frozen=True, repr=False)
class Predictions:
    """What a model makes of image files.

    Attributes:
        paths: The n images that could be read.
        class_names: In the order of the columns.
        probabilities: (n, classes) float32; rows sum to 1, but of a model that ends in sigmoids.
            Logits have been through softmax, a single output and its rest to 1 are two classes.
        unreadable: The other files, each with the reason.
        unsure: Of which images the answer is wrong more often than the model was taught to be
            sure of, bool (n,); of a model that `teach` has left, as the next.
        strange: Which images are nothing of the kind that it was taught, bool (n,).
        trust: What else such a model knows of its answers.
    """

    paths: list[Path]
    class_names: list[str]
    probabilities: np.ndarray
    unreadable: list[tuple[Path, str]]
    unsure: np.ndarray | None = None
    strange: np.ndarray | None = None
    trust: Trust | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Predictions({len(self.paths)} images, {len(self.class_names)} classes)"

    def best(self, count: int) -> list[list[tuple[str, float]]]:
        """The most probable classes of each image, with their probabilities."""
        return [
            [(self.class_names[k], float(row[k])) for k in np.argsort(-row, kind="stable")[:count]]
            for row in self.probabilities
        ]

    @property
    def remarks(self) -> list[str]:
        """What is to be said of each image: `nothing of the kind`, `unsure`, or nothing."""
        if self.unsure is None or self.strange is None:
            return [""] * len(self.paths)
        return [
            STRANGE if strange else UNSURE if unsure else ""
            for strange, unsure in zip(self.strange, self.unsure, strict=True)
        ]

    def sets(self, coverage: float = 0.9) -> list[list[str]]:
        """The classes each image may be of: its true one is among them in `coverage` of cases.

        Raises:
            UserError: The model knows nothing of this coverage.
        """
        if self.trust is None:
            raise UserError("prediction sets are of models that `teach` has left")
        inside = self.trust.prediction_sets(self.probabilities, coverage)
        return [
            [self.class_names[k] for k in np.argsort(-row, kind="stable") if kept[k]]
            for row, kept in zip(self.probabilities, inside, strict=True)
        ]


@dataclass(frozen=True, repr=False)
class Evaluation:
    """What a model makes of images whose classes are known.

    Attributes:
        class_names: The model's.
        labels: The true classes (n,), counted as the model counts them.
        probabilities: (n, classes).
        shared: How many of the images have the pixels of training images of the source.
        files: The images' files, relative to the folder; empty where the source is no folder.
    """

    class_names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    shared: int = 0
    files: list[str] = field(default_factory=list)

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

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 percent interval of this model's accuracy on new images (Wilson's)."""
        hits = intervals.Hits(np.arange(len(self.labels)), self.predicted == self.labels)
        return intervals.accuracy_interval(intervals.accuracy([hits]))

    @property
    def scores(self) -> dict[str, float]:
        """Mean recall and F1, negative log likelihood, calibration error: `results.scores`."""
        return scores.scores(self.labels, self.probabilities)

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

    def rows(self) -> Iterator[list[object]]:
        """A table's rows, headings first: each image's place, file, classes and probabilities."""
        yield ["image", "file", "true class", "predicted class", *self.class_names]
        files = self.files or [""] * len(self.labels)
        told = zip(files, self.labels, self.predicted, self.probabilities, strict=True)
        for place, (file, label, predicted, shares) in enumerate(told):
            answer = self.class_names[predicted] if predicted >= 0 else ""
            yield [place, file, self.class_names[label], answer, *map(float, shares)]

    def confusion(self) -> np.ndarray:
        """Counts int64 (classes, classes), true class by row, predicted class by column."""
        return saved.confusion(self.labels, self.probabilities)


def predict(model: str | Path, images: str | Path | Sequence[str | Path]) -> Predictions:
    """Classifies image files.

        predict("model.keras", ["photo.jpg", "photos"]).best(3)

    Args:
        model: A `.keras` file.
        images: Image files or folders, searched with their subfolders; or one of them.

    Raises:
        UserError: The model cannot be used, there is no image, or none can be read.
    """
    paths = image_files([images] if isinstance(images, str | Path) else images)
    model = classifier.opened(Path(model).expanduser())
    if model.trust is None:
        read, outputs, unreadable = applied(model.outputs, model, paths)
        found = told(read, model.probabilities(outputs), unreadable, model)
        return Predictions(found[0], model.class_names, *found[1:])
    read, features, unreadable = applied(model.unmoved_features, model, paths)
    read, features, unreadable = told(read, features, unreadable, model)
    probabilities = model.probabilities(model.outputs_of_features(features))
    return Predictions(
        read,
        model.class_names,
        probabilities,
        unreadable,
        model.trust.unsure(probabilities),
        model.trust.strange(features),
        model.trust,
    )


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
    model = classifier.opened(Path(model).expanduser())
    fingerprints = model.card.get("fingerprints")
    trained_on = fingerprints.get("data", "") if isinstance(fingerprints, dict) else ""
    dataset = sources.load_for_testing(source, model.image_size, split, trained_on, model.fit)
    names = model.class_names
    labels = _labels_of_model(dataset.splits[split].labels, dataset.class_names, names)
    probabilities = model.probabilities(model.outputs(dataset.splits[split].images))
    _is_told(probabilities, model.path)
    shared = sources.count_shared(dataset, split) if split != "train" else 0
    names_of_files = dataset.files[split]() if split in dataset.files else []
    return Evaluation(names, labels, probabilities, shared, names_of_files)


def _is_told(rows: np.ndarray, model: Path) -> np.ndarray:
    """Of which images what a model gives, (n, …), is numbers: bool (n,).

    Raises:
        UserError: Of none, as where its training diverged.
    """
    is_told = np.isfinite(rows).all(axis=1)
    if not is_told.any():
        raise UserError(
            f"{model}: what it gives is no number for any image: its training diverged; train it "
            "again, at a lower learning rate"
        )
    return is_told


def applied(
    function: Callable[[np.ndarray], np.ndarray], model: Classifier, paths: Sequence[Path]
) -> tuple[list[Path], np.ndarray, list[tuple[Path, str]]]:
    """What a function makes of image files, of which a few batches are held at a time.

    Args:
        function: Takes images uint8 (n, h, w, 3), gives rows (n, …).
        model: Whose size and fit the images get.
        paths: The files; at least one can be read.

    Returns:
        The files that were read, their rows, and the other files, each with the reason.
    """
    read, unreadable, rows = [], [], []
    decoded = decode.batches([str(path) for path in paths], model.image_size, model.fit)
    for batch in _one_ahead(decoded):
        unreadable += [(Path(path), reason) for path, reason in batch.unreadable]
        if len(batch.indices):
            read += [paths[index] for index in batch.indices]
            rows.append(function(batch.images))
    return read, np.concatenate(rows), unreadable


def told(
    read: list[Path], rows: np.ndarray, unreadable: list[tuple[Path, str]], model: Classifier
) -> tuple[list[Path], np.ndarray, list[tuple[Path, str]]]:
    """What `applied` gives, where images that a model gives no number for are unreadable, too.

    Raises:
        UserError: It gives none for any.
    """
    is_told = _is_told(rows, model.path)
    no_number = "the model gives what is no number"
    unreadable += [(path, no_number) for path, ok in zip(read, is_told, strict=True) if not ok]
    return [path for path, ok in zip(read, is_told, strict=True) if ok], rows[is_told], unreadable


def _one_ahead(batches: Iterator[decode.Batch]) -> Iterator[decode.Batch]:
    """The same batches, of which the next is decoded while one is at work."""
    with ThreadPoolExecutor(1) as thread:  # Pillow and the backends both let go of Python's lock
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield batch


def image_files(given: Sequence[str | Path]) -> list[Path]:
    """Image files, and those of folders and their subfolders: one at least can be read.

    Raises:
        UserError: There is none, or one that was named is not there.
    """
    if not given:
        raise UserError("predict needs image files or a folder of them after the model")
    images: list[Path] = []
    for path in (Path(each).expanduser() for each in given):
        if os.path.isdir(path):
            inside = sorted(
                file
                for file in path.rglob("*")
                # Images of other kinds, pipes and devices are among them: they are then told.
                if file.suffix.lower() in (*formats.IMAGE_SUFFIXES, *formats.OTHER_SUFFIXES)
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
                and file.exists()
                and not file.is_dir()
            )
            if not inside:
                raise UserError(f"{path}: no images in this folder")
            images += inside
        else:
            if not os.path.exists(path):  # a pipe or a device is told as unreadable
                files.require(path)
            images.append(path)
    _require_readable(images)
    return images


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
