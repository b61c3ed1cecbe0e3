"""Zip archives from anywhere, as `.keras` files are: bounded and plain, or refused in one line."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_cnn import files
from keras_cnn.errors import UserError

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
LARGEST_GROWTH = 20  # weights hardly shrink: what unpacks to more than this is no model
SPARE_BYTES = 1 << 24
# What `zipfile` raises for damaged members.
FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


@contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A `.keras` file, open to be read in the block; what is damaged there is told as here.

    Raises:
        UserError: There is no such file, or it is damaged, encrypted, packed in an unusual way or
            would unpack to far more than its size.
    """
    files.require(path, "; a finished run's model is <run folder>/model.keras")
    try:
        with zipfile.ZipFile(path) as archive:
            check(archive, path)
            yield archive
    except FAULTS:
        raise UserError(f"{path}: not a .keras file, or a damaged one") from None


def check(archive: zipfile.ZipFile, path: Path) -> None:
    """Looks at the members' entries alone.

    Raises:
        UserError: As `opened` does.
    """
    members = archive.infolist()
    for member in members:
        if member.flag_bits & 1:
            raise UserError(f"{path}: {member.filename} in it is encrypted: save it without")
        if member.compress_type not in METHODS:
            raise UserError(f"{path}: {member.filename} in it is packed by a method of its own")
    unpacked = sum(member.file_size for member in members)
    most = LARGEST_GROWTH * path.stat().st_size + SPARE_BYTES
    if unpacked > most:
        raise UserError(f"{path}: would unpack to {unpacked:,} bytes, the limit is {most:,}")


def read(archive: zipfile.ZipFile, name: str, most_bytes: int | None = None) -> bytes:
    """A member's content.

    Raises:
        UserError: It is larger than `most_bytes`.
    """
    if most_bytes is not None and (size := archive.getinfo(name).file_size) > most_bytes:
        raise UserError(
            f"{archive.filename}: {name} in it has {size:,} bytes, the limit is {most_bytes:,}"
        )
    return archive.read(name)
