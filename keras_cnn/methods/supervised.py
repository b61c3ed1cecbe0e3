"""Supervised fine-tuning: cross-entropy on the shots, by Keras `fit`."""

from __future__ import annotations

import keras
import numpy as np

from keras_cnn import models, saved
from keras_cnn.data import Split
from keras_cnn.methods import Outcome
from keras_cnn.models.freeze import freeze, split
from keras_cnn.pretrained import convert, registry
from keras_cnn.recipe import Run
from keras_cnn.settings import Supervised
from keras_cnn.training import batch_mean, callbacks, feeding, optimizers
from keras_cnn.training.callbacks import Report
from keras_cnn.training.model import TrainedModel

EVALUATION_BATCH_SIZE = 256


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
    test_batch_size = settings.batch_size if over_batches else EVALUATION_BATCH_SIZE
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
                _schedule(settings),
                *([callbacks.EvalModeSticks()] if settings.eval_mode_sticks else []),
                history,
            ],
            verbose=0,
        )
    classifier = saved.classifier(graph)
    return Outcome(history.records, _outputs(classifier, test.images), classifier)


def _without_constant_part(
    graph: keras.Model, run: Run, train: Split, test: Split
) -> tuple[TrainedModel, np.ndarray, np.ndarray]:
    """The model to train and what it is fed: images, or their features where these stay the same.

    A frozen part that gives an image the same features in every epoch is run once, not `epochs`
    times; the arithmetic is the same.
    """
    parts = split(graph, run.model.unfrozen_stages)
    if parts is None or run.feeding.feed == "files":
        return TrainedModel(graph.input, graph.output), train.images, test.images
    frozen, features = parts
    kept = [_outputs(frozen, images) for images in (train.images, test.images)]
    return TrainedModel(features, graph.output), *kept


def _outputs(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What a model gives for images, run as fast as in training."""
    fast = TrainedModel(model.input, model.output)
    return np.asarray(fast.predict(images, batch_size=EVALUATION_BATCH_SIZE, verbose=0))


def _schedule(settings: Supervised) -> keras.callbacks.Callback:
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: callbacks.learning_rate_at(
            epoch,
            settings.learning_rate,
            settings.schedule,
            settings.schedule_epochs,
            settings.schedule_factor,
        )
    )


def _metrics(over_batches: bool) -> list:
    if not over_batches:
        return ["accuracy"]
    return [
        batch_mean.BatchMean(batch_mean.accuracy, "accuracy"),
        batch_mean.BatchMean(batch_mean.cross_entropy, "batch_loss"),
    ]
