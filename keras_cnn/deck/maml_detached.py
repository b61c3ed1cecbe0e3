"""The deck's MAML (slide 19), which never meta-learns.

Each batch trains a copy of the network with Adam, which is tested on the same images and thrown
away: support and query are one, and no gradient reaches the weights to be learned.
"""

from __future__ import annotations

import time

import keras
import numpy as np

from keras_cnn import torch_fast
from keras_cnn.data import Split
from keras_cnn.deck.settings import MamlDetached
from keras_cnn.errors import UserError
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.models import heads, saved
from keras_cnn.training import evaluation, feed, frozen, gradients, optimizers, schedule
from keras_cnn.training.history import record

VERSION = 1  # raised when a change makes the same settings give another result


@method(MamlDetached)
def train(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: MamlDetached,
    seed: int,
    report: Report,
) -> Learned:
    """Trains copies and throws them away; the network is the same before and after.

    Returns:
        The history, the network, and how far its weights moved: 0.

    Raises:
        UserError: The network drops something at random.
    """
    if heads.dropout_rate(network):
        raise UserError("maml trains without dropout: set dropout and stochastic_depth to 0")
    probabilities = evaluation.outputs(saved.classifier(network), test.images)
    untrained = evaluation.loss_and_accuracy(probabilities, test.labels)
    model, train, _ = frozen.skip_constant_part(network, train, test)
    model = torch_fast.fast(model)
    model.compile(
        optimizer=optimizers.build("adam", settings.copy_learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    before = gradients.arrays(model.trainable_variables)
    batches = feed.shuffled(train, settings.batch_size, seed)
    history = []
    for epoch in range(settings.epochs):
        began = time.perf_counter()
        batches.begin_epoch(epoch)
        copies = _means_over_copies(model, batches, settings.inner_steps)
        rate, seconds = schedule.learning_rate_at(epoch, settings), time.perf_counter() - began
        history.append(record(epoch + 1, rate, copies, untrained, seconds))
        report(history[-1])
    moved = gradients.distance(before, gradients.arrays(model.trainable_variables))
    return Learned(history, network, {"weights_moved": moved})


def _means_over_copies(model: keras.Model, batches: feed.Feed, steps: int) -> tuple[float, float]:
    """Mean loss and accuracy of a copy for each batch, after its steps, on its own images."""
    variables = [*model.variables, *model.optimizer.variables]
    before = gradients.arrays(variables)
    figures = []
    for images, labels in (batches[index] for index in range(len(batches))):
        # A step's figures are those before it: the one after the last tests the copy.
        each = {"batch_size": len(labels), "epochs": steps + 1, "shuffle": False, "verbose": 0}
        logs = model.fit(images, labels, **each).history
        figures.append((logs["loss"][-1], logs["accuracy"][-1]))
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    return tuple(np.mean(figures, axis=0))
