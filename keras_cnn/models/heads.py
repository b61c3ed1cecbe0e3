"""What turns features into logits, and how it is told from the rest of a network.

The head of a network is its last layer with weights, with what follows it and the dropout before
it; its features are what the head is given. So a network needs no layer of a special name.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers, ops

from keras_cnn.models.initializers import draw, layer_seed, torch_initializers

Tensor: TypeAlias = Any  # the backend's
VERSION = 1  # raised when the same settings give a head that computes, or begins, otherwise
LOGITS = "head_logits"
CENTERING, NORM = "head_centering", "head_norm"  # what moves features before a head


class CosineLogits(layers.Layer):
    """Cosine similarity of the features to one learned weight a class (Gidaris and Komodakis 2018).

    arXiv:1804.09458, with a scale that is set, not learned: logits lie in [-scale, scale]. Features
    (n, channels) to logits (n, class_count).

    Args:
        class_count: Outputs.
        scale: What cosines are multiplied by.
        kernel_initializer: Draws the weights (channels, class_count).
        name: The layer's.
    """

    def __init__(
        self,
        class_count: int,
        scale: float,
        kernel_initializer: keras.initializers.Initializer,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.class_count = class_count
        self.scale = scale
        self.kernel_initializer = kernel_initializer

    def build(self, input_shape: tuple) -> None:
        """Makes the weights."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.class_count),
            initializer=self.kernel_initializer,
        )

    def call(self, features: object) -> object:
        """Features (n, channels) to scaled cosines (n, class_count)."""
        directions = ops.normalize(self.kernel, axis=0)
        return self.scale * ops.matmul(ops.normalize(features, axis=-1), directions)


def head_layer(network: keras.Model) -> layers.Layer:
    """The layer that makes a network's logits of its features: its last one with weights."""
    return [layer for layer in network.layers if layer.weights][-1]


def features(network: keras.Model) -> keras.KerasTensor:
    """What a network's head is given, (n, channels), without the dropout before it."""
    tensor = head_layer(network).input
    dropouts = [layer for layer in network.layers if isinstance(layer, layers.Dropout)]
    while before := next((layer for layer in dropouts if layer.output is tensor), None):
        tensor = before.input
    return tensor


def unmoved_features(network: keras.Model) -> keras.KerasTensor:
    """As `features`, before a head of `on_features` has centred them or brought them to length 1.

    Args:
        network: Whose layers of these are called `CENTERING` and `NORM`.
    """
    tensor = features(network)
    moving = [layer for layer in network.layers if layer.name in (CENTERING, NORM)]
    while before := next((layer for layer in moving if layer.output is tensor), None):
        tensor = before.input
    return tensor


def dropout_rate(network: keras.Model) -> float:
    """The highest rate of a network's dropout, of whole branches too."""
    return max((x.rate for x in network.layers if isinstance(x, layers.Dropout)), default=0.0)


def logits(
    features: keras.KerasTensor,
    class_count: int,
    kind: str,
    dropout: float,
    seed: int,
    cosine_scale: float = 1.0,
) -> keras.KerasTensor:
    """Puts a head on features; its weights begin as torch's Linear does.

    Args:
        features: (n, channels).
        class_count: Outputs.
        kind: `dense`, or `cosine` for `CosineLogits`.
        dropout: Rate of the dropout before it; 0 leaves it out.
        seed: Seeds the weights and dropout.
        cosine_scale: What the cosines of `CosineLogits` are multiplied by.

    Returns:
        (n, class_count).
    """
    if dropout:
        drop = layers.Dropout(dropout, seed=layer_seed(seed, "head_dropout"), name="head_dropout")
        features = drop(features)
    start = torch_initializers(features.shape[-1], seed, LOGITS)
    if kind == "cosine":
        head = CosineLogits(class_count, cosine_scale, start["kernel_initializer"], LOGITS)
    else:
        head = layers.Dense(class_count, name=LOGITS, **start)
    return head(features)


