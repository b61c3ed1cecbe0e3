"""Supervised fine-tuning: cross-entropy on the shots, by Keras `fit`."""

from __future__ import annotations

import keras

from keras_cnn import saved
from keras_cnn.data import Split
from keras_cnn.methods import Outcome, networks
from keras_cnn.recipe import Run
from keras_cnn.settings import Supervised
from keras_cnn.training import batch_mean, callbacks, feeding, optimizers
from keras_cnn.training.callbacks import Report
from keras_cnn.training.model import TrainedModel


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
    graph = networks.classifier(run, len(class_names), settings.frozen_statistics_move)
    if run.feeding.feed == "files":
        model, train_inputs, test_inputs = (
            TrainedModel(graph.input, graph.output),
            train.images,
            test.images,
        )
    else:
        model, train_inputs, test_inputs = networks.without_constant_part(graph, run, train, test)
    over_batches = settings.average_over == "batches"
    model.compile(
        optimizer=optimizers.build(
            settings.optimizer, settings.learning_rate, settings.momentum, settings.l2
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=_metrics(over_batches),
    )
    history = callbacks.History(report, loss="batch_loss" if over_batches else "loss")
    test_batch_size = settings.batch_size if over_batches else networks.EVALUATION_BATCH_SIZE
    with feeding.batches(
        run.feeding,
        train=Split(train_inputs, train.labels),
        test=Split(test_inputs, test.labels),
        batch_size=settings.batch_size,
        test_batch_size=test_batch_size,
        seed=run.training_seed,
    ) as (train_batches, test_batches, of_the_feed):
        model.fit(
            train_batches,
            epochs=settings.epochs,
            shuffle=False,  # of whole batches
            validation_data=test_batches,
            callbacks=[
                *of_the_feed,
                callbacks.schedule(settings),
                *([callbacks.EvalModeSticks()] if settings.eval_mode_sticks else []),
                history,
            ],
            verbose=0,
        )
    classifier = saved.classifier(graph)
    return Outcome(history.records, networks.outputs(classifier, test.images), classifier)


def _metrics(over_batches: bool) -> list:
    if not over_batches:
        return ["accuracy"]
    return [
        batch_mean.BatchMean(batch_mean.accuracy, "accuracy"),
        batch_mean.BatchMean(batch_mean.cross_entropy, "batch_loss"),
    ]
