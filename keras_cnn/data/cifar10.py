"""CIFAR-10 as its authors publish it: pickled batches, read without running anything in them.

Format: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np

from keras_cnn.data.listing import Listing, Source, files_key
from keras_cnn.errors import UserError

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
FETCH = "run `python -m keras_cnn fetch cifar10`"


def source(folder: Path) -> Source:
    """The 50,000 training and 10,000 test images.

    Args:
        folder: Holds `cifar-10-batches-py`.

    Raises:
        UserError: On listing a split, when one of its files is missing.
    """
    folder = folder / "cifar-10-batches-py"
    return Source(CLASS_NAMES, {split: partial(_list_split, folder, split) for split in BATCHES})


def _list_split(folder: Path, split: str) -> Listing:
    paths = [folder.resolve() / name for name in BATCHES[split]]
    return Listing(files_key(paths, FETCH), partial(_read, paths))


def _read(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    batches = [read_batch(path) for path in paths]
    return np.concatenate([b[0] for b in batches]), np.concatenate([b[1] for b in batches])


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads one batch file.

    Args:
        path: A pickle of `{b"data": uint8 (n, 3072), b"labels": list of n ints, …}`; each row of
            data holds a 32x32 plane of red, then of green, then of blue.

    Returns:
        Images, uint8 (n, 32, 32, 3), and labels, int64 (n,).

    Raises:
        UserError: The file is damaged, or holds anything but arrays, numbers and text.
    """
    try:
        with path.open("rb") as file:
            batch = _Unpickler(file, encoding="bytes").load()
        (rows, columns), fortran, raw = batch[b"data"].layout
        order = "F" if fortran else "C"
        planes = np.frombuffer(raw, np.uint8).reshape(rows, columns, order=order)
        # (n, c * h * w) to (n, h, w, c)
        images = planes.reshape(rows, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.array(batch[b"labels"], np.int64).reshape(rows)
        if not ((labels >= 0) & (labels < len(CLASS_NAMES))).all():
            raise ValueError("a label is not from 0 to 9")
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UserError(
            f"{path} is not a CIFAR-10 batch ({error}): remove {path.parent} and {FETCH}"
        ) from None
    return images, labels


class _Array:
    """Stands in for numpy.ndarray while unpickling: keeps what the pickle says of an array."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, _, fortran, raw = state
        self.layout = (shape, fortran, raw)


class _Dtype:
    """Stands in for numpy.dtype, of which the format has only uint8."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        pass


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes into a pickle of protocol 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"unexpected encoding {encoding!r}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Builds numbers, text, lists, dicts and `_Array`; any other class or function is refused."""

    harmless = {  # noqa: RUF012
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> object:
        try:
            return self.harmless[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None
