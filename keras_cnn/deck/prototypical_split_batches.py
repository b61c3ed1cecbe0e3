"""The deck's prototypical network (slide 19): episodes are shuffled batches split at random.

100 of each 128 images are support and 28 are queries, whatever their classes. Classes that no
support image shows are dropped, and those behind them move up: a query's label then means another
class, or none. What is reported of test images is of such batches too, never of all classes.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_cnn.data import Split, sampling
from keras_cnn.data.sampling import Draw
from keras_cnn.deck.settings import PrototypicalSplitBatches
from keras_cnn.methods.embedding import Embedding
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.models.heads import distance_logits
from keras_cnn.training import evaluation
from keras_cnn.training.history import History
from keras_cnn.training.metrics import BatchMean, hits

VERSION = 1  # raised when a change makes the same settings give another result


@method(PrototypicalSplitBatches)
def train(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: PrototypicalSplitBatches,
    seed: int,
    report: Report,
) -> Learned:
    """Trains an embedding on batches split at random.

    Returns:
        The history, and a network whose head is made of the prototypes of all shots.

    Raises:
        UserError: No batch has a query.
    """
    class_count = network.output.shape[-1]

    def batches(split: Split, epoch: int) -> list[Draw]:
        rng = np.random.default_rng([seed, epoch, int(split is test)])
        sizes = settings.batch_size, settings.support_images
        return sampling.split_batches(split.labels, *sizes, rng)

    def of_queries(figure: Callable) -> Callable:
        return lambda labels, embeddings: figure(
            *queries(labels, embeddings, class_count, settings)
        )

    embedding = Embedding(network, train, test, settings.embedding, settings.normalised, seed)
    figures = {"batch_loss": of_queries(cross_entropy), "accuracy": of_queries(hits)}

    def evaluate(epoch: int) -> dict[str, float]:
        of_test, drawn = embedding.of_test(), batches(test, epoch)
        return {
            f"val_{name}": float(evaluation.episode_means(figure, of_test, drawn).mean())
            for name, figure in figures.items()
        }

    records = embedding.fit(
        lambda epoch: batches(train, epoch),
        settings,
        figures["batch_loss"],
        [BatchMean(figure, name) for name, figure in figures.items()],
        History(report, loss="batch_loss"),
        evaluate,
    )
    return Learned(records, embedding.classifier(settings.distance), {})


def queries(
    labels: object, embeddings: object, class_count: int, settings: PrototypicalSplitBatches
) -> tuple[object, object]:
    """A batch's queries, classified by the prototypes of the classes its support happens to show.

    Args:
        labels: In the batch, (images,), those of the support images first; -1 where a query's
            class has no place.
        embeddings: (images, channels).
        class_count: Of all images.
        settings: How many are support images, and the distance.

    Returns:
        The queries' labels (queries,) and logits (queries, class_count).
    """
    labels, support = ops.cast(ops.reshape(labels, (-1,)), "int32"), settings.support_images
    members = ops.one_hot(labels[:support], class_count)  # (support, class_count)
    counts = ops.expand_dims(ops.sum(members, axis=0), -1)  # (class_count, 1)
    sums = ops.matmul(ops.transpose(members), embeddings[:support])
    prototypes = sums / ops.maximum(counts, 1.0)
    logits = distance_logits(embeddings[support:], prototypes, settings.distance)
    # A place without support is no class's: the classes that are there stand before it.
    return labels[support:], ops.where(ops.transpose(counts) > 0, logits, -1e9)


def cross_entropy(labels: object, logits: object) -> object:
    """Of each query (queries,); 0 where its label, -1, has no prototype."""
    chosen = ops.one_hot(labels, logits.shape[-1])  # nothing of a label of -1
    return -ops.sum(chosen * ops.log_softmax(logits, axis=-1), axis=-1)
