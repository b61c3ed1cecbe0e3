"""Images by what a saved model sees in them: features as arrays, and the nearest images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_cnn import classifier, prediction


@dataclass(frozen=True, repr=False)
class Features:
    """What the head of a model is given for image files.

    Attributes:
        paths: The n images that could be read.
        features: (n, channels) float32.
        unreadable: The other files, each with the reason.
    """

    paths: list[Path]
    features: np.ndarray
    unreadable: list[tuple[Path, str]]

    def __repr__(self) -> str:
        return f"Features({len(self.paths)} images, {self.features.shape[1]} channels)"


def embed(model: str | Path, images: str | Path | Sequence[str | Path]) -> Features:
    """The features of image files, as the last layer with weights of a model is given them.

        embed("model.keras", "photos").features

    Args:
        model: A `.keras` file.
        images: Image files or folders, searched with their subfolders; or one of them.

    Raises:
        UserError: The model cannot be used, there is no image, or none can be read.
    """
    paths = prediction.image_files([images] if isinstance(images, str | Path) else images)
    opened = classifier.opened(Path(model).expanduser())
    return Features(*prediction.told(*prediction.applied(opened.features, opened, paths), opened))


def similar(
    model: str | Path,
    image: str | Path,
    images: str | Path | Sequence[str | Path],
    count: int = 5,
) -> tuple[list[tuple[Path, float]], list[tuple[Path, str]]]:
    """The images most alike to one, by the cosine of their features.

        similar("model.keras", "photo.jpg", "photos")

    Args:
        model: A `.keras` file.
        image: The image file that others are compared with; it is not among its own neighbours.
        images: As for `embed`.
        count: How many to find.

    Returns:
        The nearest files with their cosines, from -1 to 1, the nearest first; and the files that
        could not be read, each with the reason.

    Raises:
        UserError: As for `embed`.
    """
    (query,) = prediction.image_files([image])
    others = [
        path
        for path in prediction.image_files([images] if isinstance(images, str | Path) else images)
        if not os.path.samefile(path, query)
    ]
    found = embed(model, [query, *others])
    units = found.features / np.maximum(np.linalg.norm(found.features, axis=1), 1e-12)[:, None]
    cosines = np.clip(units[1:] @ units[0], -1, 1)
    nearest = np.argsort(-cosines, kind="stable")[:count]
    return [(found.paths[k + 1], float(cosines[k])) for k in nearest], found.unreadable
