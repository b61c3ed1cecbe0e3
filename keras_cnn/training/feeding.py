"""How images reach the training step: from memory, or from files as the deck did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from keras_cnn import files
from keras_cnn.data import Split
from keras_cnn.methods.settings import Supervised
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
    settings: Supervised,
    train: Split,
    test: Split,
    test_batch_size: int,
    seed: int,
    redraw: Redraw | None = None,
) -> Iterator[Batches]:
    """What `fit` trains on and is tested on while the context lasts.

    Args:
        settings: From where, how, and how many images a training batch has.
        train: Images uint8, or features, and labels: integers, or shares of classes.
        test: Likewise.
        test_batch_size: Images of a test batch.
        seed: Seeds the order of the training images, drawn anew each epoch.
        redraw: Gives the training images of each epoch in place of `train`, from memory alone.

    Yields:
        What `fit` takes.
    """
    size = settings.batch_size
    if settings.feed == "memory":
        trained = feed.shuffled(redraw or train, size, seed)
        yield Batches(trained, feed.in_order(test, test_batch_size), dict)
        return
    from keras_cnn.training import loader  # imports torch, on every backend

    # The data's own files may be of any size and format: PNG of the images in use, as in the deck.
    with files.temporary_folder() as folder:
        read = [
            loader.ImageFiles.written(split, Path(folder, name))
            for name, split in (("train", train), ("test", test))
        ]
        yield Batches(
            loader.batches(read[0], size, settings, seed),
            loader.batches(read[1], test_batch_size, settings),
            lambda: {"worker_seconds": sum(each.worker_seconds for each in read)},
        )
