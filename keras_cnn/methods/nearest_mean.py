"""Nearest class mean on a backbone's features (SimpleShot, Wang et al. 2019, arXiv:1911.04623).

The paper centres features on the mean of the classes that trained the backbone. Their images are
not at hand here: features are centred on the mean of the shots.
"""

from __future__ import annotations

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.methods import on_features
from keras_cnn.methods.interface import Learned, Report, method
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

    def head(
        features: keras.KerasTensor, shots: np.ndarray, labels: np.ndarray
    ) -> keras.KerasTensor:
        center = shots.mean(axis=0) if settings.centered else np.zeros_like(shots[0])
        if settings.centered:
            features = keras.layers.Normalization(
                mean=center.tolist(), variance=np.ones_like(center).tolist(), name="head_centering"
            )(features)
        moved = shots - center
        if settings.normalised:
            features = keras.layers.UnitNormalization(name="head_norm")(features)
            moved = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)
        means = heads.class_means(moved, labels, network.output.shape[-1])
        return heads.prototype_logits(features, means, "squared_euclidean")

    return on_features.learn(network, train, test, report, head)
