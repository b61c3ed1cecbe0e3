"""The deck's training loop with what went wrong in it (slides 8 to 18 and 20 to 23)."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers

from keras_cnn.data import Split
from keras_cnn.deck.eval_mode import EvalModeSticks, StickyEvalMode
from keras_cnn.deck.settings import SupervisedAsRun
from keras_cnn.methods import supervised
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.settings import DEFAULT_SEED
from keras_cnn.models import heads
from keras_cnn.training.history import History
from keras_cnn.training.metrics import BatchMean, cross_entropy, hits

VERSION = 1  # raised when a change makes the same settings give another result


@method(SupervisedAsRun)
def train(
    network: keras.Model,
    train: Split,
    test: Split,
    settings: SupervisedAsRun,
    seed: int,
    report: Report,
) -> Learned:
    """Trains a classifier as `methods.supervised` does, with the deck's defects.

    - Evaluation mode sticks: from the second epoch on dropout is off, BatchNorm runs on (and no
      longer updates) its statistics, and weights go on training.
    - Frozen BatchNorm layers update their statistics while the first epoch trains.
    - Dropout acts on the logits.
    - Augmentation is drawn once, for all repeats, and a pasted-in box does not change the label.
    - Reported figures are means over batches, in which the smaller last batch weighs as much as
      any other.

    Returns:
        The history, the network, and what feeding from files measures.
    """
    drawn_by = DEFAULT_SEED if settings.augment_once else seed
    redraw = supervised.redrawn(train, settings, network.output.shape[-1], drawn_by)
    if redraw and settings.augment_once:
        train, redraw = Split(redraw(0).images, train.labels), None
    if settings.dropout_on_logits:
        network = with_dropout_on_logits(network)
    if settings.frozen_statistics_move:
        let_frozen_statistics_move(network)
    loop = supervised.Loop(
        test_batch_size=settings.batch_size,
        metrics=_means_over_batches(supervised.mixes_labels(settings)),
        history=History(report, loss="batch_loss"),
        behaviour=StickyEvalMode,
        callbacks=[EvalModeSticks()] if settings.eval_mode_sticks else [],
    )
    return supervised.learn(network, train, test, settings, seed, redraw, loop)


def with_dropout_on_logits(network: keras.Model) -> keras.Model:
    """The same layers, the head's dropout after them and not before the dense layer."""
    head = heads.head_layer(network)
    dropout = next((x for x in network.layers if x.output is head.input), None)
    if not isinstance(dropout, layers.Dropout):
        return network
    logits = dropout(head(heads.features(network)))
    return keras.Model(network.input, logits, name=network.name)


def let_frozen_statistics_move(network: keras.Model) -> None:
    """Has frozen BatchNorm layers update their running statistics in training steps.

    So does torch's `requires_grad = False`, which holds weights, not statistics.
    """
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization) and not layer.trainable:
            layer.trainable = True
            layer.gamma.trainable = False
            layer.beta.trainable = False


def _means_over_batches(mixed: bool) -> list[BatchMean]:
    accuracy, loss = hits, cross_entropy
    if mixed:
        accuracy = keras.metrics.categorical_accuracy
        loss = partial(keras.ops.categorical_crossentropy, from_logits=True)
    return [BatchMean(accuracy, "accuracy"), BatchMean(loss, "batch_loss")]
