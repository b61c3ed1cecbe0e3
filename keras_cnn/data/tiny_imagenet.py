"""Tiny ImageNet as its authors publish it: 200 classes of ImageNet at 64 pixels.

Le and Yang 2015, "Tiny ImageNet Visual Recognition Challenge". The test images have no labels:
the validation images serve as test.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np

from keras_cnn.data.listing import Listing, Source, files_key
from keras_cnn.errors import UserError

AGAIN = "delete the folder and run `python -m keras_cnn fetch tiny_imagenet`"


def source(folder: Path) -> Source:
    """The 100,000 training images and the 10,000 validation images, as `test`.

    Args:
        folder: Holds `tiny-imagenet-200`.

    Raises:
        UserError: Its lists of classes are missing; on listing a split, its images are.
    """
    folder = folder / "tiny-imagenet-200"
    class_ids = sorted(_lines(folder / "wnids.txt"))
    words = dict(line.partition("\t")[::2] for line in _lines(folder / "words.txt"))
    names = [words.get(class_id, class_id).split(",")[0].strip() for class_id in class_ids]
    seen = Counter(names)
    class_names = tuple(
        name if seen[name] == 1 else f"{name} ({class_id})"
        for name, class_id in zip(names, class_ids, strict=True)
    )
    splits = {
        "train": lambda: _listing(folder, _train_files(folder, class_ids)),
        "test": lambda: _listing(folder, _validation_files(folder, class_ids)),
    }
    note = "the test images have no labels: the validation images serve as test"
    return Source(class_names, splits, note)


def _listing(folder: Path, files: list[tuple[Path, int]]) -> Listing:
    if not files:
        raise UserError(f"{folder} lacks images: {AGAIN}")
    key = files_key((path for path, _ in files), AGAIN)
    return Listing(key, partial(_content, files), str(folder))


def _train_files(folder: Path, class_ids: list[str]) -> list[tuple[Path, int]]:
    return [
        (path, label)
        for label, class_id in enumerate(class_ids)
        for path in sorted((folder / "train" / class_id / "images").glob("*.JPEG"))
    ]


def _validation_files(folder: Path, class_ids: list[str]) -> list[tuple[Path, int]]:
    """`val_annotations.txt` has a line an image: its file, its class, and a box in it."""
    labels = {class_id: label for label, class_id in enumerate(class_ids)}
    parts = [line.split("\t") for line in _lines(folder / "val" / "val_annotations.txt")]
    try:
        return sorted((folder / "val" / "images" / name, labels[of]) for name, of, *_ in parts)
    except (KeyError, ValueError):
        raise UserError(f"{folder}: val_annotations.txt is damaged: {AGAIN}") from None


def _content(files: list[tuple[Path, int]]) -> tuple[list[str], np.ndarray]:
    return [str(path) for path, _ in files], np.array([label for _, label in files], np.int64)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {AGAIN}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): {AGAIN}") from None
