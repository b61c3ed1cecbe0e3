"""What methods share that learn to place images, and classify by the nearest class mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_cnn import torch_fast
from keras_cnn.data import Split
from keras_cnn.data.sampling import Draw
from keras_cnn.methods.settings import Descent
from keras_cnn.models import heads
from keras_cnn.training import descent, evaluation, frozen
from keras_cnn.training.feed import Feed
from keras_cnn.training.history import History

VERSION = 1  # raised when a change makes the same draws and losses give another result


class Embedding:
    """A network without its head, under training, and where it places images.

    Args:
        network: Raw images (n, h, w, 3) to logits (n, classes).
        train: Images (n, h, w, 3) uint8 and labels (n,), each class at least once.
        test: Likewise.
        size: Outputs of a new dense layer on the features; None embeds by the features alone.
        normalised: Bring embeddings to length 1.
        seed: Seeds the new layer.
    """

    def __init__(
        self,
        network: keras.Model,
        train: Split,
        test: Split,
        size: int | None,
        normalised: bool,
        seed: int,
    ) -> None:
        self._network, self._labels = network, train.labels
        self._embedder = heads.embedder(network, size, normalised, seed)
        model, train, test = frozen.skip_constant_part(self._embedder, train, test)
        self._model, self._train, self._test = torch_fast.fast(model), train.images, test.images
        self._embed = evaluation.evaluator(self._model)

    def of_train(self) -> np.ndarray:
        """Where the training images lie now, (n, channels)."""
        return self._embed(self._train)

    def of_test(self) -> np.ndarray:
        """Where the test images lie now, (n, channels)."""
        return self._embed(self._test)

    def class_means(self, of_train: np.ndarray) -> np.ndarray:
        """The mean of each class, (classes, channels), of the training images' embeddings."""
        return heads.class_means(of_train, self._labels, self._network.output.shape[-1])

    def fit(
        self,
        draw: Callable[[int], Sequence[Draw]],
        settings: Descent,
        loss: Callable,
        metrics: list[keras.metrics.Metric],
        history: History,
        evaluate: Callable[[int], dict[str, float]],
    ) -> list[dict[str, float]]:
        """Trains on batches of the training images; the arguments are those of `descent.fit`."""
        feed = Feed(draw, self._train)
        return descent.fit(self._model, feed, settings, loss, metrics, history, evaluate=evaluate)

    def classifier(self, distance: str) -> keras.Model:
        """The network, with the class means of the training images as its head."""
        means = self.class_means(self.of_train())
        logits = heads.prototype_logits(self._embedder.output, means, distance)
        return keras.Model(self._embedder.input, logits, name=self._network.name)
