"""Linear discriminant analysis of a backbone's features, with a shrunk covariance.

Each class is a normal distribution round its mean, all with one covariance (Fisher 1936), which few
images tell badly: it is drawn to a multiple of the identity (Friedman 1989, Ledoit and Wolf 2004).
At full shrinkage it is the nearest class mean.
"""

from __future__ import annotations

from functools import partial

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.methods import on_features
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.on_features import Head
from keras_cnn.methods.settings import LinearDiscriminant
from keras_cnn.models import heads

VERSION = 1  # raised when a change makes the same settings give another result


@method(LinearDiscriminant)
def train(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: LinearDiscriminant,
    seed: int,
    report: Report,
) -> Learned:
    """Classifies by the nearest class mean, measured by the spread of the features round it.

        network = models.classifier("convnext_atto", class_count=10, weights="bundled")
        trained = methods.linear_discriminant.train(network, train, test)

    Returns:
        A history of one record, and the network with the discriminants as its head.

    Raises:
        UserError: A class has no training image.
    """
    return on_features.learn(network, train, test, report, partial(fit, settings=settings))


def fit(features: np.ndarray, labels: np.ndarray, settings: LinearDiscriminant) -> Head:
    """The linear discriminants of classes that are equally likely.

    With the mean m of a class and the covariance S of the features round their class means, the
    logit of features z is z S^-1 m - m S^-1 m / 2, and S is (1 - s) S + s trace(S) / channels.

    Args:
        features: (n, channels).
        labels: (n,), every class from 0 on at least once.
        settings: How.
    """
    center = features.mean(axis=0)
    moved = features - center
    if settings.normalised:
        moved = on_features.unit_length(moved)
    moved = moved.astype(np.float64)
    means = heads.class_means(moved, labels, labels.max() + 1)
    kernel = _solved(moved - means[labels], settings.shrinkage, means.T)
    bias = -np.einsum("kc,ck->k", means, kernel) / 2
    dtype = features.dtype
    return Head(kernel.astype(dtype), bias.astype(dtype), center, settings.normalised)


def _solved(residuals: np.ndarray, shrinkage: float, right: np.ndarray) -> np.ndarray:
    """The shrunk covariance of residuals (n, channels), inverted, times `right` (channels, k)."""
    from scipy.linalg import solve

    count, channels = residuals.shape
    isotropic = shrinkage * max((residuals**2).sum() / (count * channels), 1e-12)
    scaled = residuals * np.sqrt((1 - shrinkage) / count)
    if count >= channels:
        covariance = scaled.T @ scaled
        covariance.flat[:: channels + 1] += isotropic
        return solve(covariance, right, assume_a="pos")
    # Of few images the inverse is told by a matrix of their number (Woodbury 1950).
    gram = scaled @ scaled.T
    gram.flat[:: count + 1] += isotropic
    return (right - scaled.T @ solve(gram, scaled @ right, assume_a="pos")) / isotropic
