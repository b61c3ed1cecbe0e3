"""Gradient descent as a method's settings have it, by Keras's `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import keras

from keras_cnn.methods.settings import Descent
from keras_cnn.timing import timed
from keras_cnn.training import optimizers, schedule
from keras_cnn.training.feed import BeginEpoch, Feed
from keras_cnn.training.history import History


class _TimedTests(keras.callbacks.Callback):
    """Times the test passes of `fit` as evaluation."""

    def on_test_begin(self, logs: dict | None = None) -> None:
        self._pass = timed("evaluation")
        self._pass.__enter__()

    def on_test_end(self, logs: dict | None = None) -> None:
        self._pass.__exit__(None, None, None)


def fit(
    model: keras.Model,
    feed: Feed | Iterable,
    settings: Descent,
    loss: Callable | keras.losses.Loss,
    metrics: list,
    history: History,
    test: Feed | Iterable | None = None,
    evaluate: Callable[[int], dict[str, float]] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, float]]:
    """Trains a model.

    Args:
        model: Takes the feed's images, or features.
        feed: Gives the training batches.
        settings: How to descend.
        loss: Takes a batch's labels and the model's outputs for it.
        metrics: Likewise.
        history: Keeps the records made of the logs.
        test: What `fit` evaluates on after each epoch.
        evaluate: Called after each epoch (counted from 0), in place of `test` or beside it; what
            it gives is added to the logs.
        callbacks: More of them.

    Returns:
        The history's records.
    """
    model.compile(
        optimizer=optimizers.build(
            settings.optimizer, settings.learning_rate, settings.momentum, settings.l2
        ),
        loss=loss,
        metrics=metrics,
    )

    def add_evaluation(epoch: int, logs: dict) -> None:
        if evaluate is not None:
            with timed("evaluation"):
                logs.update(evaluate(epoch))

    model.fit(
        feed,
        epochs=settings.epochs,
        shuffle=False,  # of whole batches
        validation_data=test,
        callbacks=[
            *([BeginEpoch(feed)] if isinstance(feed, Feed) else []),
            schedule.callback(settings),
            keras.callbacks.LambdaCallback(on_epoch_end=add_evaluation),
            _TimedTests(),
            *callbacks,
            history,
        ],
        verbose=0,
    )
    return history.records
