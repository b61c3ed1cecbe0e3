"""Prototypical networks (Snell et al. 2017, arXiv:1703.05175): classes by the mean of their shots.

A network learns from episodes to place images so that queries lie near the prototype, the mean
embedding, of their class.
"""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_cnn.data import Split, sampling
from keras_cnn.data.sampling import Draw
from keras_cnn.deck import batch_mean
from keras_cnn.methods import Outcome, networks
from keras_cnn.models import heads, saved
from keras_cnn.recipe.measures import half_width
from keras_cnn.recipe.resolve import Run
from keras_cnn.recipe.settings import Prototypical
from keras_cnn.training import callbacks, episodes
from keras_cnn.training.callbacks import Report


def train(run: Run, train: Split, test: Split, class_names: list[str], report: Report) -> Outcome:
    """Trains an embedding on episodes and classifies by its prototypes.

    A record's train accuracy and loss are means over the epoch's episodes. Its test accuracy and
    loss are those of all test images, classified by the prototypes of all training shots; with
    `split_batches` they are means over the test images' batches, each with prototypes of its own.

    Args:
        run: What to do; `run.training` is a `Prototypical`.
        train: Images (n, h, w, 3) uint8 and labels (n,): the shots.
        test: The same, to evaluate on.
        class_names: In the order of the labels.
        report: Called with one record an epoch.

    Returns:
        The history, the test images' probabilities (n, classes) by the prototypes of all shots,
        the model to save, and, with disjoint episodes, the mean accuracy on test episodes and how
        far its 95 percent interval reaches on each side. Where a class has too few test images for
        such episodes, these have fewer support and query images; of a class with a single one
        there are none, and these two figures are missing.

    Raises:
        UserError: A class has too few images for the episodes.
    """
    settings: Prototypical = run.training
    of_train = Episodes(settings, train.labels, class_names)
    disjoint = settings.episodes == "disjoint"
    tested = _affordable(settings, test.labels, class_names) if disjoint else settings
    of_test = Episodes(tested, test.labels, class_names)
    final = []  # drawn before training: that the images are too few shows at once
    if not disjoint or np.bincount(test.labels, minlength=len(class_names)).min() > 1:
        final = of_test.draw(_rng(run, 0, of_test=True), settings.evaluation_episodes)

    graph = networks.embedder(run, settings.embedding, settings.normalised)
    model, train_inputs, test_inputs = networks.without_constant_part(graph, run, train, test)
    embed = networks.evaluator(model)

    def evaluate(epoch: int) -> dict[str, float]:
        embedded = embed(test_inputs)
        if disjoint:
            prototypes = heads.class_means(embed(train_inputs), train.labels, len(class_names))
            loss, accuracy = of_prototypes(embedded, test.labels, prototypes, settings.distance)
        else:
            loss, accuracy = of_test.figures(embedded, of_test.draw(_rng(run, epoch, of_test=True)))
        return {"val_batch_loss": float(loss.mean()), "val_accuracy": float(accuracy.mean())}

    records = episodes.fit(
        model,
        episodes.DrawnFeed(train_inputs, lambda epoch: of_train.draw(_rng(run, epoch))),
        settings,
        loss=of_train.loss,
        metrics=[
            batch_mean.BatchMean(of_train.accuracy, "accuracy"),
            batch_mean.BatchMean(of_train.loss, "batch_loss"),
        ],
        evaluate=evaluate,
        history=callbacks.History(report, loss="batch_loss"),
    )
    prototypes = heads.class_means(embed(train_inputs), train.labels, len(class_names))
    logits = heads.prototype_logits(graph.output, prototypes, settings.distance)
    classifier = saved.classifier(keras.Model(graph.input, logits))
    measures = {}
    if disjoint and final:
        _, accuracies = of_test.figures(embed(test_inputs), final)
        measures = {
            "episode_accuracy": float(accuracies.mean()),
            "episode_interval": half_width(accuracies.std(ddof=1), len(accuracies)),
        }
    return Outcome(records, networks.outputs(classifier, test.images), classifier, measures)


