"""Siamese networks with contrastive loss (Hadsell, Chopra and LeCun 2006, CVPR, pages 1735-1742).

A network learns from pairs to place images of one class near each other and those of two classes
at least a margin m apart. With the distance D of a pair's embeddings:

    loss = D^2 / 2 for a pair of one class,   max(0, m - D)^2 / 2 for one of two

On a pretrained network such pairs undo more than they teach (CIFAR-10: artifacts/LOG.md); there
`batch_contrast` compares each image with all others of its batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_cnn.data import Split, sampling
from keras_cnn.data.sampling import Draw, Pairs
from keras_cnn.methods import batch_contrast
from keras_cnn.methods.embedding import Embedding
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.settings import DEFAULT_SEED, Siamese
from keras_cnn.training.history import History

VERSION = 1  # raised when a change makes the same settings give another result


class Contrast(NamedTuple):
    """Which images are compared, and what it costs.

    Attributes:
        draw: From an epoch to its batches of training images.
        loss: Of a batch's targets and embeddings; one for each pair or image.
        test: Batches of the test images, followed by the training images.
    """

    draw: Callable[[int], list[Draw]]
    loss: Callable[[object, object], object]
    test: list[Draw]


@method(Siamese)
def train(
    network: keras.Model, train: Split, test: Split, settings: Siamese, seed: int, report: Report
) -> Learned:
    """Trains an embedding on pairs, and classifies by the nearest class mean.

    Each image has another one in each epoch, in turns of its own class and of another. A record's
    train accuracy is of the epoch's pairs, called the same or not after the epoch; its test
    accuracy is of classes, by the nearest mean of the shots' embeddings. Its losses are those of
    the contrast, of pairs or of batches.

        network = models.classifier("siamese_cnn", class_count=10)
        trained = methods.siamese.train(network, train, test, margin=1.0, learning_rate=1e-4)

    Returns:
        The history; a network whose head is the class means of the shots; and the accuracy on
        pairs of test images (`pair_accuracy`), the same pairs in every epoch and run, see
        `pairs_to_test`.

    Raises:
        UserError: There is only one class, or a class has a single training image.
    """

    def train_pairs(epoch: int) -> Pairs:
        rng = np.random.default_rng([seed, epoch])
        return sampling.balanced_pairs(train.labels, rng, train.class_names)

    test_pairs = pairs_to_test(sampling.balanced_pairs, train, test)
    if settings.contrast == "pairs":
        contrast = Contrast(
            lambda epoch: batches(train_pairs(epoch), settings.batch_size),
            functools.partial(contrastive_loss, margin=settings.margin),
            batches(test_pairs, len(test_pairs[0])),
        )
    else:
        contrast = Contrast(
            lambda epoch: batch_contrast.batches(train.labels, settings.batch_size, [seed, epoch]),
            functools.partial(batch_contrast.loss, temperature=settings.temperature),
            batch_contrast.batches(test.labels, settings.batch_size, [DEFAULT_SEED]),
        )
    unit_length = settings.contrast == "batch"
    embedding = Embedding(network, train, test, settings.embedding, unit_length, seed)

    def evaluate(epoch: int) -> dict[str, float]:
        of_train, of_test, pairs = embedding.of_train(), embedding.of_test(), train_pairs(epoch)
        threshold = fitted_threshold(distances(of_train, pairs), pairs[2])
        means = embedding.class_means(of_train)
        both = np.concatenate([of_test, of_train])
        return {
            "accuracy": pair_accuracy(of_train, pairs, threshold),
            "pair_accuracy": pair_accuracy(both, test_pairs, threshold),
            "val_loss": mean_loss(both, contrast.test, contrast.loss),
            "val_accuracy": nearest_mean_accuracy(of_test, test.labels, means),
        }

    records = embedding.fit(contrast.draw, settings, contrast.loss, [], History(report), evaluate)
    measures = {"pair_accuracy": evaluate(settings.epochs - 1)["pair_accuracy"]}
    return Learned(records, embedding.classifier("squared_euclidean"), measures)


def pairs_to_test(
    draw_pairs: Callable[[np.ndarray, np.random.Generator], Pairs], train: Split, test: Split
) -> Pairs:
    """Pairs of test images, the same in every run.

    They are of the classes that have two test images. Where fewer than two classes have, each test
    image is paired with a training image of its class and with one of another.

    Args:
        draw_pairs: Takes labels and what draws.
        train: At least one image of each of two classes.
        test: At least one image.

    Returns:
        As `draw_pairs`; indices into the test images followed by the training images.
    """
    rng = np.random.default_rng([DEFAULT_SEED, 0, 1])
    paired = np.flatnonzero(np.bincount(test.labels)[test.labels] > 1)
    if len(np.unique(test.labels[paired])) > 1:
        left, right, same = draw_pairs(test.labels[paired], rng)
        return paired[left], paired[right], same
    left = np.repeat(np.arange(len(test.labels)), 2)
    same = np.arange(len(left)) % 2 == 0
    right = [
        rng.choice(np.flatnonzero((train.labels == test.labels[image]) == of_same))
        for image, of_same in zip(left, same, strict=True)
    ]
    return left, len(test.labels) + np.array(right), same


def batches(pairs: Pairs, batch_size: int) -> list[Draw]:
    """Cuts pairs into what a step takes.

    Args:
        pairs: From `sampling`.
        batch_size: Pairs of a batch; the last one has what is left.

    Returns:
        For each batch the images' indices, all left ones before all right ones, and the pairs'
        targets int64: 1 to be pulled together, 0 to be pushed apart.
    """
    left, right, same = pairs
    targets = same.astype(np.int64)
    cuts = range(0, len(left), batch_size)
    parts = [slice(start, start + batch_size) for start in cuts]
    return [(np.concatenate([left[part], right[part]]), targets[part]) for part in parts]


def contrastive_loss(targets: object, embeddings: object, margin: float) -> object:
    """Half the squared distance of pairs to be near, half the squared hinge of the others.

    Args:
        targets: 1 to be pulled together, 0 to be pushed apart, (pairs,).
        embeddings: (2 * pairs, channels), all left images before all right ones.
        margin: Distance from which on a pair is no longer pushed apart.

    Returns:
        (pairs,).
    """
    together = ops.cast(ops.reshape(targets, (-1,)), "float32")
    pairs = ops.shape(embeddings)[0] // 2
    squared = ops.sum(ops.square(embeddings[:pairs] - embeddings[pairs:]), axis=-1)
    distance = ops.sqrt(ops.maximum(squared, 1e-12))  # the root has no gradient at 0
    hinge = ops.maximum(margin - distance, 0.0)
    return (together * squared + (1 - together) * ops.square(hinge)) / 2


def mean_loss(embeddings: np.ndarray, draws: Sequence[Draw], loss: Callable) -> float:
    """The mean of a loss over batches of images (n, channels)."""
    losses = [loss(targets, embeddings[indices]) for indices, targets in draws]
    return float(np.mean(np.concatenate([ops.convert_to_numpy(each) for each in losses])))


def distances(embeddings: np.ndarray, pairs: Pairs) -> np.ndarray:
    """How far the two images of each pair are from each other, (pairs,)."""
    left, right, _ = pairs
    return np.linalg.norm(embeddings[left] - embeddings[right], axis=1)


def pair_accuracy(embeddings: np.ndarray, pairs: Pairs, threshold: float) -> float:
    """Share of pairs that are of one class where nearer than the threshold, and only there."""
    return float(((distances(embeddings, pairs) < threshold) == pairs[2]).mean())


def fitted_threshold(distance: np.ndarray, same: np.ndarray) -> float:
    """The threshold with the best accuracy on pairs.

    Args:
        distance: Distances (pairs,).
        same: Whether pairs are of one class (pairs,).

    Returns:
        Half way between two neighbouring distances; the smallest distance, or infinity, where all
        pairs are best called different, or the same.
    """
    order = np.argsort(distance, kind="stable")
    # The nearest k pairs called the same, for k from 0 to n: how many of all are right.
    right = np.concatenate([[0], np.cumsum(np.where(same[order], 1, -1))]) + np.sum(~same)
    edges = np.concatenate([distance[order].astype(np.float64), [np.inf]])
    below = np.concatenate([edges[:1], edges[:-1]])
    possible = np.concatenate([[True], edges[1:] > edges[:-1]])  # equal distances stay together
    best = int(np.argmax(np.where(possible, right, -1)))
    return float((below[best] + edges[best]) / 2)


def nearest_mean_accuracy(embeddings: np.ndarray, labels: np.ndarray, means: np.ndarray) -> float:
    """Share of images (n, channels) whose nearest mean, of (classes, channels), is the label's."""
    closeness = 2 * embeddings @ means.T - np.square(means).sum(axis=1)  # + |z|^2, like for all
    return float((closeness.argmax(axis=1) == labels).mean())
