"""Nearest class mean on a backbone's features (SimpleShot, Wang et al. 2019, arXiv:1911.04623).

The paper centres features on the mean of the classes that trained the backbone. Their images are
not at hand here: features are centred on the mean of the shots.
"""

from __future__ import annotations

from functools import partial

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.methods import on_features
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.on_features import Head
from keras_cnn.methods.settings import NearestMean
from keras_cnn.models import heads

VERSION = 1  # raised when a change makes the same settings give another result


@method(NearestMean)
def train(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: NearestMean,
    seed: int,
    report: Report,
) -> Learned:
    """Classifies by the nearest of the classes' mean features.

        network = models.classifier("convnext_atto", class_count=10, weights="bundled")
        trained = methods.nearest_mean.train(network, train, test)

    Returns:
        A history of one record, and the network with the means as its head: the softmax of its
        logits is that of minus the squared distances.

    Raises:
        UserError: A class has no training image.
    """
    return on_features.learn(network, train, test, report, partial(fit, settings=settings))


def fit(features: np.ndarray, labels: np.ndarray, settings: NearestMean) -> Head:
    """The head whose softmax is that of minus the squared distances to the classes' means.

    |z - p|^2 is |z|^2 + |p|^2 - 2 z p, and softmax does not see |z|^2.

    Args:
        features: (n, channels).
        labels: (n,), every class from 0 on at least once.
        settings: How.
    """
    center = features.mean(axis=0) if settings.centered else None
    moved = features if center is None else features - center
    if settings.normalised:
        moved = on_features.unit_length(moved)
    means = heads.class_means(moved, labels, labels.max() + 1)
    return Head(2 * means.T, -(np.linalg.norm(means, axis=1) ** 2), center, settings.normalised)
