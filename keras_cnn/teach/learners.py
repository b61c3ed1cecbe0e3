"""Candidates at work on some of the training images, as `folds.out_of_fold` asks for it."""

from __future__ import annotations

from functools import partial

import numpy as np

from keras_cnn.methods import linear_discriminant, linear_probe, nearest_mean
from keras_cnn.methods.on_features import Fit
from keras_cnn.methods.settings import LinearDiscriminant, LinearProbe, Method
from keras_cnn.teach.folds import Learner


def on_features(settings: Method, features: np.ndarray, labels: np.ndarray) -> Learner:
    """Fits a head to features that stay as they are.

    Args:
        settings: Of `nearest_mean`, `linear_discriminant` or `linear_probe`.
        features: (n, channels), of all training images.
        labels: (n,).
    """
    fit = fitter(settings)

    def learn(training: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        classes, counted = np.unique(labels[training], return_inverse=True)
        if len(classes) == 1:
            return np.zeros((len(held_out), 1))
        return fit(features[training], counted).logits(features[held_out])

    return learn


def fitter(settings: Method) -> Fit:
    """From features and labels to the head of a method."""
    if isinstance(settings, LinearProbe):
        strength, balanced = settings.regularization_strength, settings.balanced
        return partial(linear_probe.fit, strength=strength, balanced=balanced)
    if isinstance(settings, LinearDiscriminant):
        return partial(linear_discriminant.fit, settings=settings)
    return partial(nearest_mean.fit, settings=settings)
