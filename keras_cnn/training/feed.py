"""Batches cut from images that are held whole on the device, drawn anew each epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import keras
import numpy as np

from keras_cnn.data import Split
from keras_cnn.data.sampling import Draw

Redraw = Callable[[int], Split]  # from an epoch, counted from 0, to its images and labels


class Feed(keras.utils.PyDataset):
    """What `fit`, `evaluate` and `predict` take batches from: images stay as they are held.

    On torch the images are one tensor on the device and a batch is one `index_select`. A feed
    whose batches change from epoch to epoch goes to `fit` with its `Redraw` callback and with
    `shuffle=False`, which else shuffles whole batches.

    Args:
        draw: Takes the epoch, counted from 0, and gives each batch's indices into the images and
            its labels; as many batches in every epoch.
        images: (n, …), uint8 images or features; or a function from the epoch to them.
    """

    def __init__(
        self,
        draw: Callable[[int], Sequence[Draw]],
        images: np.ndarray | Callable[[int], np.ndarray],
    ) -> None:
        super().__init__()
        self._draw = draw
        self._images_of = images if callable(images) else None
        self._images = None if callable(images) else on_device(images)
        self._epoch: int | None = None
        self.begin_epoch(0)

    def begin_epoch(self, epoch: int) -> None:
        """Draws an epoch's images and batches: the same for the same epoch, on every backend.

        Args:
            epoch: Counted from 0.
        """
        if epoch == self._epoch:
            return
        self._epoch = epoch
        if self._images_of is not None:
            self._images = on_device(self._images_of(epoch))
        self._batches = _on_device_together(self._draw(epoch))

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self._batches)

    def __getitem__(self, index: int) -> tuple:
        """Images (batch, …) as they are held, and the batch's labels."""
        chosen, labels = self._batches[index]
        if keras.backend.backend() == "torch":
            return self._images.index_select(0, chosen), labels
        return self._images[chosen], labels


class BeginEpoch(keras.callbacks.Callback):
    """Draws a feed's images and batches as each epoch begins.

    Args:
        feed: What `fit` trains on.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Draws them."""
        self._feed.begin_epoch(epoch)


def in_order(split: Split, batch_size: int) -> Feed:
    """A feed of images as they stand, the last batch what is left.

    Args:
        split: Images or features (n, …), and labels (n,) or the classes' shares (n, classes).
        batch_size: Images a batch.
    """
    labels = _labels(split.labels)
    order = np.arange(len(labels))
    return Feed(lambda epoch: _cut(order, labels, batch_size), split.images)


def shuffled(split: Split | Redraw, batch_size: int, seed: int) -> Feed:
    """A feed of images in an order drawn anew each epoch, the last batch what is left.

    Args:
        split: As for `in_order`; or a function from the epoch to it, with as many images each time.
        batch_size: Images a batch.
        seed: Seeds the order.
    """
    # The images of an epoch are asked for first, then their labels.
    drawn = lru_cache(maxsize=1)(split) if callable(split) else lambda epoch: split

    def draw(epoch: int) -> list[Draw]:
        labels = _labels(drawn(epoch).labels)
        order = np.random.default_rng((seed, epoch)).permutation(len(labels))
        return _cut(order, labels, batch_size)

    return Feed(draw, (lambda epoch: drawn(epoch).images) if callable(split) else split.images)


def on_device(array: np.ndarray) -> object:
    """An array where batches are cut from it without a detour: on torch a tensor on the device.

    On a processor the tensor is the array's own memory: images that are mapped from a file stay
    there, and runs side by side share them.
    """
    if keras.backend.backend() != "torch":
        return array  # TensorFlow and JAX take NumPy's batches without a detour
    import torch

    array = np.ascontiguousarray(array)
    if array.flags.writeable:  # torch warns of others
        array = torch.as_tensor(array, device="cpu")
    return keras.ops.convert_to_tensor(array)  # which would copy an array


def _on_device_together(batches: Sequence[Draw]) -> list[tuple]:
    """An epoch's indices and labels, moved at once: a GPU would be waited for at each copy."""
    if keras.backend.backend() != "torch":
        return list(batches)
    parts = []
    for arrays in zip(*batches, strict=True):
        whole = on_device(np.concatenate(arrays))
        parts.append(whole.split([len(array) for array in arrays]))
    return list(zip(*parts, strict=True))


def _cut(order: np.ndarray, labels: np.ndarray, batch_size: int) -> list[Draw]:
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [(part, labels[part]) for part in parts]


def _labels(labels: np.ndarray) -> np.ndarray:
    return np.asarray(labels, np.int64 if labels.ndim == 1 else np.float32)
