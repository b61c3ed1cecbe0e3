"""Prototypical networks (Snell et al. 2017, arXiv:1703.05175): classes by the mean of their shots.

A network learns from episodes to place images so that queries lie near the prototype, the mean
embedding of the support images, of their class:

    p(y = k | x) = softmax over k of -d(f(x), c_k),   c_k = mean of f(x_i) over the support of k
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_cnn import torch_fast
from keras_cnn.data import Split, sampling
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.settings import Prototypical
from keras_cnn.models import heads
from keras_cnn.training import descent, evaluation, frozen
from keras_cnn.training.feed import Feed
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

    A record's train figures are means over the epoch's episodes; its test figures are those of all
    test images, classified by the prototypes of all training images.

        network = models.classifier("convnext_atto", class_count=10, weights="bundled")
        trained = methods.prototypical.train(network, train, test, way=5, support_shots=5)

    Args:
        network: Raw images (n, h, w, 3) to logits (n, classes); its features are embedded.
        train: Images (n, h, w, 3) uint8 and labels (n,): the shots.
        test: The same, to evaluate on.
        settings: How to train.
        seed: Seeds the new embedding's weights and the episodes.
        report: Called with one record an epoch.

    Returns:
        The history, a network whose head is the prototypes of all shots, and the mean accuracy on
        test episodes with its 95 percent interval. Where a class has too few test images for such
        episodes, these have fewer; where one has a single test image, there are none.

    Raises:
        UserError: A class has too few images for the episodes.
    """

    def episodes(split: Split, count: int, support: int, query: int, epoch: int) -> list:
        rng = np.random.default_rng([seed, epoch, int(split is test)])
        return sampling.draw_episodes(
            split.labels, count, settings.way, support, query, rng, split.class_names
        )

    class_count = network.output.shape[-1]
    way, shots = settings.way or class_count, (settings.support_shots, settings.query_shots)
    test_shots = evaluation.affordable(*shots, test.labels, class_count)
    final = []  # drawn before training: that the images are too few shows at once
    if test_shots:
        final = episodes(test, settings.evaluation_episodes, *test_shots, epoch=0)
    embedder = heads.embedder(network, settings.embedding, settings.normalised, seed)
    model, train_inputs, test_inputs = frozen.skip_constant_part(embedder, train, test)
    model = torch_fast.fast(model)
    embed = evaluation.evaluator(model)

    def prototypes() -> np.ndarray:
        return heads.class_means(embed(train_inputs.images), train.labels, class_count)

    def evaluate(epoch: int) -> dict[str, float]:
        means = ops.convert_to_tensor(prototypes())
        loss, accuracy = evaluation.means_over_images(
            lambda embeddings: distance_logits(embeddings, means, settings.distance),
            embed(test_inputs.images),
            test.labels,
        )
        return {"val_batch_loss": loss, "val_accuracy": accuracy}

    def of_queries(figure: Callable, support_shots: int = settings.support_shots) -> Callable:
        return lambda labels, embeddings: figure(
            *queries(labels, embeddings, way, support_shots, settings.distance)
        )

    records = descent.fit(
        model,
        Feed(
            lambda epoch: episodes(train, settings.episodes_an_epoch, *shots, epoch),
            train_inputs.images,
        ),
        settings,
        loss=of_queries(cross_entropy),
        metrics=[
            BatchMean(of_queries(hits), "accuracy"),
            BatchMean(of_queries(cross_entropy), "batch_loss"),
        ],
        history=History(report, loss="batch_loss"),
        evaluate=evaluate,
    )
    measures = {}
    if final:
        accuracy, embedded = of_queries(hits, test_shots[0]), embed(test_inputs.images)
        measures = evaluation.episode_measures(evaluation.episode_means(accuracy, embedded, final))
    logits = heads.prototype_logits(embedder.output, prototypes(), settings.distance)
    return Learned(records, keras.Model(embedder.input, logits, name=network.name), measures)


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


def distance_logits(embeddings: object, prototypes: object, distance: str) -> object:
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
