"""How images reach the training step: from memory, or from files as the deck did."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from keras_cnn.data import Split
from keras_cnn.errors import UserError
from keras_cnn.methods.settings import Feeding
from keras_cnn.training import feed
from keras_cnn.training.feed import Redraw


class Batches(NamedTuple):
    """What a run is fed.

    Attributes:
        train: What `fit` trains on.
        test: What it is tested on.
        measures: Gives what the run measures of them when it is done.
    """

    train: object
    test: object
    measures: Callable[[], dict[str, float]]


@contextmanager
def batches(
    feeding: Feeding,
    train: Split,
    test: Split,
    batch_size: int,
    test_batch_size: int,
    seed: int,
    redraw: Redraw | None = None,
) -> Iterator[Batches]:
    """What `fit` trains on and is tested on while the context lasts.

    Args:
        feeding: From where, and how.
        train: Images uint8, or features, and labels: integers, or shares of classes.
        test: Likewise.
        batch_size: Images of a training batch.
        test_batch_size: Images of a test batch.
        seed: Seeds the order of the training images, drawn anew each epoch.
        redraw: Gives the training images of each epoch in place of `train`; from memory only.

    Raises:
        UserError: Dropping the last batch would leave none, or files would have to be redrawn.

    Yields:
        What `fit` takes.
    """
    if feeding.feed == "memory":
        train_batches = (
            feed.redrawn(redraw, batch_size, seed)
            if redraw
            else feed.shuffled(train, batch_size, seed)
        )
        yield Batches(train_batches, feed.in_order(test, test_batch_size), dict)
        return
    if redraw is not None:
        raise UserError("feed is 'files': images that change are fed from memory (feed memory)")
    if feeding.drop_last and len(train.labels) < batch_size:
        raise UserError(
            f"drop_last leaves no batch: {len(train.labels)} training images, batch_size is "
            f"{batch_size}"
        )
    # The data's own files may be of any size and format: PNG of the images in use, as in the deck.
    with tempfile.TemporaryDirectory(prefix="keras_cnn-") as folder:
        trained = _loader(feeding, train, Path(folder) / "train", batch_size, seed)
        tested = _loader(feeding, test, Path(folder) / "test", test_batch_size, None)
        files = (trained.dataset, tested.dataset)
        yield Batches(
            trained, tested, lambda: {"worker_seconds": sum(each.worker_seconds for each in files)}
        )


def _loader(
    feeding: Feeding, split: Split, folder: Path, batch_size: int, seed: int | None
) -> Iterable:
    """A DataLoader of a split's images as files; shuffled, for training, where there is a seed."""
    from keras_cnn.training import loader  # imports torch, on every backend

    paths = loader.write_png(split.images, folder)
    return loader.batches(
        loader.ImageFiles(paths, split.labels, split.images.shape[1]),
        batch_size,
        seed=seed,
        workers=feeding.workers,
        pin_memory=feeding.pin_memory,
        persistent_workers=feeding.persistent_workers,
        prefetch_batches=feeding.prefetch_batches,
        drop_last=feeding.drop_last and seed is not None,
    )
