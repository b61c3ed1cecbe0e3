"""Siamese networks with contrastive loss (Hadsell, Chopra and LeCun 2006, CVPR, pages 1735-1742).

A network learns from pairs to place images of one class near each other and those of two classes
at least a margin apart.
"""

from __future__ import annotations

import functools

import keras
import numpy as np
from keras import ops

from keras_cnn.data import Split, sampling
from keras_cnn.data.sampling import Draw, Pairs
from keras_cnn.errors import UserError
from keras_cnn.methods import Outcome, networks
from keras_cnn.models import heads, saved
from keras_cnn.recipe.resolve import Run
from keras_cnn.recipe.settings import Siamese
from keras_cnn.training import callbacks, episodes
from keras_cnn.training.callbacks import Report


def train(run: Run, train: Split, test: Split, class_names: list[str], report: Report) -> Outcome:
    """Trains an embedding on pairs, and classifies by the nearest class mean.

    A record's train accuracy is of the epoch's pairs, called the same or not after the epoch; its
    test accuracy is of classes, by the nearest mean of the shots' embeddings, or of pairs, as
    `test_on` has it. Its losses are the contrastive ones, on pairs.

    Args:
        run: What to do; `run.training` is a `Siamese`.
        train: Images (n, h, w, 3) uint8 and labels (n,): the shots.
        test: The same, to evaluate on.
        class_names: In the order of the labels.
        report: Called with one record an epoch.

    Returns:
        The history, the test images' probabilities (n, classes): the softmax of minus the squared
        distances to the class means; the model to save, and the accuracy on test pairs.

    Raises:
        UserError: There is only one class, or a class has a single image.
    """
    settings: Siamese = run.training
    draw_pairs = sampling.balanced_pairs if settings.pairs == "balanced" else sampling.random_pairs

    def train_pairs(epoch: int) -> Pairs:
        rng = np.random.default_rng([run.training_seed, epoch])
        return draw_pairs(train.labels, rng, class_names)

    try:
        test_rng = np.random.default_rng([run.data.seed, 0, 1])
        test_pairs = draw_pairs(test.labels, test_rng, class_names)
    except UserError as error:
        raise UserError(f"{error} (of test images: pairs of them are told apart, too)") from None
    graph = networks.embedder(run, settings.embedding)
    model, train_inputs, test_inputs = networks.without_constant_part(graph, run, train, test)
    embed = networks.evaluator(model)
    loss = functools.partial(contrastive_loss, margin=settings.margin)

    def evaluate(epoch: int) -> dict[str, float]:
        of_train, of_test = embed(train_inputs), embed(test_inputs)
        apart, same = distances(of_train, train_pairs(epoch))
        threshold = settings.margin / 2
        if settings.threshold == "fitted":
            threshold = fitted_threshold(apart, same)
        test_apart, test_same = distances(of_test, test_pairs)
        (indices, targets), *_ = batches(test_pairs, len(test.labels), settings.labels_inverted)
        figures = {
            "accuracy": pair_accuracy(apart, same, threshold),
            "pair_accuracy": pair_accuracy(test_apart, test_same, threshold),
            "val_loss": float(np.mean(ops.convert_to_numpy(loss(targets, of_test[indices])))),
        }
        if settings.test_on == "pairs":
            return figures | {"val_accuracy": figures["pair_accuracy"]}
        means = heads.class_means(of_train, train.labels, len(class_names))
        return figures | {"val_accuracy": nearest_mean_accuracy(of_test, test.labels, means)}

    records = episodes.fit(
        model,
        episodes.DrawnFeed(
            train_inputs,
            lambda epoch: batches(
                train_pairs(epoch), settings.batch_size, settings.labels_inverted
            ),
        ),
        settings,
        loss=loss,
        metrics=[],
        evaluate=evaluate,
        history=callbacks.History(report),
    )
    means = heads.class_means(embed(train_inputs), train.labels, len(class_names))
    logits = heads.prototype_logits(graph.output, means, "squared_euclidean")
    classifier = saved.classifier(keras.Model(graph.input, logits))
    measures = {"pair_accuracy": evaluate(settings.epochs - 1)["pair_accuracy"]}
    return Outcome(records, networks.outputs(classifier, test.images), classifier, measures)


def batches(pairs: Pairs, batch_size: int, labels_inverted: bool) -> list[Draw]:
    """Cuts pairs into what a step takes.

    Args:
        pairs: From `sampling`.
        batch_size: Pairs of a batch; the last one has what is left.
        labels_inverted: Give pairs of one class the target of those of two, and the reverse.

    Returns:
        For each batch the images' indices, all left ones before all right ones, and the pairs'
        targets: 1 to be pulled together, 0 to be pushed apart.
    """
    left, right, same = pairs
    targets = (same != labels_inverted).astype(np.int64)
    cuts = range(0, len(left), batch_size)
    parts = [slice(start, start + batch_size) for start in cuts]
    return [(np.concatenate([left[part], right[part]]), targets[part]) for part in parts]


def contrastive_loss(targets: object, embeddings: object, margin: float) -> object:
    """Half the squared distance of pairs to be near, half the squared lack of margin of the others.

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
    lack = ops.maximum(margin - ops.sqrt(ops.maximum(squared, 1e-12)), 0.0)  # no slope at 0
    return (together * squared + (1 - together) * ops.square(lack)) / 2


def distances(embeddings: np.ndarray, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """How far apart pairs are (pairs,), and whether they are of one class (pairs,)."""
    left, right, same = pairs
    return np.linalg.norm(embeddings[left] - embeddings[right], axis=1), same


def pair_accuracy(apart: np.ndarray, same: np.ndarray, threshold: float) -> float:
    """Share of pairs that are of one class where nearer than the threshold, and only there."""
    return float(((apart < threshold) == same).mean())


def fitted_threshold(apart: np.ndarray, same: np.ndarray) -> float:
    """The threshold with the best accuracy on pairs.

    Args:
        apart: Distances (pairs,).
        same: Whether pairs are of one class (pairs,).

    Returns:
        Half way between two neighbouring distances; the smallest distance, or infinity, where all
        pairs are best called different, or the same.
    """
    order = np.argsort(apart, kind="stable")
    # The nearest k pairs called the same, for k from 0 to n: how many of all are right.
    right = np.concatenate([[0], np.cumsum(np.where(same[order], 1, -1))]) + np.sum(~same)
    edges = np.concatenate([apart[order].astype(np.float64), [np.inf]])
    below = np.concatenate([edges[:1], edges[:-1]])
    possible = np.concatenate([[True], edges[1:] > edges[:-1]])  # equal distances stay together
    best = int(np.argmax(np.where(possible, right, -1)))
    return float((below[best] + edges[best]) / 2)


def nearest_mean_accuracy(embeddings: np.ndarray, labels: np.ndarray, means: np.ndarray) -> float:
    """Share of images (n, channels) whose nearest mean, of (classes, channels), is the label's."""
    closeness = 2 * embeddings @ means.T - np.square(means).sum(axis=1)  # + |z|^2, like for all
    return float((closeness.argmax(axis=1) == labels).mean())
