"""Saved models at work: classify a user's images, evaluate on a data source. Prints nothing."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn import files
from keras_cnn.data import decode, formats, sources
from keras_cnn.data.fit import FITS, Fit
from keras_cnn.errors import UserError, printable
from keras_cnn.models import saved
from keras_cnn.results import grid, intervals, scores

if TYPE_CHECKING:
    import keras

BATCH_SIZE = 256
LARGEST_IMAGE = 1024  # pixels of a model's height and width, as of a recipe's
BATCH_PIXELS = 1 << 20  # of large images fewer go at a time: layers are 64 channels wide and more


@dataclass(frozen=True, repr=False)
class Predictions:
    """What a model makes of image files.

    Attributes:
        paths: The n images that could be read.
        class_names: In the order of the columns.
        probabilities: (n, classes) float32; rows sum to 1, but of a model that ends in sigmoids.
            Logits have been through softmax, a single output and its rest to 1 are two classes.
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
    paths = _image_files([images] if isinstance(images, str | Path) else images)
    _require_readable(paths)  # before the framework starts
    model = _opened(Path(model).expanduser())
    read, unreadable, outputs = [], [], []
    for batch in decode.batches([str(path) for path in paths], model.image_size, model.fit):
        unreadable += [(Path(path), reason) for path, reason in batch.unreadable]
        if len(batch.indices):
            read += [paths[index] for index in batch.indices]
            outputs.append(model.outputs(batch.images))
    probabilities = model.probabilities(np.concatenate(outputs))
    is_told = _told(probabilities, model.path)
    no_number = "the model gives what is no number"
    unreadable += [(path, no_number) for path, ok in zip(read, is_told, strict=True) if not ok]
    read = [path for path, ok in zip(read, is_told, strict=True) if ok]
    return Predictions(read, model.class_names, probabilities[is_told], unreadable)


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
    model = _opened(Path(model).expanduser())
    fingerprints = model.card.get("fingerprints")
    trained_on = fingerprints.get("data", "") if isinstance(fingerprints, dict) else ""
    dataset = sources.load_for_testing(source, model.image_size, split, trained_on, model.fit)
    names = model.class_names
    labels = _labels_of_model(dataset.splits[split].labels, dataset.class_names, names)
    probabilities = model.probabilities(model.outputs(dataset.splits[split].images))
    _told(probabilities, model.path)
    shared = sources.count_shared(dataset, split) if split != "train" else 0
    names_of_files = dataset.files[split]() if split in dataset.files else []
    return Evaluation(names, labels, probabilities, shared, names_of_files)


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


def _image_files(given: Sequence[str | Path]) -> list[Path]:
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


@dataclass(frozen=True)
class _Classifier:
    """A saved model that tells the class of square images, and what is known of it.

    Attributes:
        path: Its file.
        network: Raw images, 0 to 255, to one output.
        card: As `saved.load` gives it.
        image_size: Height and width, in pixels.
        fit: How images are brought to a square, as those it was trained on were.
        is_grey: It takes one channel, not three.
        class_names: Two for a single output, a sigmoid's.
    """

    path: Path
    network: keras.Model
    card: dict[str, object]
    image_size: int
    fit: Fit
    is_grey: bool
    class_names: list[str]

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """What the network gives for RGB images, uint8 (n, h, w, 3): (n, outputs)."""
        import keras

        given = _grey(images) if self.is_grey else images
        batch_size = min(BATCH_SIZE, BATCH_PIXELS // self.image_size**2)
        try:
            with warnings.catch_warnings(action="ignore"):  # of a single input in a dict
                made = self.network.predict(given, batch_size=batch_size, verbose=0)
        except saved.faults() as error:
            raise UserError(f"{self.path}: cannot be applied ({saved.first_line(error)})") from None
        return np.asarray(keras.tree.flatten(made)[0], np.float32)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (n, outputs), which may be logits, as probabilities (n, classes)."""
        ends_in = _last_activation(self.network)
        numbers = outputs[np.isfinite(outputs).all(axis=1)].astype(np.float64)
        are_shares = ((numbers >= 0) & (numbers <= 1)).all()
        if outputs.shape[1] < len(self.class_names):
            if not are_shares or ends_in == "linear":
                outputs = 0.5 + 0.5 * np.tanh(0.5 * outputs)  # the sigmoid
            return np.concatenate([1 - outputs, outputs], axis=1)
        add_up = np.allclose(numbers.sum(axis=1), 1, atol=1e-3)
        if are_shares and (add_up or ends_in in ("softmax", "sigmoid")):
            return outputs
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def _opened(path: Path) -> _Classifier:
    """A model's file, found fit to classify images.

    Raises:
        UserError: It is not.
    """
    network, card = saved.load(path)
    ends = [getattr(network, name, None) for name in ("inputs", "outputs")]
    if None in ends:
        raise UserError(f"{path}: has not been built: call the model on images, and save it again")
    inputs, outputs = ([tuple(tensor.shape) for tensor in tensors] for tensors in ends)
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(
            f"{path}: takes {len(inputs)} inputs and gives {len(outputs)} outputs, not an image "
            "and its probabilities"
        )
    image, output = inputs[0], outputs[0]
    if len(image) == 4 and image[1:3] == (None, None) and isinstance(card.get("image_size"), int):
        image = (None, card["image_size"], card["image_size"], image[3])
    if len(image) != 4 or image[1] != image[2] or image[3] not in (1, 3) or (image[1] or 0) < 1:
        shape = str(image).replace("None", "n", 1).replace("None", "any")
        raise UserError(f"{path}: takes {shape}, not square images (n, size, size, 3 or 1)")
    if image[1] > LARGEST_IMAGE:
        raise UserError(
            f"{path}: takes images of {image[1]:,} pixels, at most {LARGEST_IMAGE:,} do"
        )
    if len(output) != 2 or not output[1]:
        shape = str(output).replace("None", "n", 1).replace("None", "any")
        raise UserError(f"{path}: gives {shape}, not probabilities (n, classes)")
    is_yes_or_no = output[1] == 1 and _last_activation(network) != "softmax"
    names = _class_names(path, 2 if is_yes_or_no else output[1], card)
    return _Classifier(path, network, card, image[1], _fit(path, card), image[3] == 1, names)


def _class_names(path: Path, count: int, card: dict[str, object]) -> list[str]:
    names = card.get("class_names") or [f"class {label}" for label in range(count)]
    if len(names) != count:
        raise UserError(f"{path}: tells {count} classes apart, its card names {len(names)}")
    return names


def _fit(path: Path, card: dict[str, object]) -> Fit:
    """What the card says; those of older models, and models of others, say nothing."""
    said = card.get("fit", "crop")
    if said not in FITS:
        raise UserError(f"{path}: its card has a fit {said!r}, not {', '.join(FITS)}")
    return said


def _last_activation(network: keras.Model) -> str:
    """Name of the function that a network ends in; empty where its last layer has none."""
    import keras

    last = network.layers[-1]
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(last, "activation", None), "__name__", "")


def _grey(images: np.ndarray) -> np.ndarray:
    """RGB (n, h, w, 3) in grey (n, h, w, 1), as Pillow weighs the colours; uint8."""
    weighed = images.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighed + 0x8000) >> 16).astype(np.uint8)[..., None]


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
