"""Supervised training: cross-entropy on labelled images, by Keras `fit`.

Fine-tuning where the network begins with weights of others, training from scratch where it does
not.
"""

from __future__ import annotations

from functools import partial

import keras

from keras_cnn import torch_fast
from keras_cnn.data import Split, augment
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.settings import Supervised
from keras_cnn.training import descent, evaluation, feeding, frozen
from keras_cnn.training.feed import Redraw
from keras_cnn.training.history import History

VERSION = 1  # raised when a change makes the same settings give another result


@method(Supervised)
def train(
    network: keras.Model, train: Split, test: Split, settings: Supervised, seed: int, report: Report
) -> Learned:
    """Trains a classifier on labelled images and evaluates it after each epoch.

    Each epoch draws a share of the images anew where they are augmented; labels of mixed images
    are mixed by area, and train accuracy counts the label with the largest share.

        network = models.classifier("baseline", class_count=10, dropout=0.5)
        trained = methods.supervised.train(network, train, test, epochs=3, batch_size=64)

    Returns:
        The history, the network, and what feeding from files measures.

    Raises:
        UserError: Dropping the last batch leaves none.
    """
    redraw, class_count = None, network.output.shape[-1]
    mixed = settings.augment in augment.MIXES_LABELS
    if settings.augment != "none":
        redraw = partial(augmented, train, settings, class_count, seed)
    model, train, test = whole_or_without_constant_part(network, train, test, settings, redraw)
    if mixed:
        test = Split(test.images, augment.one_hot(test.labels, class_count))
    with feeding.batches(
        settings,
        train,
        test,
        settings.batch_size,
        test_batch_size=evaluation.BATCH_SIZE,
        seed=seed,
        redraw=redraw,
    ) as fed:
        records = descent.fit(
            torch_fast.fast(model),
            fed.train,
            settings,
            loss=cross_entropy(mixed),
            metrics=["accuracy"],
            history=History(report),
            test=fed.test,
        )
        measures = fed.measures()
    return Learned(records, network, measures)


def augmented(train: Split, settings: Supervised, class_count: int, seed: int, epoch: int) -> Split:
    """The training images of an epoch, and their labels or shares of the classes."""
    images, labels = augment.augmented(
        train.images,
        train.labels,
        class_count,
        settings.augment,
        settings.augment_share,
        (seed, epoch),
    )
    return Split(images, labels)


def whole_or_without_constant_part(
    network: keras.Model, train: Split, test: Split, settings: Supervised, redraw: Redraw | None
) -> tuple[keras.Model, Split, Split]:
    """The model to train and what it is fed; images that change have no features to keep."""
    if redraw is not None or settings.feed == "files":
        return network, train, test
    return frozen.skip_constant_part(network, train, test)


def cross_entropy(mixed: bool) -> keras.losses.Loss:
    """The loss of logits against labels (n,), or against shares of the classes (n, classes)."""
    if mixed:
        return keras.losses.CategoricalCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
