"""Supervised training: cross-entropy on labelled images, by Keras `fit`.

Fine-tuning where the network begins with weights of others, training from scratch where it does
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import keras

from keras_cnn import torch_fast
from keras_cnn.data import Split, augment
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.settings import Supervised
from keras_cnn.training import batch_size, descent, feeding, frozen
from keras_cnn.training.feed import Redraw
from keras_cnn.training.history import History

VERSION = 1  # raised when a change makes the same settings give another result


class Loop(NamedTuple):
    """How a loop measures and what else it does; the arguments of `descent.fit` besides.

    Attributes:
        test_batch_size: Images of a batch of the test pass.
        metrics: Names or metrics of Keras.
        history: Keeps the records.
        behaviour: As for `torch_fast.fast`.
        callbacks: More of them.
    """

    test_batch_size: int
    metrics: Sequence[str | keras.metrics.Metric]
    history: History
    behaviour: type | None = None
    callbacks: Sequence[keras.callbacks.Callback] = ()


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
    loop = Loop(batch_size.of(test.images.shape), ["accuracy"], History(report))
    redraw = redrawn(train, settings, network.output.shape[-1], seed)
    return learn(network, train, test, settings, seed, redraw, loop)


def learn(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: Supervised,
    seed: int,
    redraw: Redraw | None,
    loop: Loop,
) -> Learned:
    """Trains a classifier on images, or on the features of its constant part.

    Args:
        network: As for `train`.
        train: Likewise; `redraw` takes its place where there is one.
        test: Likewise.
        settings: How.
        seed: Seeds the order of the images.
        redraw: Gives each epoch's images and labels; None where they stay the same.
        loop: What differs between loops.
    """
    model, mixed = network, mixes_labels(settings)
    if redraw is None and settings.feed == "memory":  # images that change have no constant features
        model, train, test = frozen.skip_constant_part(network, train, test)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if mixed:
        test = Split(test.images, augment.one_hot(test.labels, network.output.shape[-1]))
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    with feeding.batches(settings, train, test, loop.test_batch_size, seed, redraw) as fed:
        model = torch_fast.fast(model, behaviour=loop.behaviour)
        records = descent.fit(
            model,
            fed.train,
            settings,
            loss,
            loop.metrics,
            loop.history,
            test=fed.test,
            callbacks=loop.callbacks,
        )
        return Learned(records, network, fed.measures())


def redrawn(train: Split, settings: Supervised, class_count: int, seed: int) -> Redraw | None:
    """From an epoch to its images and their labels, or shares of the classes; None: as they are."""
    if settings.augment == "none":
        return None
    kind, share = settings.augment, settings.augment_share
    change = partial(augment.augmented, train.images, train.labels, class_count, kind, share)
    return lambda epoch: Split(*change((seed, epoch)))


def mixes_labels(settings: Supervised) -> bool:
    """Whether labels are shares of the classes, (n, classes)."""
    return settings.redraws and settings.augment in augment.MIXES_LABELS