def _affordable(settings: Prototypical, labels: np.ndarray, class_names: list[str]) -> Prototypical:
    """The settings, with episodes that the smallest class has images for where two are enough."""
    fewest = int(np.bincount(labels, minlength=len(class_names)).min())
    if not 2 <= fewest < settings.support_shots + settings.query_shots:
        return settings
    support = min(settings.support_shots, fewest // 2)
    query = min(settings.query_shots, fewest - support)
    return settings.model_copy(update={"support_shots": support, "query_shots": query})


class Episodes:
    """How episodes are drawn from some images, and what a network's outputs for them mean.

    Args:
        settings: The method's.
        labels: The images' labels, (n,).
        class_names: In the order of the labels.
    """

    def __init__(self, settings: Prototypical, labels: np.ndarray, class_names: list[str]) -> None:
        self._settings = settings
        self._labels = labels
        self._class_names = class_names
        if settings.episodes == "disjoint":
            self._columns = settings.way or len(class_names)
            self._support_images = self._columns * settings.support_shots
        else:
            self._columns = len(class_names)
            self._support_images = settings.support_images

    def draw(self, rng: np.random.Generator, count: int | None = None) -> list[Draw]:
        """Draws episodes.

        Args:
            rng: Draws.
            count: How many; None takes `episodes_an_epoch`. Split batches are always all.

        Raises:
            UserError: There are too few images.
        """
        settings = self._settings
        if settings.episodes == "split_batches":
            return sampling.split_batches(
                self._labels, settings.batch_size, settings.support_images, rng
            )
        return sampling.draw_episodes(
            self._labels,
            count or settings.episodes_an_epoch,
            settings.way,
            settings.support_shots,
            settings.query_shots,
            rng,
            self._class_names,
        )

    def queries(self, labels: object, embeddings: object) -> tuple[object, object]:
        """An episode's queries, classified by the prototypes of its support.

        Args:
            labels: In the episode, (images,), those of the support images first.
            embeddings: (images, channels).

        Returns:
            The queries' labels (queries,) and logits (queries, columns).
        """
        labels = ops.cast(ops.reshape(labels, (-1,)), "int32")
        support = self._support_images
        members = ops.one_hot(labels[:support], self._columns)  # (support, columns)
        counts = ops.expand_dims(ops.sum(members, axis=0), -1)  # (columns, 1)
        sums = ops.matmul(ops.transpose(members), embeddings[:support])
        found = logits(
            embeddings[support:], sums / ops.maximum(counts, 1.0), self._settings.distance
        )
        # A column without support is no class's: the classes that are there stand before it.
        return labels[support:], ops.where(ops.transpose(counts) > 0, found, -1e9)

    def loss(self, labels: object, embeddings: object) -> object:
        """Cross-entropy of each query (queries,); 0 where its label, -1, has no prototype."""
        labels, found = self.queries(labels, embeddings)
        return _cross_entropy(labels, found)

    def accuracy(self, labels: object, embeddings: object) -> object:
        """1 for each query (queries,) nearest its label's prototype, else 0."""
        return batch_mean.accuracy(*self.queries(labels, embeddings))

    def figures(self, embeddings: np.ndarray, drawn: list[Draw]) -> tuple[np.ndarray, np.ndarray]:
        """Mean loss and accuracy of each episode.

        Args:
            embeddings: Embeddings of all images, (n, channels).
            drawn: From `draw`.

        Returns:
            Losses (episodes,) and accuracies (episodes,).
        """
        losses, accuracies = [], []
        for indices, labels in drawn:
            answers, found = self.queries(labels, ops.convert_to_tensor(embeddings[indices]))
            losses.append(ops.convert_to_numpy(_cross_entropy(answers, found)).mean())
            accuracies.append(ops.convert_to_numpy(batch_mean.accuracy(answers, found)).mean())
        return np.array(losses), np.array(accuracies)


def logits(embeddings: object, prototypes: object, distance: str) -> object:
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
    return -ops.sqrt(ops.maximum(squared, 1e-12))  # the root has no slope at 0


def of_prototypes(
    embeddings: np.ndarray, labels: np.ndarray, prototypes: np.ndarray, distance: str
) -> tuple[np.ndarray, np.ndarray]:
    """Loss and accuracy of images classified by given prototypes.

    Args:
        embeddings: (n, channels).
        labels: (n,).
        prototypes: (classes, channels).
        distance: As for `logits`.

    Returns:
        The images' cross-entropies (n,), and 1 where the nearest prototype is the label's, else 0.
    """
    means, losses, hits = ops.convert_to_tensor(prototypes), [], []
    for start in range(0, len(labels), networks.EVALUATION_BATCH_SIZE):
        part = slice(start, start + networks.EVALUATION_BATCH_SIZE)
        answers = ops.convert_to_tensor(labels[part].astype("int32"))
        found = logits(ops.convert_to_tensor(embeddings[part]), means, distance)
        losses.append(ops.convert_to_numpy(_cross_entropy(answers, found)))
        hits.append(ops.convert_to_numpy(batch_mean.accuracy(answers, found)))
    return np.concatenate(losses), np.concatenate(hits)


def _cross_entropy(labels: object, found: object) -> object:
    chosen = ops.one_hot(labels, found.shape[-1])  # nothing of a label of -1
    return -ops.sum(chosen * ops.log_softmax(found, axis=-1), axis=-1)


def _rng(run: Run, epoch: int, of_test: bool = False) -> np.random.Generator:
    return np.random.default_rng([run.training_seed, epoch, int(of_test)])
