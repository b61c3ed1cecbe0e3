"""The images a run trains on and is tested on, drawn as its spec says."""

from __future__ import annotations

import numpy as np

from keras_cnn import data
from keras_cnn.data import Split, sources
from keras_cnn.data.sampling import draw_shots
from keras_cnn.errors import UserError, printable
from keras_cnn.methods.settings import LargeImages
from keras_cnn.recipe.spec import Spec


def sample(spec: Spec) -> tuple[Split, Split]:
    """Draws a run's training and test images; imports no framework.

    Raises:
        UserError: The data cannot be used, or a class has too few images.
    """
    images = spec.images
    dataset = data.load(images.data, images.image_size, fit=images.fit)
    train, test = dataset.splits["train"], dataset.splits["test"]
    if isinstance(images, LargeImages):
        larger = data.load(images.data, images.crop_from, ("train",), images.fit)
        train = larger.splits["train"]
    return (
        _drawn(train, "shots", images.shots, spec.shots_seed),
        _drawn(test, "test_shots", images.test_shots, spec.shots_seed),
    )


def test_images(spec: Spec) -> tuple[np.ndarray, list[str]]:
    """Which images of the test split `sample` draws, (n,), and their files in a user's folder."""
    images = spec.images
    dataset = data.load(images.data, images.image_size, fit=images.fit)
    test = dataset.splits["test"]
    chosen = np.arange(len(test.labels))
    if images.test_shots is not None:
        chosen = draw_shots(test.labels, images.test_shots, spec.shots_seed, test.class_names)
    if sources.is_named(images.data):  # whose images are always the same
        return chosen, []
    names = dataset.files["test"]()
    return chosen, [printable(names[index]) for index in chosen]


def count_shared(spec: Spec) -> int:
    """How many test images of a run's data have the pixels of training images of it."""
    images = spec.images
    return sources.count_shared(data.load(images.data, images.image_size, fit=images.fit))


def _drawn(split: Split, setting: str, shots: int | None, seed: int) -> Split:
    if shots is None:
        return split
    try:
        chosen = draw_shots(split.labels, shots, seed, split.class_names)
    except UserError as error:
        fewest = np.bincount(split.labels, minlength=len(split.class_names)).min()
        raise UserError(
            f"{error} (--set {setting} {fewest} works, --set {setting} null takes all images)"
        ) from None
    return Split(np.asarray(split.images[chosen]), split.labels[chosen], split.class_names)
