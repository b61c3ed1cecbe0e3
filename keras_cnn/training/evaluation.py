"""What a model makes of images: outputs, losses, accuracies, without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_cnn import torch_fast
from keras_cnn.data.sampling import Draw
from keras_cnn.statistics import half_width
from keras_cnn.training import batch_size
from keras_cnn.training.metrics import cross_entropy, hits


def outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What a model gives for images (n, …) in inference mode, run as fast as in training."""
    return evaluator(model)(images)


def evaluator(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images (n, …) to a model's outputs, to be called again as it trains."""
    fast = torch_fast.fast(model)
    return lambda images: np.asarray(
        fast.predict(images, batch_size=batch_size.of(images.shape), verbose=0)
    )


def loss_and_accuracy(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Cross-entropy and accuracy of probabilities (n, classes) against labels (n,)."""
    right = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = -np.log(np.maximum(right, np.finfo(np.float32).tiny))  # finite, where one is 0
    return float(losses.mean()), float((probabilities.argmax(axis=1) == labels).mean())


def means_over_images(
    classify: Callable[[object], object], inputs: np.ndarray, labels: np.ndarray
) -> tuple[float, float]:
    """Cross-entropy and accuracy over images.

    Args:
        classify: Takes a tensor of some inputs (batch, …), gives logits (batch, classes).
        inputs: (n, …): images, features or embeddings.
        labels: (n,).
    """
    losses, right, count = [], [], batch_size.of(inputs.shape)
    for start in range(0, len(labels), count):
        part = slice(start, start + count)
        answers = keras.ops.convert_to_tensor(labels[part].astype("int32"))
        logits = classify(keras.ops.convert_to_tensor(inputs[part]))
        losses.append(keras.ops.convert_to_numpy(cross_entropy(answers, logits)))
        right.append(keras.ops.convert_to_numpy(hits(answers, logits)))
    return float(np.concatenate(losses).mean()), float(np.concatenate(right).mean())


def episode_means(
    figure: Callable[[np.ndarray, object], object], inputs: np.ndarray, episodes: Sequence[Draw]
) -> np.ndarray:
    """The mean of a figure over each episode's queries, (episodes,).

    Args:
        figure: Takes an episode's labels and a tensor of its inputs; gives each query's.
        inputs: Of all images, (n, …).
        episodes: Indices into them, and labels.
    """
    tensor, array = keras.ops.convert_to_tensor, keras.ops.convert_to_numpy
    return np.array(
        [array(figure(labels, tensor(inputs[indices]))).mean() for indices, labels in episodes]
    )


def episode_measures(accuracies: np.ndarray) -> dict[str, float]:
    """The mean of episodes' accuracies (n,), its 95 percent interval's reach; none of none."""
    if not len(accuracies):
        return {}
    return {
        "episode_accuracy": float(accuracies.mean()),
        "episode_interval": half_width(accuracies.std(ddof=1), len(accuracies)),
    }


def affordable(
    support_shots: int, query_shots: int, labels: np.ndarray, class_count: int
) -> tuple[int, int] | None:
    """As many support and query images a class as there are of the smallest class.

    Args:
        support_shots: At most.
        query_shots: At most.
        labels: (n,).
        class_count: How many classes.

    Returns:
        Support and query images, or None where a class has a single image or none.
    """
    fewest = int(np.bincount(labels, minlength=class_count).min())
    if fewest < 2:
        return None
    if fewest >= support_shots + query_shots:
        return support_shots, query_shots
    support = min(support_shots, fewest // 2)
    return support, min(query_shots, fewest - support)
