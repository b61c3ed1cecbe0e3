"""Where results go, and where fetched files and decoded data are kept on this machine."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from keras_cnn.files import is_shared, locked

DEFAULT_OUT = Path("artifacts")

CACHES = {  # made anew
    "decoded": "decoded images",
    "features": "features of frozen networks",
    "tuned": "fine-tuned stages",
}
KEPT = {**CACHES, "checkpoints": "states of stopped runs", "": "fetched data and weights"}


def home() -> Path:
    """The folder for downloads, fetched weights and the states of stopped runs.

    Returns:
        `$KERAS_CNN_HOME` where it is set, else `~/.cache/keras_cnn`. It may not exist yet.
    """
    return Path(os.environ.get("KERAS_CNN_HOME") or "~/.cache/keras_cnn").expanduser()


def scratch() -> Path:
    """The folder for what is made anew when it is needed: decoded images, features.

    Returns:
        `$KERAS_CNN_SCRATCH` where it is set, else `home()`; where that is on a disk shared by
        network, a folder of this machine's own, for a node of a cluster reads it over and over.
    """
    if given := os.environ.get("KERAS_CNN_SCRATCH"):
        return Path(given).expanduser()
    if not is_shared(home()):
        return home()
    own = Path(tempfile.gettempdir()) / f"keras_cnn-{os.getuid()}"
    with contextlib.suppress(OSError):
        own.mkdir(mode=0o700, exist_ok=True)
        if own.stat().st_uid == os.getuid():  # in a place that is everybody's
            return own
    return home()


def usage() -> dict[str, tuple[int, int]]:
    """How many files of each kind of `KEPT` there are, and their bytes, by the kind's words."""
    used = dict.fromkeys(KEPT.values(), (0, 0))
    found = [(folder, path) for folder in {home(), scratch()} for path in _files(folder)]
    for folder, path in found:
        kind = KEPT.get(path.relative_to(folder).parts[0], KEPT[""])
        files, size = used[kind]
        used[kind] = files + 1, size + path.lstat().st_size
    return used


def clear() -> tuple[int, int]:
    """Removes what is made anew when it is needed; gives how many files and bytes.

    Raises:
        OSError: A file cannot be removed.
    """
    files = [path for folder in CACHES for path in _files(scratch() / folder)]
    size = sum(path.lstat().st_size for path in files)
    for path in files:
        path.unlink(missing_ok=True)
    for lock in [lock for folder in CACHES for lock in (scratch() / folder).glob("*.lock")]:
        with contextlib.suppress(TimeoutError), locked(lock, wait=False):
            lock.unlink()
    return len(files), size


def _files(folder: Path) -> list[Path]:
    """All files but those that a process is writing, or that lock others out of it."""
    return [
        path
        for path in folder.rglob("*")
        if not path.is_dir() and path.suffix not in (".lock", ".partial")
    ]
