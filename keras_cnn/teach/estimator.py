"""`teach` as an estimator of scikit-learn's, for images in arrays or files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

# Keras and what it runs on are imported when they are needed.
from keras_cnn.data import decode, near_duplicates
from keras_cnn.errors import UserError
from keras_cnn.methods.settings import DEFAULT_SEED

Pictures = np.ndarray | Sequence[str | Path]


class ImageClassifier(ClassifierMixin, BaseEstimator):
    """Teaches a pretrained backbone the classes of images.

        classifier = ImageClassifier().fit(paths, names)
        classifier.predict(["photo.jpg"])

    Methods and their settings are compared on held-out images of those given, as by the command
    `teach`, and probabilities are calibrated by them. Works with scikit-learn's `clone`,
    `cross_val_score` and `GridSearchCV`.

    Args:
        backbone: A network's name, or `auto` for the best at hand.
        method: `nearest_mean`, `linear_discriminant`, `linear_probe`, `fine_tuning`, or
            `auto` for all of them.
        square: How images are brought to a square: `crop`, `squash` or `pad`.
        balance: Whether every class is to count alike, however many images it has.
        minutes: What comparing may take, at most; the backbone's features come on top.
        error_rate: The share of answers that may be wrong where the model is not unsure.
        seed: Seeds the folds.

    Attributes:
        classes_: The labels, sorted, (classes,).
        lesson_: The chosen candidate, and what the folds say of it.
        compared_: All candidates, best first.
    """

    def __init__(
        self,
        backbone: str = "auto",
        method: str = "auto",
        square: str = "crop",
        balance: bool = False,
        minutes: float = 10.0,
        error_rate: float = 0.05,
        seed: int = DEFAULT_SEED,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.square = square
        self.balance = balance
        self.minutes = minutes
        self.error_rate = error_rate
        self.seed = seed

    def fit(self, images: Pictures, labels: Sequence[object]) -> ImageClassifier:
        """Compares candidates, and teaches the best of them with all images.

        Args:
            images: uint8 (n, h, w, 3), RGB, or the paths of n image files.
            labels: (n,), of at least two classes.

        Raises:
            UserError: The images or the weights cannot be used.
        """
        from keras_cnn.teach import backbones, calibration, lesson, search

        calibration.check_error_rate(self.error_rate)
        classes, counted = np.unique(np.asarray(labels), return_inverse=True)
        if len(counted) != len(images):
            raise UserError(f"{len(images)} images and {len(counted)} labels: one for each image")
        if len(classes) < 2:
            raise UserError(f"there is one class ({classes[0]}): two or more are told apart")
        (first, *_), _ = backbones.choose(self.backbone)
        pixels = _squares(images, first.image_size, self.square)
        small = _squares(images, near_duplicates.SIDE, "squash")
        groups = near_duplicates.chains(near_duplicates.hashes(small))
        photos = search.Photos(counted, groups, lambda image_size, fit: pixels)
        methods = search.heads(self.method, self.balance)
        clock = search.Clock(60 * self.minutes)
        compared = search.search(
            photos, [first], [self.square], methods, clock, self.seed, self.balance
        )
        self.classes_ = classes
        self.compared_ = compared
        self.lesson_ = lesson.of(compared[0], [first], photos, self.error_rate, self.seed)
        return self

    def predict_proba(self, images: Pictures) -> np.ndarray:
        """Calibrated probabilities (n, classes), columns in the order of `classes_`."""
        from keras_cnn.teach import backbones

        check_is_fitted(self)
        pixels = _squares(images, self.lesson_.backbone.image_size, self.square)
        features = backbones.features(self.lesson_.network, pixels)
        logits = self.lesson_.head.logits(features)
        return softmax(logits.astype(np.float64), axis=1)

    def predict(self, images: Pictures) -> np.ndarray:
        """The most probable label of each image, (n,)."""
        return self.classes_[self.predict_proba(images).argmax(axis=1)]

    def save(self, path: str | Path) -> None:
        """Writes a model that `keras_cnn.predict`, the commands and Keras alone can load.

        Args:
            path: Ends in `.keras`.
        """
        from keras_cnn.teach import keeping

        check_is_fitted(self)
        keeping.save(self.lesson_, [str(one) for one in self.classes_], Path(path))


def _squares(images: Pictures, image_size: int, fit: str) -> np.ndarray:
    """Images as uint8 (n, s, s, 3)."""
    if isinstance(images, np.ndarray) and images.dtype != object and images.dtype.kind != "U":
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise UserError(
                f"images are {images.dtype} {images.shape}: uint8 (n, height, width, 3), values "
                "0 to 255, or paths of image files are needed"
            )
        items = images
    else:
        items = [str(path) for path in images]
    made = list(decode.batches(items, image_size, fit))
    unreadable = [case for batch in made for case in batch.unreadable]
    if unreadable:
        path, reason = unreadable[0]
        raise UserError(f"{path}: {reason} ({len(unreadable)} of {len(images)} cannot be read)")
    return np.concatenate([batch.images for batch in made])
