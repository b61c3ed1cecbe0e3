"""Training on batches that are drawn, not cut from an order: episodes, pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_cnn.data.sampling import Draw
from keras_cnn.recipe.settings import Descent
from keras_cnn.training import callbacks, optimizers
from keras_cnn.training.feed import Reshuffle, on_device


class DrawnFeed(keras.utils.PyDataset):
    """What `fit` takes batches from whose images and labels a function draws anew each epoch.

    Images stay on the device as they are, and a batch is one `index_select` there on torch.

    Args:
        images: (n, …): uint8 images, or features.
        draw: Takes the epoch, counted from 0, and gives each batch's indices into `images` and
            its labels; as many batches in every epoch.
    """

    def __init__(self, images: np.ndarray, draw: Callable[[int], Sequence[Draw]]) -> None:
        super().__init__()
        self._images = on_device(images)
        self._draw = draw
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draws an epoch's batches.

        Args:
            epoch: Counted from 0.
        """
        self._batches = [tuple(map(on_device, batch)) for batch in self._draw(epoch)]

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple:
        """Images (batch, …) and the batch's labels."""
        chosen, labels = self._batches[index]
        if keras.backend.backend() == "torch":
            return self._images.index_select(0, chosen), labels
        return self._images[chosen], labels


def fit(
    model: keras.Model,
    feed: DrawnFeed,
    settings: Descent,
    loss: Callable,
    metrics: list[keras.metrics.Metric],
    evaluate: Callable[[int], dict[str, float]],
    history: callbacks.History,
) -> list[dict[str, float]]:
    """Trains a model by a loss of whole batches.

    Args:
        model: Takes the feed's images.
        feed: Gives the training batches.
        settings: How to descend.
        loss: Takes a batch's labels and the model's outputs for it.
        metrics: Likewise.
        evaluate: Called after each epoch (counted from 0); what it gives is added to the logs.
        history: Keeps the records made of the logs.

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
    model.fit(
        feed,
        epochs=settings.epochs,
        shuffle=False,  # of whole batches
        callbacks=[
            Reshuffle(feed),
            callbacks.schedule(settings),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: logs.update(evaluate(epoch))
            ),
            history,
        ],
        verbose=0,
    )
    return history.records
