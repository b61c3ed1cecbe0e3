"""Images reach the step whole and in a seeded order, from memory and from files."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_cnn.data import Split
from keras_cnn.methods.settings import Supervised
from keras_cnn.training import feed, feeding

IMAGES = np.random.default_rng(0).integers(0, 256, (21, 8, 8, 3)).astype("uint8")
LABELS = np.arange(21) % 4
TRAIN, TEST = Split(IMAGES, LABELS), Split(IMAGES[:9], LABELS[:9])


def collected(batches):
    """All images, labels and batch sizes of one pass."""
    given = (
        [batches[index] for index in range(len(batches))]
        if isinstance(batches, feed.Feed)
        else list(batches)
    )
    images = np.concatenate([keras.ops.convert_to_numpy(image) for image, _ in given])
    labels = np.concatenate([keras.ops.convert_to_numpy(label) for _, label in given])
    return images, labels, [len(label) for _, label in given]


def which(images):
    """The index of each image among `IMAGES`."""
    flat = IMAGES.reshape(len(IMAGES), -1)
    return [int(np.flatnonzero((flat == image.reshape(-1)).all(1))[0]) for image in images]


@pytest.mark.every_backend
def test_a_feed_gives_each_image_once_an_epoch_in_another_order_each():
    batches = feed.shuffled(TRAIN, 8, seed=5)
    orders = []
    for epoch in range(3):
        batches.begin_epoch(epoch)
        images, labels, sizes = collected(batches)
        assert images.dtype == np.uint8 and sizes == [8, 8, 5]
        order = which(images)
        assert sorted(order) == list(range(21))
        np.testing.assert_array_equal(labels, LABELS[order])
        expected = np.random.default_rng((5, epoch)).permutation(21)
        np.testing.assert_array_equal(order, expected)  # so it is the same on every backend
        orders.append(order)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_files_give_the_same_images_as_memory(workers):
    settings = Supervised(batch_size=8, feed="files", workers=workers, persistent_workers=True)
    with feeding.batches(settings, TRAIN, TEST, 4, seed=5) as (train, test, _):
        images, labels, sizes = collected(train)
        assert sizes == [8, 8, 5] and sorted(which(images)) == list(range(21))
        np.testing.assert_array_equal(labels, LABELS[which(images)])
        assert which(images) != sorted(which(images))
        images, _, sizes = collected(test)
        assert which(images) == list(range(9)) and sizes == [4, 4, 1]


def test_the_processor_time_of_workers_is_counted_and_none_of_this_process():
    """Two passes: workers that stay, and workers that are new in each."""
    for stay in (True, False):
        settings = Supervised(batch_size=8, feed="files", workers=2, persistent_workers=stay)
        with feeding.batches(settings, TRAIN, TEST, 4, seed=5) as (train, _, measures):
            seconds = [0.0]
            for _ in range(2):
                list(train)
                seconds.append(measures()["worker_seconds"])
        assert 0 == seconds[0] < seconds[1] < seconds[2]
    alone = Supervised(batch_size=8, feed="files")
    with feeding.batches(alone, TRAIN, TEST, 4, seed=5) as (train, _, measures):
        list(train)
        assert measures() == {"worker_seconds": 0}
    with feeding.batches(Supervised(batch_size=8), TRAIN, TEST, 4, seed=5) as (*_, measures):
        assert measures() == {}


def test_drop_last_leaves_out_the_smaller_batch_of_training_only():
    settings = Supervised(batch_size=8, feed="files", drop_last=True)
    with feeding.batches(settings, TRAIN, TEST, 4, seed=5) as (train, test, _):
        assert collected(train)[2] == [8, 8]
        assert collected(test)[2] == [4, 4, 1]


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from keras_cnn.data import Split
from keras_cnn.methods.settings import Feeding
from keras_cnn.training import loader

if __name__ == "__main__":
    split = Split(np.zeros((8, 8, 8, 3), np.uint8), np.zeros(8, np.int64))
    files = loader.ImageFiles.written(split, Path(sys.argv[1]))
    batches = loader.batches(files, 2, Feeding(workers=2, persistent_workers=True))
    iterator = iter(batches)
    next(iterator)
    print(*(worker.pid for worker in iterator._workers), flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks at processes in /proc")
def test_workers_go_when_the_process_that_trains_is_killed(tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    with (tmp_path / "told").open("w+") as told:  # a pipe would be held open by what is left
        subprocess.run([sys.executable, str(script), str(tmp_path / "images")], stdout=told)
        told.seek(0)
        workers = [Path("/proc") / pid for pid in told.read().split()]
    assert len(workers) == 2
    patience = time.monotonic() + 30
    while any(worker.exists() for worker in workers) and time.monotonic() < patience:
        time.sleep(0.1)
    assert not any(worker.exists() for worker in workers)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="others take NumPy's arrays")
def test_images_stay_where_they_lie_and_are_copied_where_nobody_may_write(recwarn):
    images = IMAGES.copy()
    held = feed.on_device(images)
    if held.device.type == "cpu":
        assert held.data_ptr() == images.ctypes.data
    images.flags.writeable = False
    copied = feed.on_device(images)
    assert copied.data_ptr() != images.ctypes.data
    assert (held == copied).all() and held.dtype == copied.dtype
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]
