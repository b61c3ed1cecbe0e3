"""The deck's siamese network (slide 19): pairs of one class are pushed apart in training.

Evaluation then calls near pairs the same, on random pairs, and counts pairs of two, not classes:
it scores chance. What the deck calls near is not told; half the margin is a guess. That pairs were
random is: its 49 and 51 percent mean that about half of them were of one class (of any two images
of ten classes it would be a tenth), so a coin is tossed for each.
"""

from __future__ import annotations

import functools

import keras
import numpy as np

from keras_cnn.data import Split, sampling
from keras_cnn.data.sampling import Pairs
from keras_cnn.deck.settings import SiameseInverted
from keras_cnn.methods import siamese
from keras_cnn.methods.embedding import Embedding
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.training.history import History

VERSION = 1  # raised when a change makes the same settings give another result


@method(SiameseInverted)
def train(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: SiameseInverted,
    seed: int,
    report: Report,
) -> Learned:
    """Trains an embedding on pairs with inverted targets.

    Returns:
        The history; a network whose head is the class means of the shots; and the accuracy on
        test pairs.

    Raises:
        UserError: There is only one class, or a class has a single training image.
    """

    def train_pairs(epoch: int) -> Pairs:
        rng = np.random.default_rng([seed, epoch])
        return sampling.random_pairs(train.labels, rng, train.class_names)

    test_pairs = siamese.pairs_to_test(sampling.random_pairs, train, test)
    embedding = Embedding(network, train, test, settings.embedding, normalised=False, seed=seed)
    near = settings.margin / 2
    loss = functools.partial(siamese.contrastive_loss, margin=settings.margin)
    to_test = siamese.batches(inverted(test_pairs), len(test_pairs[0]))

    def evaluate(epoch: int) -> dict[str, float]:
        of_train = embedding.of_train()
        both = np.concatenate([embedding.of_test(), of_train])
        return {
            "accuracy": siamese.pair_accuracy(of_train, train_pairs(epoch), near),
            "val_accuracy": siamese.pair_accuracy(both, test_pairs, near),
            "val_loss": siamese.mean_loss(both, to_test, loss),
        }

    records = embedding.fit(
        lambda epoch: siamese.batches(inverted(train_pairs(epoch)), settings.batch_size),
        settings,
        loss,
        [],
        History(report),
        evaluate,
    )
    measures = {"pair_accuracy": evaluate(settings.epochs - 1)["val_accuracy"]}
    return Learned(records, embedding.classifier("squared_euclidean"), measures)


def inverted(pairs: Pairs) -> Pairs:
    """The same pairs, those of one class told as of two, and the reverse."""
    left, right, same = pairs
    return left, right, ~same
