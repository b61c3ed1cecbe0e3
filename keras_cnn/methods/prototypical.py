"""Prototypical networks (Snell et al. 2017, arXiv:1703.05175): classes by the mean of their shots.

A network learns from episodes to place images so that queries lie near the prototype, the mean
embedding of the support images, of their class:

    p(y = k | x) = softmax over k of -d(f(x), c_k),   c_k = mean of f(x_i) over the support of k
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import keras
import numpy as np
from keras import ops

from keras_cnn.data import Split, sampling
from keras_cnn.data.sampling import Draw
from keras_cnn.methods.embedding import Embedding
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.settings import Prototypical
from keras_cnn.models.heads import distance_logits
from keras_cnn.training import evaluation
from keras_cnn.training.history import History
from keras_cnn.training.metrics import BatchMean, cross_entropy, hits

VERSION = 1  # raised when a change makes the same settings give another result


@method(Prototypical)
def train(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: Prototypical,
    seed: int,
    report: Report,
) -> Learned:
    """Trains an embedding on episodes and classifies by the prototypes of all shots.

    A record's train figures are means over the epoch's episodes, its test figures those of all test
    images by the prototypes of all shots.

        network = models.classifier("convnext_atto", class_count=10, weights="bundled")
        trained = methods.prototypical.train(network, train, test, way=5, support_shots=5)

    Returns:
        The history, a network whose head is the prototypes of all shots, and the mean accuracy on
        test episodes with its 95 percent interval. Test episodes are smaller where a class has
        few test images; there are none where one has a single one.

    Raises:
        UserError: A class has too few images for the episodes.
    """
    class_count = network.output.shape[-1]
    way, shots = settings.way or class_count, (settings.support_shots, settings.query_shots)
    test_shots = evaluation.affordable(*shots, test.labels, class_count)
    test_episodes = _draw(test, way, test_shots, settings.evaluation_episodes, [seed, 0, 1])
    embedding = Embedding(network, train, test, settings.embedding, settings.normalised, seed)

    def evaluate(epoch: int) -> dict[str, float]:
        prototypes = ops.convert_to_tensor(embedding.class_means(embedding.of_train()))
        logits = partial(distance_logits, prototypes=prototypes, distance=settings.distance)
        figures = evaluation.means_over_images(logits, embedding.of_test(), test.labels)
        return dict(zip(("val_batch_loss", "val_accuracy"), figures, strict=True))

    loss = of_queries(cross_entropy, way, shots[0], settings.distance)
    accuracy = of_queries(hits, way, shots[0], settings.distance)
    count = settings.episodes_an_epoch
    records = embedding.fit(
        lambda epoch: _draw(train, way, shots, count, [seed, epoch, 0]),
        settings,
        loss,
        [BatchMean(accuracy, "accuracy"), BatchMean(loss, "batch_loss")],
        History(report, loss="batch_loss"),
        evaluate,
    )
    right = of_queries(hits, way, (test_shots or shots)[0], settings.distance)
    accuracies = evaluation.episode_means(right, embedding.of_test(), test_episodes)
    classifier = embedding.classifier(settings.distance)
    return Learned(records, classifier, evaluation.episode_measures(accuracies))


def of_queries(figure: Callable, way: int, support_shots: int, distance: str) -> Callable:
    """A figure of labels and logits as one of an episode's labels and embeddings."""
    return lambda labels, embeddings: figure(
        *queries(labels, embeddings, way, support_shots, distance)
    )


def queries(
    labels: object, embeddings: object, way: int, support_shots: int, distance: str
) -> tuple[object, object]:
    """An episode's queries, classified by the prototypes of its support.

    Args:
        labels: In the episode, (images,), those of the `way * support_shots` support images first.
        embeddings: (images, channels).
        way: Classes.
        support_shots: Support images of each.
        distance: As for `distance_logits`.

    Returns:
        The queries' labels (queries,) and logits (queries, way).
    """
    labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
    support = way * support_shots
    members = ops.one_hot(labels[:support], way)  # (support, way)
    prototypes = ops.matmul(ops.transpose(members), embeddings[:support]) / support_shots
    return labels[support:], distance_logits(embeddings[support:], prototypes, distance)


def _draw(
    split: Split, way: int, shots: tuple[int, int] | None, count: int, seed: list[int]
) -> list[Draw]:
    """Episodes with so many support and query images a class; none where there can be none."""
    if shots is None:
        return []
    rng = np.random.default_rng(seed)
    return sampling.draw_episodes(split.labels, count, way, *shots, rng, split.class_names)
