"""HDF5 files from anywhere: plain arrays that lie in the file itself, or refused in one line.

HDF5 lets a dataset lie in other files (external storage, external links, virtual datasets), and
declares sizes that nothing in the file has to stand for: both are found out before a value is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from keras_cnn.errors import UserError

MOST_OBJECTS = 100_000
DEEPEST = 50
# What h5py raises for damaged content.
FAULTS = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, OverflowError)


@contextmanager
def opened(content: BinaryIO, path: Path) -> Iterator[h5py.File]:
    """A file of plain arrays, to be read in the block; what is damaged there is told as here.

    Args:
        content: The file, open; so no lock is needed, which some file systems have not.
        path: Where it lies, for the error's line.

    Raises:
        UserError: It is no HDF5, is damaged, or holds anything but groups and plain arrays.
    """
    try:
        with h5py.File(content, "r") as file:
            for count, (name, array) in enumerate(_objects(file, path)):
                if count > MOST_OBJECTS:
                    raise UserError(f"{path}: more than {MOST_OBJECTS:,} objects: no Keras file")
                if isinstance(array, h5py.Dataset) and (fault := _fault(array)):
                    raise UserError(f"{path}: {name} in it {fault}: not used")
            yield file
    except FAULTS:
        raise UserError(f"{path}: not a Keras file, or a damaged one") from None


def size(file: h5py.File) -> int:
    """How many values its arrays hold."""
    sizes: list[int] = []
    file.visititems(lambda _, each: sizes.append(getattr(each, "size", 0)))
    return sum(sizes)


def read(array: h5py.Dataset) -> np.ndarray:
    """An array's values; bfloat16, which Keras writes as two bytes each, as float32."""
    values = array[()]
    if not _is_bfloat16(array):
        return values
    return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)


def _is_bfloat16(array: h5py.Dataset) -> bool:
    return array.dtype == np.dtype("V2") and array.attrs.get("dtype") == "bfloat16"


def _objects(
    group: h5py.Group, path: Path, depth: int = 0
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Groups and datasets inside a group, at any depth; no link is followed out of the file."""
    if depth > DEEPEST:
        raise UserError(f"{path}: groups {DEEPEST} deep: no Keras file")
    for name in group:
        where = f"{group.name.rstrip('/')}/{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise UserError(f"{path}: {where} in it is a link to elsewhere: not used")
        inside = group[name]
        yield where, inside
        if isinstance(inside, h5py.Group):
            yield from _objects(inside, path, depth + 1)


def _fault(array: h5py.Dataset) -> str:
    """Why a dataset is not a plain array of numbers in the file itself; empty if it is one."""
    layout = array.id.get_create_plist()
    if array.is_virtual or layout.get_external_count():
        return "lies in other files"
    if array.dtype.kind not in "fiub" and not _is_bfloat16(array):
        return "holds no real numbers"
    if layout.get_nfilters():
        return "is compressed"
    if array.shape is None or array.id.get_storage_size() < array.nbytes:
        return "is declared larger than what the file holds"
    return ""
