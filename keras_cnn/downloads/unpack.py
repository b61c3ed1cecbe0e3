"""Archives to folders: whole, within the folder and of bounded size, or not at all."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from keras_cnn import files
from keras_cnn.errors import UserError

MOST_BYTES = 10_000_000_000  # unpacked
MOST_MEMBERS = 1_000_000

# What the readers raise on files that are no archives, damaged ones, and those with a password.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


Member = TypeVar("Member")


def unpack(archive: Path, target: Path, report: Callable[[int], None]) -> None:
    """Unpacks a tar or zip archive into a folder beside the target, which then takes its name.

    Args:
        archive: A zip archive where its name says so, else a tar archive.
        target: A folder that is not there yet.
        report: Called with the archive's bytes that are unpacked.

    Raises:
        UserError: It is damaged, or an entry would land outside; nothing is unpacked.
    """
    partial = files.partial_path(target)
    try:
        with archive.open("rb") as file:
            (_unzip if ".zip" in archive.suffixes else _untar)(file, partial, report)
        if hasattr(os, "sync"):
            os.sync()  # once, not an fsync for each of 270,000 images
        os.rename(partial, target)
    except tarfile.FilterError as error:
        raise UserError(
            f"{archive}: refused, nothing was unpacked: the archive's entry "
            f"{error.tarinfo.name!r} leads out of its folder or is no ordinary file"
        ) from None
    except DAMAGE as error:
        raise UserError(
            f"{archive}: not a whole archive ({error}): delete it, fetch again"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unzip(file: BinaryIO, folder: Path, report: Callable[[int], None]) -> None:
    """`zipfile` keeps names that lead out of the folder inside, and stops at the sizes stated."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for member in _bounded(members, lambda member: member.file_size):
            archive.extract(member, folder)
            report(member.header_offset)


def _untar(file: BinaryIO, folder: Path, report: Callable[[int], None]) -> None:
    def watched(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        for member in _bounded(archive, lambda member: member.size):
            yield member
            report(file.tell())

    with tarfile.open(fileobj=file) as archive:
        archive.extractall(folder, members=watched(archive), filter="data")


def _bounded(members: Iterable[Member], size: Callable[[Member], int]) -> Iterator[Member]:
    """The members, as long as they are no more and no larger than any data set of ours."""
    unpacked = 0
    for number, member in enumerate(members):
        unpacked += size(member)
        if number >= MOST_MEMBERS or unpacked > MOST_BYTES:
            raise ValueError(f"over {MOST_BYTES:,} bytes or {MOST_MEMBERS:,} files are in it")
        yield member
