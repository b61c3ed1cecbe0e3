"""The images a run trains on and is tested on, drawn as its spec says."""

from __future__ import annotations

import numpy as np

from keras_cnn import data
from keras_cnn.data import Split, sources
from keras_cnn.data.sampling import draw_at_most, draw_shots
from keras_cnn.errors import UserError, printable
from keras_cnn.methods.settings import LargeImages
from keras_cnn.recipe.spec import Spec


def sample(spec: Spec) -> tuple[Split, Split]:
    """Draws a run's training and test images; imports no framework.

    Of a user's folder a class with fewer images than are asked for gives all it has.

    Raises:
        UserError: The data cannot be used, or a class of another source has too few images.
    """
    images = spec.images
    dataset = data.load(images.data, images.image_size, fit=images.fit)
    train, test = dataset.splits["train"], dataset.splits["test"]
    if isinstance(images, LargeImages):
        larger = data.load(images.data, images.crop_from, ("train",), images.fit)
        train = larger.splits["train"]
    parts = ((train, "shots", images.shots), (test, "test_shots", images.test_shots))
    first, second = (_part(split, _drawn(spec, split, *asked)) for split, *asked in parts)
    return first, second


def taken_whole(spec: Spec) -> dict[str, int]:
    """Classes of a user's folder with fewer training images than a run's shots, and how many."""
    images = spec.images
    if images.shots is None or sources.is_named(images.data):
        return {}
    train = data.load(images.data, images.image_size, fit=images.fit).splits["train"]
    counts = np.bincount(train.labels, minlength=len(train.class_names)).tolist()
    named = zip(train.class_names, counts, strict=True)
    return {name: count for name, count in named if count < images.shots}


def test_images(spec: Spec) -> tuple[np.ndarray, list[str]]:
    """Which images of the test split `sample` draws, (n,), and their files in a user's folder."""
    images = spec.images
    dataset = data.load(images.data, images.image_size, fit=images.fit)
    test = dataset.splits["test"]
    chosen = _drawn(spec, test, "test_shots", images.test_shots)
    if chosen is None:
        chosen = np.arange(len(test.labels))
    if sources.is_named(images.data):  # whose images are always the same
        return chosen, []
    names = dataset.files["test"]()
    return chosen, [printable(names[index]) for index in chosen]


def count_shared(spec: Spec) -> int:
    """How many test images of a run's data have the pixels of training images of it."""
    images = spec.images
    return sources.count_shared(data.load(images.data, images.image_size, fit=images.fit))


def _drawn(spec: Spec, split: Split, setting: str, shots: int | None) -> np.ndarray | None:
    """Which images of a split a run has; None: all."""
    if shots is None:
        return None
    draw = draw_shots if sources.is_named(spec.images.data) else draw_at_most
    try:
        return draw(split.labels, shots, spec.shots_seed, split.class_names)
    except UserError as error:
        fewest = np.bincount(split.labels, minlength=len(split.class_names)).min()
        raise UserError(
            f"{error} (--set {setting} {fewest} works, --set {setting} null takes all images)"
        ) from None


def _part(split: Split, chosen: np.ndarray | None) -> Split:
    if chosen is None:
        return split
    return Split(np.asarray(split.images[chosen]), split.labels[chosen], split.class_names)
