"""Training without running again, in each epoch, the part of a network that never changes."""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.models.freeze import constant_part
from keras_cnn.training import evaluation, features_cache


def skip_constant_part(
    network: keras.Model, train: Split, test: Split
) -> tuple[keras.Model, Split, Split]:
    """The model to train and what it is fed: images, or their features where these stay the same.

    A frozen part that gives an image the same features in every epoch is run once for all epochs,
    and for all runs that share it; the arithmetic is the same. Features that take more than
    `features_cache.MOST_BYTES` are not kept.

    Args:
        network: Functional, one input and one output; what of it is trainable will train.
        train: Images (n, h, w, 3) uint8 and labels (n,).
        test: Likewise.

    Returns:
        A model of the same layers, and `train` and `test` with its inputs for images.
    """
    parts = constant_part(network)
    count = len(train.labels) + len(test.labels)
    if parts is None or count * _bytes_of_one(parts[1]) > features_cache.MOST_BYTES:
        return network, train, test
    constant, features = parts
    rest = keras.Model(features, network.output, name=network.name)
    return rest, *(
        Split(features_of(constant, split.images), split.labels, split.class_names)
        for split in (train, test)
    )


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """As `evaluation.outputs`, its constant part read where a run has computed it before."""
    parts = constant_part(model)
    if parts is None or len(images) * _bytes_of_one(parts[1]) > features_cache.MOST_BYTES:
        return evaluation.outputs(model, images)
    constant, features = parts
    rest = keras.Model(features, model.output)
    return evaluation.outputs(rest, features_of(constant, images))


def features_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """As `evaluation.outputs`, of a model that does not train: read where it is kept already."""
    return features_cache.features(model, images, lambda: evaluation.outputs(model, images))


def _bytes_of_one(features: keras.KerasTensor) -> int:
    return 4 * math.prod(features.shape[1:])  # float32
