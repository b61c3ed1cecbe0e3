"""Supervised fine-tuning: cross-entropy on the shots, by Keras `fit`."""

from __future__ import annotations

from functools import partial

import keras

from keras_cnn.data import Split, augment
from keras_cnn.deck import batch_mean
from keras_cnn.deck.eval_mode import EvalModeSticks, StickyEvalMode
from keras_cnn.methods import Outcome, networks
from keras_cnn.models import saved
from keras_cnn.recipe.resolve import Run
from keras_cnn.recipe.settings import Supervised
from keras_cnn.torch_fast import fast
from keras_cnn.training import callbacks, feeding, optimizers
from keras_cnn.training.callbacks import Report


def train(run: Run, train: Split, test: Split, class_names: list[str], report: Report) -> Outcome:
    """Trains a classifier on labelled images and evaluates it after each epoch.

    Args:
        run: What to do; `run.training` is a `Supervised`.
        train: Images (n, h, w, 3) uint8 and labels (n,) to train on.
        test: The same, to evaluate on.
        class_names: In the order of the labels.
        report: Called with one record an epoch.

    Returns:
        The history, the test images' probabilities (n, classes), and the model to save.
    """
    settings: Supervised = run.training
    class_count = len(class_names)
    redraw, shares = None, False
    if settings.augment != "none":
        # Once is as the deck did it: with the images, before its runs, which share both.
        seed = run.shots_seed if settings.augment_once else run.training_seed
        redraw = partial(_augmented, train, settings, class_count, seed)
        shares = settings.augment in augment.MIXES_LABELS and not settings.augment_once
    if redraw and settings.augment_once:
        train, redraw = Split(redraw(0).images, train.labels), None
    graph = networks.classifier(run, class_count, settings.frozen_statistics_move)
    behaviour = StickyEvalMode if settings.eval_mode_sticks else None
    if redraw or run.feeding.feed == "files":
        model, train_inputs, test_inputs = (
            fast(graph, behaviour=behaviour),
            train.images,
            test.images,
        )
    else:
        model, train_inputs, test_inputs = networks.without_constant_part(
            graph, run, train, test, behaviour
        )
    over_batches = settings.average_over == "batches"
    model.compile(
        optimizer=optimizers.build(
            settings.optimizer, settings.learning_rate, settings.momentum, settings.l2
        ),
        loss=(
            keras.losses.CategoricalCrossentropy(from_logits=True)
            if shares
            else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ),
        metrics=_metrics(over_batches, shares),
    )
    history = callbacks.History(report, loss="batch_loss" if over_batches else "loss")
    test_batch_size = settings.batch_size if over_batches else networks.EVALUATION_BATCH_SIZE
    with feeding.batches(
        run.feeding,
        train=Split(train_inputs, train.labels),
        test=Split(
            test_inputs, augment.one_hot(test.labels, class_count) if shares else test.labels
        ),
        batch_size=settings.batch_size,
        test_batch_size=test_batch_size,
        seed=run.training_seed,
        redraw=redraw,
    ) as fed:
        model.fit(
            fed.train,
            epochs=settings.epochs,
            shuffle=False,  # of whole batches
            validation_data=fed.test,
            callbacks=[
                *fed.callbacks,
                callbacks.schedule(settings),
                *([EvalModeSticks()] if settings.eval_mode_sticks else []),
                history,
            ],
            verbose=0,
        )
        measures = fed.measures()
    classifier = saved.classifier(graph)
    probabilities = networks.outputs(classifier, test.images)
    return Outcome(history.records, probabilities, classifier, measures)


def _augmented(
    train: Split, settings: Supervised, class_count: int, seed: int, epoch: int
) -> Split:
    """The training images of an epoch."""
    images, labels = augment.augmented(
        train.images,
        train.labels,
        class_count,
        settings.augment,
        settings.augment_share,
        (seed, epoch),
    )
    return Split(images, labels)


def _metrics(over_batches: bool, shares: bool) -> list:
    """Accuracy, of mixed images against the label with the largest share, and the deck's loss."""
    if not over_batches:
        return ["accuracy"]
    accuracy, cross_entropy = batch_mean.accuracy, batch_mean.cross_entropy
    if shares:
        accuracy = keras.metrics.categorical_accuracy
        cross_entropy = partial(keras.ops.categorical_crossentropy, from_logits=True)
    return [
        batch_mean.BatchMean(accuracy, "accuracy"),
        batch_mean.BatchMean(cross_entropy, "batch_loss"),
    ]
