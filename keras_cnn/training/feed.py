"""Batches from images held whole on the device, in an order drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from keras_cnn.data import Split

Redraw = Callable[[int], Split]  # from an epoch, counted from 0, to its images and labels


class Feed(keras.utils.PyDataset):
    """What `fit`, `evaluate` and `predict` take batches from: images stay as they are held.

    On torch the images are one tensor on the device and a batch is one `index_select`.

    Args:
        images: (n, h, w, 3) uint8, or features (n, …) float32.
        labels: (n,) integers, or the classes' shares (n, classes).
        batch_size: Images a batch; the last batch has what is left.
        seed: Seeds the order in which images come; None leaves them as they are. Give a shuffled
            feed's `Reshuffle` to `fit`, and `shuffle=False`, which else shuffles whole batches.
        redraw: Gives the images of each epoch, as many, in place of those above.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
        seed: int | None = None,
        redraw: Redraw | None = None,
    ) -> None:
        super().__init__()
        self._image_count = len(labels)
        self._batch_size = batch_size
        self._seed = seed
        self._redraw = redraw
        self._epoch: int | None = None
        if redraw is None:
            self._hold(images, labels)
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draws an epoch's order, and its images: the same for the same seed, on every backend.

        Args:
            epoch: Counted from 0.
        """
        if epoch == self._epoch:
            return
        self._epoch = epoch
        if self._redraw is not None:
            drawn = self._redraw(epoch)
            self._hold(drawn.images, drawn.labels)
        order = np.arange(self._image_count)
        if self._seed is not None:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._image_count)
        self._order = on_device(order)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-self._image_count // self._batch_size)

    def __getitem__(self, index: int) -> tuple:
        """Images (batch, …) as they are held; labels (batch,) int64 or (batch, classes) float32."""
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        if keras.backend.backend() == "torch":
            return self._images.index_select(0, chosen), self._labels.index_select(0, chosen)
        return self._images[chosen], self._labels[chosen]

    def _hold(self, images: np.ndarray, labels: np.ndarray) -> None:
        self._images = on_device(images)
        self._labels = on_device(np.asarray(labels, np.int64 if labels.ndim == 1 else np.float32))


class Reshuffle(keras.callbacks.Callback):
    """Draws a feed's order, and its images, as each epoch begins.

    Args:
        feed: What `fit` trains on.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Draws them."""
        self._feed.begin_epoch(epoch)


def on_device(array: np.ndarray) -> object:
    """An array where batches are cut from it without a detour: on torch a tensor on the device."""
    if keras.backend.backend() != "torch":
        return array  # TensorFlow and JAX take NumPy's batches without a detour
    return keras.ops.convert_to_tensor(np.ascontiguousarray(array))
