"""Supervised fine-tuning: cross-entropy on the shots, by Keras `fit`."""

from __future__ import annotations

import keras
import numpy as np

from keras_cnn import callbacks, models, optimizers, saved
from keras_cnn.callbacks import Report
from keras_cnn.data import Split
from keras_cnn.methods import Outcome, batch_mean
from keras_cnn.models.freeze import freeze, split
from keras_cnn.pretrained import convert, registry
from keras_cnn.recipe import Run
from keras_cnn.settings import Supervised

EVALUATION_BATCH_SIZE = 256


class HeldModel(keras.Model):
    """A functional model that can be held in inference mode while it trains.

    Attributes:
        inference_mode: Whether dropout stays off and BatchNorm stays on its statistics also in
            training steps. A traced training step must be made anew after it changes.
    """

    inference_mode = False

    def call(self, inputs: object, training: bool | None = None, mask: object = None) -> object:
        """Runs the graph; `training` reaches it only while the model is not held."""
        return super().call(inputs, training=False if self.inference_mode else training, mask=mask)


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
    graph = models.classifier(
        run.model.model,
        class_count=len(class_names),
        image_size=run.data.image_size,
        head=run.model.head,
        dropout=run.model.dropout,
        dropout_position=run.model.dropout_position,
        seed=run.training_seed,
        hidden_units=run.model.hidden_units,
        stochastic_depth=run.model.stochastic_depth,
    )
    weights = registry.weights_file(run.model.model, run.model.weights)
    if weights is not None:
        convert.load_torch_weights(graph, weights)
    freeze(graph, run.model.unfrozen_stages, statistics_move=settings.frozen_statistics_move)
    model, train_inputs, test_inputs = _without_constant_part(graph, run, train, test)
    over_batches = settings.average_over == "batches"
    model.compile(
        optimizer=optimizers.build(
            settings.optimizer, settings.learning_rate, settings.momentum, settings.l2
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=_metrics(over_batches),
    )
    history = callbacks.History(report, loss="batch_loss" if over_batches else "loss")
    model.fit(
        train_inputs,
        train.labels,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        validation_data=(test_inputs, test.labels),
        validation_batch_size=settings.batch_size if over_batches else EVALUATION_BATCH_SIZE,
        callbacks=[
            keras.callbacks.LearningRateScheduler(
                lambda epoch: callbacks.learning_rate_at(
                    epoch,
                    settings.learning_rate,
                    settings.schedule,
                    settings.schedule_epochs,
                    settings.schedule_factor,
                )
            ),
            *([callbacks.EvalModeSticks()] if settings.eval_mode_sticks else []),
            history,
        ],
        verbose=0,
    )
    classifier = saved.classifier(graph)
    probabilities = classifier.predict(test.images, batch_size=EVALUATION_BATCH_SIZE, verbose=0)
    return Outcome(history.records, np.asarray(probabilities), classifier)


def _without_constant_part(
    graph: keras.Model, run: Run, train: Split, test: Split
) -> tuple[HeldModel, np.ndarray, np.ndarray]:
    """The model to train and what it is fed: images, or their features where these stay the same.

    A frozen part that gives an image the same features in every epoch is run once, not `epochs`
    times; the arithmetic is the same.
    """
    parts = split(graph, run.model.unfrozen_stages)
    if parts is None:
        return HeldModel(graph.input, graph.output), train.images, test.images
    frozen, features = parts
    kept = (
        np.asarray(frozen.predict(images, batch_size=EVALUATION_BATCH_SIZE, verbose=0))
        for images in (train.images, test.images)
    )
    return HeldModel(features, graph.output), *kept


def _metrics(over_batches: bool) -> list:
    if not over_batches:
        return ["accuracy"]
    return [
        batch_mean.BatchMean(batch_mean.accuracy, "accuracy"),
        batch_mean.BatchMean(batch_mean.cross_entropy, "batch_loss"),
    ]
