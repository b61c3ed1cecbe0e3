"""What more images bring, by the folds: the learning curve, and the gain of a doubling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from keras_cnn.methods.settings import Method
from keras_cnn.teach import folds, learners
from keras_cnn.teach.taught import Point

IMAGES = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # of a class, at the curve's points


def learning_curve(
    settings: Method, features: np.ndarray, labels: np.ndarray, drawn: np.ndarray
) -> tuple[Point, ...]:
    """Accuracy on held-out images against the number of training images of each class.

    Of a class with fewer images all are taken. The last point is that of whole folds.

    Args:
        settings: The method's.
        features: (n, channels).
        labels: (n,).
        drawn: From `folds.draw`.
    """
    most = round(np.bincount(labels).max() * (1 - 1 / (drawn.max() + 1)))  # in a fold's training
    learn = learners.on_features(settings, features, labels)
    return tuple(
        Point(count, _accuracies(learn, labels, drawn, lambda images, count=count: count))
        for count in [*(size for size in IMAGES if size < most), most]
    )


def gain_of_doubling(
    settings: Method, features: np.ndarray, labels: np.ndarray, drawn: np.ndarray
) -> float | None:
    """How much accuracy on held-out images twice as many training images of each class bring.

    From half of each class in a fold to all of it: so it tells what more images of all classes
    bring also where some have many more than others.

    Args:
        settings: As of `learning_curve`, and so are the others.
        features: (n, channels).
        labels: (n,).
        drawn: From `folds.draw`.

    Returns:
        In [-1, 1]; None where no class has images to leave out.
    """
    learn = learners.on_features(settings, features, labels)
    half = _accuracies(learn, labels, drawn, lambda images: (images + 1) // 2)
    whole = _accuracies(learn, labels, drawn, lambda images: images)
    trained = [labels[fold_of != fold] for fold_of in drawn for fold in np.unique(fold_of)]
    counts = np.stack([np.bincount(one, minlength=labels.max() + 1) for one in trained])
    doublings = np.log2(counts.sum() / ((counts + 1) // 2).sum())
    return float((np.mean(whole) - np.mean(half)) / doublings) if doublings else None


def _accuracies(
    learn: folds.Learner, labels: np.ndarray, drawn: np.ndarray, taken: Callable[[int], int]
) -> tuple[float, ...]:
    """Of held-out images, fold by fold, by a learner that is given some of the training images.

    Args:
        learn: The learner.
        labels: (n,).
        drawn: From `folds.draw`.
        taken: How many images of a class it is given, of so many; they are drawn at random.
    """

    def taught(training: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        shuffled = np.random.default_rng(len(training)).permutation(training)
        members = [shuffled[labels[shuffled] == one] for one in np.unique(labels[training])]
        return learn(np.concatenate([one[: taken(len(one))] for one in members]), held_out)

    return tuple(
        float((logits.argmax(axis=1) == labels[held_out]).mean())
        for _, held_out, logits in folds.out_of_fold(taught, labels, drawn, labels.max() + 1)
    )
