"""CIFAR-10's pickles: read as they are published, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from keras_cnn import data
from keras_cnn.data import cifar10
from keras_cnn.errors import UserError

COUNT = 12
RNG = np.random.default_rng(0)
ROWS = RNG.integers(0, 256, (COUNT, 3072), np.uint8)
LABELS = [number % 10 for number in range(COUNT)]


def as_published(rows: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 wrote it, opcode by opcode (protocol 2, byte strings)."""

    def text(raw: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(raw)) + raw

    def integer(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\x00K\x01tR"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + integer(-1) + integer(-1) + b"K\x00tb"
    shape = b"(" + integer(rows.shape[0]) + integer(rows.shape[1]) + b"t"
    array = empty + b"(K\x01" + shape + dtype + b"\x89" + text(rows.tobytes()) + b"tb"
    listed = b"](" + b"".join(integer(label) for label in labels) + b"e"
    named = text(b"batch_label") + text(b"training batch 1 of 5")
    entries = text(b"data") + array + text(b"labels") + listed + named
    return b"\x80\x02}(" + entries + b"u."


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def check(images: np.ndarray, labels: np.ndarray) -> None:
    assert labels.dtype == np.int64
    assert labels.tolist() == LABELS
    assert images.shape == (COUNT, 32, 32, 3)
    assert images.dtype == np.uint8
    # A row is 1,024 red, then green, then blue, row by row of the image.
    for image, y, x, channel in RNG.integers(0, (COUNT, 32, 32, 3), (200, 4)):
        assert images[image, y, x, channel] == ROWS[image, 1024 * channel + 32 * y + x]


def test_a_batch_as_published(tmp_path):
    check(*cifar10.read_batch(written(tmp_path / "batch", as_published(ROWS, LABELS))))


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_batch_pickled_by_python_3(tmp_path, protocol, order):
    batch = {b"data": np.asarray(ROWS, order=order), b"labels": LABELS}
    check(*cifar10.read_batch(written(tmp_path / "batch", pickle.dumps(batch, protocol))))


class Calls:
    """Pickles to a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("place", ["whole", "data", "labels", "aside"])
def test_a_malicious_pickle_runs_nothing(tmp_path, protocol, place):
    trap = Calls(os.mkdir, str(tmp_path / "trapped"))
    batch = {b"data": ROWS, b"labels": LABELS, b"data" if place == "data" else b"aside": 0}
    if place != "whole":
        batch[place.encode()] = trap
    content = pickle.dumps(trap if place == "whole" else batch, protocol)
    path = written(tmp_path / "batch", content)
    with pytest.raises(UserError, match="not a CIFAR-10 batch"):
        cifar10.read_batch(path)
    assert not (tmp_path / "trapped").exists()
    pickle.loads(content)  # the trap does work
    assert (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    "stranger",
    [
        Calls(eval, "1"),
        Calls(getattr, "", "join"),
        Calls(np.frombuffer, b"12", "u1"),
        Calls(__import__("_codecs").decode, b"x", "zip"),
        Calls(__import__("_codecs").encode, "x", "idna"),
        Path("x"),
    ],
)
def test_whatever_is_not_needed_is_refused(tmp_path, stranger):
    content = pickle.dumps({b"data": ROWS, b"labels": LABELS, b"aside": stranger}, 2)
    with pytest.raises(UserError, match="not a CIFAR-10 batch"):
        cifar10.read_batch(written(tmp_path / "batch", content))


WHOLE = as_published(ROWS, LABELS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        WHOLE[: len(WHOLE) // 2],
        WHOLE[:-1],
        as_published(ROWS[:, :-1], LABELS),
        as_published(ROWS, LABELS[:-1]),
        as_published(ROWS, [10, *LABELS[1:]]),
        as_published(ROWS, [-1, *LABELS[1:]]),
        pickle.dumps({b"data": ROWS}, 2),
        pickle.dumps([ROWS, LABELS], 2),
        pickle.dumps({b"data": ROWS.astype(np.float32), b"labels": LABELS}, 2),
    ],
    ids=range(11),
)
def test_a_damaged_batch_is_one_clear_line(tmp_path, content):
    with pytest.raises(UserError, match="fetch cifar10") as caught:
        cifar10.read_batch(written(tmp_path / "batch", content))
    assert "\n" not in str(caught.value)


def test_the_source(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path))
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    with pytest.raises(UserError, match="fetch cifar10"):
        data.load("cifar10")
    folder.mkdir(parents=True)
    names = [f"data_batch_{number}" for number in (1, 2, 3, 4, 5)] + ["test_batch"]
    rows = RNG.integers(0, 256, (6, 4, 3072), np.uint8)
    for index, name in enumerate(names):
        written(folder / name, as_published(rows[index], [index, index, 9, 8]))
    dataset = data.load("cifar10")
    assert dataset.class_names[3] == "cat"
    assert len(dataset.class_names) == 10
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert train.labels.tolist() == [label for i in range(5) for label in (i, i, 9, 8)]
    assert test.labels.tolist() == [5, 5, 9, 8]
    for images, stored in ((train.images, rows[:5]), (test.images, rows[5:])):
        planes = images.transpose(0, 3, 1, 2)  # (n, h, w, c) to (n, c, h, w)
        np.testing.assert_array_equal(planes.reshape(-1, 3072), stored.reshape(-1, 3072))
    (folder / "data_batch_3").unlink()
    with pytest.raises(UserError, match=r"data_batch_3 is missing: .*fetch cifar10"):
        data.load("cifar10")
