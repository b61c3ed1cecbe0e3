"""Files that are whole or not there, whatever happens while they are written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_cnn.errors import UserError


def check_writable(folder: Path) -> None:
    """Makes a folder where there is none, and a file in it for a moment.

    Raises:
        UserError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: results cannot be written there ({error.strerror})") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write; on leaving without an error it becomes `path`, old or new for any reader.

    Yields:
        A path beside it that no other process writes to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file as a whole."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Brings a file or a folder's entries to the disk (folders cannot be synced on Windows)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
