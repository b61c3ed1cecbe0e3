"""Saved models at work: classify a user's images, evaluate on a data source."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn import data
from keras_cnn.data import decode, folders, sources
from keras_cnn.errors import UserError
from keras_cnn.models import saved
from keras_cnn.runs import worker

if TYPE_CHECKING:
    import keras

BATCH_SIZE = 256


def predict(model_path: Path, images: Sequence[Path], top: int, as_json: bool) -> None:
    """Prints the most probable classes of each image.

    Args:
        model_path: A `.keras` file.
        images: Image files or folders, searched with their subfolders.
        top: How many classes to name for each.
        as_json: Print one JSON array instead of text.

    Raises:
        UserError: The model cannot be used, there is no image, or none can be read.
        SystemExit: Code 2: some images could not be read; the others were classified.
    """
    paths = _image_files(images)
    _require_readable(paths)  # before the framework starts
    model, card = saved.load(model_path)
    size = _image_size(model, model_path)
    names = _class_names(model, card)
    rows, unreadable = [], []
    for batch in decode.batches([str(path) for path in paths], size):
        unreadable += batch.unreadable
        if not len(batch.kept):
            continue
        probabilities = model.predict(batch.images, batch_size=BATCH_SIZE, verbose=0)
        for index, row in zip(batch.kept, np.asarray(probabilities), strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            rows.append((paths[index], [(names[label], float(row[label])) for label in best]))
    _print_predictions(rows, as_json)
    for path, reason in unreadable:
        print(f"keras_cnn: {path}: {reason}", file=sys.stderr)
    if unreadable:
        raise SystemExit(2)


def evaluate(model_path: Path, source: str, split: str, picture: Path | None = None) -> None:
    """Prints accuracy and per-class figures on a data source, and draws the confusion matrix.

    Args:
        model_path: A `.keras` file.
        source: A data source's name or a folder of images.
        split: Which of its splits.
        picture: Where the confusion matrix goes; None puts it beside the model.

    Raises:
        UserError: The model or the data cannot be used, or their classes differ.
    """
    from sklearn.metrics import classification_report

    from keras_cnn import plots

    model, card = saved.load(model_path)
    dataset = data.load(source, _image_size(model, model_path), (split,))
    names = _class_names(model, card)
    images = dataset.splits[split].images
    labels = _labels_of_model(dataset.splits[split].labels, dataset.class_names, names)
    probabilities = np.asarray(model.predict(images, batch_size=BATCH_SIZE, verbose=0))
    predicted = probabilities.argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    print(
        f"{model_path} on the {split} split of {source}: {accuracy:.2%} of {len(labels)} images\n"
    )
    print(
        classification_report(
            labels,
            predicted,
            labels=range(len(names)),
            target_names=names,
            digits=3,
            zero_division=0,
        )
    )
    counts = worker.confusion(labels, probabilities)
    title = f"{model_path.name} on {sources.title(source)}, {split}"
    picture = picture or model_path.with_name(f"{model_path.stem}-confusion.png")
    plots.confusion_matrix(title, counts, names).savefig(picture, dpi=plots.DPI)
    print(f"confusion matrix: {picture}")


def _image_files(given: Sequence[Path]) -> list[Path]:
    if not given:
        raise UserError("predict needs image files or a folder of them after the model")
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in folders.IMAGE_SUFFIXES
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
                and file.is_file()
            )
            if not inside:
                raise UserError(f"{path}: no images in this folder")
            found += inside
        elif path.is_file():
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
    unknown = [name for name in class_names if name not in model_names]
    if unknown:
        raise UserError(
            f"the data has classes the model was not taught: {', '.join(unknown[:5])} "
            f"(it knows {', '.join(model_names[:10])})"
        )
    return np.array([model_names.index(name) for name in class_names])[labels]


def _print_predictions(rows: Sequence[tuple[Path, list[tuple[str, float]]]], as_json: bool) -> None:
    if as_json:
        content = [
            {
                "image": str(path),
                "classes": [{"name": name, "probability": share} for name, share in best],
            }
            for path, best in rows
        ]
        print(json.dumps(content, indent=2))
        return
    for path, best in rows:
        print(f"{path}: {', '.join(f'{name} {share:.1%}' for name, share in best)}")
