"""Training images held out in turn, to judge candidates without the test images."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np

from keras_cnn.errors import UserError

# From places of training images and of held-out ones, (k,) each, to logits of the latter,
# (held-out, classes).
Learner = Callable[[np.ndarray, np.ndarray], np.ndarray]

VERSION = 1  # raised when the same images are put into other folds, as by other near duplicates
MOST_FOLDS = 5
IMAGES_OF_REPEATS = 1000  # with fewer images the folds are drawn again, up to MOST_REPEATS times
MOST_REPEATS = 10


def draw(labels: np.ndarray, groups: np.ndarray, seed: int, most: int = MOST_FOLDS) -> np.ndarray:
    """The fold of each image: classes spread evenly, images of a group in one fold.

    Args:
        labels: (n,) integers.
        groups: (n,) equal for images that are to stay together, as near duplicates.
        seed: Seeds the draw.
        most: Folds; where no class has so many groups, as many as one has.

    Returns:
        int64 (repeats, n): of few images the folds are drawn several times.

    Raises:
        UserError: No class has two groups, so that nothing could be told of what is held out.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    count = min(most, max(len(np.unique(groups[labels == label])) for label in np.unique(labels)))
    if count < 2:
        raise UserError(
            "no class has two training images that do not look nearly the same: one is held out to "
            "judge by, so two of a class are needed"
        )
    repeats = int(np.clip(IMAGES_OF_REPEATS // len(labels), 1, MOST_REPEATS))
    drawn = np.zeros((repeats, len(labels)), np.int64)
    for repeat, fold_of in enumerate(drawn):
        splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed + repeat)
        with warnings.catch_warnings():  # of classes with fewer images than folds
            warnings.simplefilter("ignore")
            for fold, (_, held_out) in enumerate(splitter.split(labels, labels, groups)):
                fold_of[held_out] = fold
    return drawn


def trained_share(folds: np.ndarray) -> float:
    """The share of all images that the model of an image's fold learns from, in (0, 1).

    Args:
        folds: From `draw`; the mean is taken over its repeats and images.
    """
    held_out = [np.bincount(fold_of)[fold_of] for fold_of in folds]
    return 1 - float(np.mean(held_out)) / folds.shape[1]


def out_of_fold(
    learn: Learner, labels: np.ndarray, folds: np.ndarray, class_count: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """What models say of images they have not seen, fold by fold.

    Args:
        learn: Teaches on some images and classifies others; its labels count the classes it is
            given, so a class without a training image in a fold is left out there.
        labels: (n,).
        folds: From `draw`.
        class_count: How many classes.

    Yields:
        The repeat, the places of the held-out images and their logits (held-out, classes), minus
        infinity for a class that the fold's training images lack.
    """
    for repeat, fold_of in enumerate(folds):
        for fold in np.unique(fold_of):
            (held_out,) = np.nonzero(fold_of == fold)
            (training,) = np.nonzero(fold_of != fold)
            logits = np.full((len(held_out), class_count), -np.inf)
            logits[:, np.unique(labels[training])] = learn(training, held_out)
            yield repeat, held_out, logits
