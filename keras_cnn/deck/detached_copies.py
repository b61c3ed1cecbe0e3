"""The inner loop of the deck's MAML, from which nothing reaches the weights to be learnt."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_cnn.data import Split
from keras_cnn.recipe.settings import Maml
from keras_cnn.training import optimizers
from keras_cnn.training.feed import Feed


class DetachedCopies:
    """Trains a copy on each batch, tests it on the same images and throws it away.

    Args:
        model: Images or features to logits; it is the same before and after.
        settings: How.
        train: Images or features, and labels.
        seed: Seeds the order of the images.
    """

    def __init__(self, model: keras.Model, settings: Maml, train: Split, seed: int) -> None:
        self._model, self._steps = model, settings.inner_steps
        self._feed = Feed(train.images, train.labels, settings.batch_size, seed)
        model.compile(
            optimizer=optimizers.build("adam", settings.copy_learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.optimizer.build(model.trainable_variables)

    def learn(self, epoch: int, learning_rate: float) -> tuple[float, float]:
        """Mean loss and accuracy of the copies, over the batches; the rate reaches no weight."""
        variables = [*self._model.variables, *self._model.optimizer.variables]
        before = [np.array(ops.convert_to_numpy(variable)) for variable in variables]
        self._feed.begin_epoch(epoch)
        figures = []
        for index in range(len(self._feed)):
            images, labels = self._feed[index]
            # A step's figures are those before it: the one after the last tests the copy.
            logs = self._model.fit(
                images,
                labels,
                batch_size=len(labels),
                epochs=self._steps + 1,
                shuffle=False,
                verbose=0,
            ).history
            figures.append((logs["loss"][-1], logs["accuracy"][-1]))
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)
        return tuple(np.mean(figures, axis=0))
