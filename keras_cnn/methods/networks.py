"""The network a run asks for, ready to train: built, its weights loaded, its stages frozen."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np

from keras_cnn import models, pretrained
from keras_cnn.data import Split
from keras_cnn.models.freeze import freeze, frozen_part
from keras_cnn.recipe.resolve import Run
from keras_cnn.torch_fast import fast
from keras_cnn.training import features_cache

EVALUATION_BATCH_SIZE = 256


def classifier(run: Run, class_count: int, statistics_move: bool = False) -> keras.Model:
    """A network with a new head.

    Args:
        run: Which network.
        class_count: Outputs.
        statistics_move: Of frozen BatchNorm, see `freeze`.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to logits (n, class_count).
    """
    graph = models.classifier(
        run.model.model,
        class_count=class_count,
        image_size=run.data.image_size,
        head=run.model.head,
        cosine_scale=run.model.cosine_scale,
        dropout=run.model.dropout,
        dropout_position=run.model.dropout_position,
        seed=run.training_seed,
        hidden_units=run.model.hidden_units,
        stochastic_depth=run.model.stochastic_depth,
    )
    return _ready(graph, run, statistics_move)


def embedder(run: Run, embedding: int | None, normalised: bool = False) -> keras.Model:
    """A network that gives an image a place among others.

    Args:
        run: Which network.
        embedding: Outputs of a new dense layer; None gives the features alone.
        normalised: Bring them to length 1.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to embeddings (n, channels).
    """
    graph = models.embedder(
        run.model.model,
        image_size=run.data.image_size,
        embedding=embedding,
        normalised=normalised,
        seed=run.training_seed,
        hidden_units=run.model.hidden_units,
        stochastic_depth=run.model.stochastic_depth,
    )
    return _ready(graph, run)


def without_constant_part(
    graph: keras.Model, run: Run, train: Split, test: Split, behaviour: type | None = None
) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """The model to train and what it is fed: images, or their features where these stay the same.

    A frozen part that gives an image the same features in every epoch is run once for all epochs,
    and for all runs that share it; the arithmetic is the same. Features that take more than
    `features_cache.MOST_BYTES` are not kept.

    Args:
        graph: From `classifier` or `embedder`.
        run: What to do.
        train: Images (n, h, w, 3) uint8 and labels (n,).
        test: Likewise.
        behaviour: Of the model, see `fast`.

    Returns:
        A model on the same weights, and its inputs for the images of `train` and of `test`.
    """
    parts = frozen_part(graph, run.model.unfrozen_stages)
    images = len(train.labels) + len(test.labels)
    if parts is None or images * _bytes_of_one(parts[1]) > features_cache.MOST_BYTES:
        return fast(graph, behaviour=behaviour), train.images, test.images
    frozen, features = parts
    inputs = [frozen_outputs(frozen, split.images) for split in (train, test)]
    return fast(keras.Model(features, graph.output), behaviour=behaviour), *inputs


def frozen_outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """As `outputs`, of a model that does not train: read where a run has computed it before."""
    return features_cache.features(model, images, lambda: outputs(model, images))


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What a model gives for images (n, …) in inference mode, run as fast as in training."""
    return evaluator(model)(images)


def evaluator(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images to a model's outputs, to be called again as the model trains.

    Args:
        model: Functional, one input and one output.

    Returns:
        Takes whatever the model takes, (n, …), and gives (n, …), in inference mode.
    """
    runner = fast(model)
    return lambda images: np.asarray(
        runner.predict(images, batch_size=EVALUATION_BATCH_SIZE, verbose=0)
    )


def loss_and_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Cross-entropy and accuracy of probabilities (n, classes) against labels (n,)."""
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = -np.log(np.maximum(of_label, np.finfo(np.float32).tiny))  # finite, where one is 0
    return float(losses.mean()), float((probabilities.argmax(axis=1) == labels).mean())


def _bytes_of_one(features: keras.KerasTensor) -> int:
    return 4 * math.prod(features.shape[1:])  # float32


def _ready(graph: keras.Model, run: Run, statistics_move: bool = False) -> keras.Model:
    pretrained.load(graph, run.model.weights)
    freeze(graph, run.model.unfrozen_stages, statistics_move)
    return graph