def embedder(
    network: keras.Model, size: int | None = None, normalised: bool = False, seed: int = 0
) -> keras.Model:
    """A network whose outputs are compared by their distance, in place of a classifier.

    Args:
        network: Raw images (n, h, w, 3), 0 to 255, to logits; its head is left out.
        size: Outputs of a new dense layer on the features; None embeds by the features alone.
        normalised: Bring embeddings to length 1.
        seed: Seeds the new layer's weights, which begin as torch's.

    Returns:
        Raw images to embeddings (n, size), on the same layers.
    """
    outputs = inside = features(network)
    if size is not None:
        start = torch_initializers(inside.shape[-1], seed, "head_embedding")
        outputs = layers.Dense(size, name="head_embedding", **start)(inside)
        draw(keras.Model(inside, outputs), seed)  # the same on every backend
    if normalised:
        outputs = layers.UnitNormalization(name=NORM)(outputs)
    return keras.Model(network.input, outputs, name=network.name)


def class_means(embeddings: np.ndarray, labels: np.ndarray, class_count: int) -> np.ndarray:
    """The prototypes: the mean embedding of each class.

    Args:
        embeddings: (n, channels).
        labels: (n,), every class at least once.
        class_count: How many classes.

    Returns:
        (class_count, channels).
    """
    return np.stack([embeddings[labels == label].mean(axis=0) for label in range(class_count)])


def distance_logits(embeddings: Tensor, prototypes: Tensor, distance: str) -> Tensor:
    """How near embeddings are to prototypes.

    Args:
        embeddings: (n, channels).
        prototypes: (classes, channels).
        distance: `squared_euclidean`, `euclidean` or `cosine`.

    Returns:
        (n, classes): minus the distance, or the cosine.
    """
    if distance == "cosine":
        directions = ops.transpose(ops.normalize(prototypes, axis=-1))
        return ops.matmul(ops.normalize(embeddings, axis=-1), directions)
    differences = ops.expand_dims(embeddings, 1) - prototypes  # (n, classes, channels)
    squared = ops.sum(ops.square(differences), axis=-1)
    if distance == "squared_euclidean":
        return -squared
    return -ops.sqrt(ops.maximum(squared, 1e-12))  # the root has no gradient at 0


def prototype_logits(
    embedding: keras.KerasTensor, prototypes: np.ndarray, distance: str
) -> keras.KerasTensor:
    """Classifies by the nearest prototype, with what Keras alone can load.

    The squared distance is |z|^2 + |p|^2 - 2 z p: all but |z|^2 is a dense layer.

    Args:
        embedding: (n, channels).
        prototypes: (classes, channels).
        distance: As for `distance_logits`.

    Returns:
        What `distance_logits` does; under `squared_euclidean` plus |z|^2, which softmax does not
        see.
    """
    lengths = np.linalg.norm(prototypes, axis=1, keepdims=True)  # (classes, 1)
    if distance == "cosine":
        embedding = layers.UnitNormalization(name="head_unit")(embedding)
        kernel, bias = (prototypes / np.maximum(lengths, 1e-12)).T, 0 * lengths[:, 0]
    else:
        kernel, bias = 2 * prototypes.T, -(lengths[:, 0] ** 2)
    dense = layers.Dense(len(prototypes), name=LOGITS)
    scores = dense(embedding)
    dense.set_weights([kernel, bias])
    if distance != "euclidean":
        return scores
    squared = ops.sum(ops.square(embedding), axis=-1, keepdims=True) - scores
    return -ops.sqrt(ops.maximum(squared, 0.0))


def plain_head(model: keras.Model) -> keras.Model:
    """The same function of built-in layers only, so that Keras alone can load it.

    Args:
        model: Any of our flat functional models.

    Returns:
        A functional model that shares the layers, a cosine head excepted: that becomes a
        normalisation and a dense layer with normalised weights.
    """
    cosine = head_layer(model)
    if not isinstance(cosine, CosineLogits):
        return keras.Model(model.input, model.output)
    unit = layers.UnitNormalization(axis=-1, name=NORM)(cosine.input)
    dense = layers.Dense(cosine.class_count, use_bias=False, name=LOGITS)
    scores = dense(unit)
    dense.kernel.assign(cosine.scale * ops.normalize(cosine.kernel, axis=0))
    for layer in model.layers[model.layers.index(cosine) + 1 :]:  # dropout of the logits
        scores = layer(scores)
    return keras.Model(model.input, scores)
