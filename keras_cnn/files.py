"""Whole reads, atomic writes, strict JSON, checksums, and locks among processes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import platform
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from keras_cnn.errors import UserError, printable

MOUNTS = "/proc/self/mountinfo"
SHARED = {  # kinds of disks, as Linux calls them
    *("nfs", "nfs4", "cifs", "smb3", "afs", "ceph", "lustre", "gpfs", "beegfs", "pvfs2", "gfs2"),
    *("ocfs2", "panfs", "wekafs", "glusterfs", "orangefs"),
}


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
        why = "a file is there" if isinstance(error, FileExistsError) else error.strerror
        raise UserError(f"{folder}: results cannot be written there ({why})") from None


def unwritable(folder: Path) -> str:
    """Why a folder cannot be written to, or made, as far as it shows; empty where nothing does."""
    folder = folder.absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        return f"{folder}: results cannot be written there ({there} is a file)"
    is_ours = os.access(there, os.W_OK | os.X_OK)
    return "" if is_ours else f"{folder}: results cannot be written there (permission denied)"


def require(path: Path, hint: str = "") -> None:
    """Refuses what is no file.

    Args:
        path: Where it should be.
        hint: Ends the line where there is nothing.

    Raises:
        UserError: It is not there, is an address, a folder, or something else that is no file.
    """
    if os.path.isfile(path):
        return
    if address := re.match(r"(\w\w+):/+(.*)", str(path)):
        given = f"{address[1]}://{address[2]}"  # one of its slashes is lost to `Path`
        raise UserError(f"{given} is an address: download it, and give the file")
    is_there = ", but a folder" if os.path.isdir(path) else ", but a pipe or device"
    raise UserError(f"{path}: no such file{is_there if os.path.exists(path) else ''}{hint}")


def is_there(path: Path) -> bool:
    """Whether a path is there, also where another machine has just made it.

    On a disk that is shared by network an answer of `no` may be an old one; listing the folder asks
    anew.
    """
    if path.exists():
        return True
    try:
        return path.name in os.listdir(path.parent)
    except OSError:
        return False


def is_shared(path: Path) -> bool:
    """Whether a path is on a disk that other machines share by network, as far as Linux tells."""
    try:
        mounts = Path(MOUNTS).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    there, kind = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(re.sub(r"\\(\d{3})", lambda one: chr(int(one[1], 8)), before.split()[4]))
        if Path(os.path.realpath(path)).is_relative_to(point) and len(point.parts) >= there:
            there, kind = len(point.parts), after.split()[0]  # a later one covers an earlier
    return kind in SHARED or kind.startswith("fuse.")


@contextmanager
def locked(path: Path, say: str = "", wait: bool = True) -> Iterator[None]:
    """Holds a lock among processes; the operating system frees it however the process ends.

    On a file system that has no locks, as some of networks, nothing is held and one line says so.

    Args:
        path: The lock's own file, which stays; its folder is made where there is none.
        say: A line for standard error, once, when another process has to be waited for.
        wait: Wait for another process that holds it.

    Raises:
        filelock.Timeout: Another process holds it, and `wait` is False.
    """
    from filelock import FileLock, Timeout  # here: it takes as long as all else to import

    path.parent.mkdir(parents=True, exist_ok=True)
    if not _has_locks(path.parent):
        yield
        return
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise
        if say:
            print(say, file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@cache
def _has_locks(folder: Path) -> bool:
    """Whether files of a folder can be locked; tells it once where they cannot."""
    try:
        import fcntl
    except ImportError:  # Windows, whose locks are of another kind
        return True
    with tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
            line = f"keras_cnn: {printable(str(folder))}: no locks there: run one command at a time"
            print(line, file=sys.stderr, flush=True)
            return False
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write that takes the place of `path` at once, when the block ends without an error.

    What killed processes left in the folder is removed before.

    Args:
        path: The file; its folder is made where there is none.

    Yields:
        A path in the same folder, for this process alone.

    Example:
        with files.replacing(path) as partial:
            partial.write_bytes(content)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_path(path)
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Where this process alone writes a file or a folder that then takes the name `path`.

    What killed processes left beside it is removed.
    """
    for left in path.parent.glob(".*.partial"):
        if _is_of_dead_process(left):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}@{platform.node()}.partial")


def temporary_folder() -> tempfile.TemporaryDirectory:
    """A folder that goes when it is cleaned up, or this process ends.

    What killed processes left beside it is removed before.
    """
    for left in Path(tempfile.gettempdir()).glob("kc-*@*"):
        if _is_of_dead_process(left):
            shutil.rmtree(left, ignore_errors=True)
    # A short name: a process with this folder makes sockets in it, whose paths end at 104 bytes.
    suffix = f".{os.getpid()}@{_machine()}"
    return tempfile.TemporaryDirectory(suffix, "kc-", ignore_cleanup_errors=True)


def _machine() -> str:
    """This machine, in four letters."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:4]


def _is_of_dead_process(path: Path) -> bool:
    """Whether the process of this machine that a partial file's name tells is no more."""
    writer, _, machine = path.name.removesuffix(".partial").rpartition("@")
    process = writer.rpartition(".")[2]
    if machine not in (platform.node(), _machine()) or not process.isdecimal() or os.name == "nt":
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def forget_oldest(
    folder: Path, pattern: str, most_bytes: float = math.inf, most_days: float = 30
) -> None:
    """Removes files of a cache of ours that were not used for long.

    Args:
        folder: One that the user puts nothing into.
        pattern: Which of its files; a file's time of change is when it was used last.
        most_bytes: What all files may take together, or the newest alone.
        most_days: How old a file may be.
    """
    found = []
    for path in folder.glob(pattern):
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            found.append((path.stat().st_mtime, path.stat().st_size, path))
    total = 0
    for number, (used, size, path) in enumerate(sorted(found, reverse=True)):
        total += size
        if (number and total > most_bytes) or time.time() - used > most_days * 24 * 3600:
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file as a whole."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def content(path: Path, most: int = 1 << 27) -> bytes:
    """A regular file's bytes, as many as its entry tells: nothing is waited for.

    Args:
        path: Not believed: it may be a FIFO, a device, or a kernel's file that never ends.
        most: More bytes than this are refused.

    Raises:
        OSError: It cannot be read, is no regular file, or is too large.
    """
    entry = path.stat()
    if not stat.S_ISREG(entry.st_mode):
        raise OSError(f"{path.name} is no regular file")
    if entry.st_size > most:
        raise OSError(f"{path.name} has {entry.st_size:,} bytes, more than {most:,}")
    with path.open("rb") as file:
        return file.read(entry.st_size)


def read_json(path: Path) -> object:
    """What a JSON file holds.

    Raises:
        OSError: As `content` does.
        ValueError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(content(path))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None


def json_text(content: object, indent: int | None = 2) -> str:
    """JSON that every reader takes: numbers that are not finite, which it has not, are null."""
    plain = json.loads(json.dumps(content), parse_constant=lambda constant: None)
    return json.dumps(plain, indent=indent)


SEAL = b"keras_cnn sha256"  # ahead of the hash
SEAL_BYTES = len(SEAL) + hashlib.sha256().digest_size


def seal(path: Path) -> None:
    """Appends a hash of a file's content to it, which NumPy, HDF5 and zip readers pass over.

    Args:
        path: A file that has just been written, closed.

    Example:
        with files.replacing(path) as partial:
            partial.write_bytes(content)
            files.seal(partial)
    """
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, os.SEEK_END)
        file.write(SEAL + digest)


def sealed(path: Path) -> bool:
    """Whether a file ends with a seal, be it that of its content or not."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - SEAL_BYTES))
        return file.read(len(SEAL)) == SEAL


def intact(path: Path) -> bool:
    """Whether a file ends with the seal of its content: not one bit has changed since `seal`.

    Reads all of it (about 1 GB a second): call it once a process, before the content is believed.

    Args:
        path: Any path; one that is no file, or cannot be read, is not intact.
    """
    try:
        if not sealed(path):
            return False
        with path.open("rb") as file:
            digest, left = hashlib.sha256(), file.seek(0, os.SEEK_END) - SEAL_BYTES
            file.seek(0)
            while left > 0 and (piece := file.read(min(left, 1 << 20))):
                digest.update(piece)
                left -= len(piece)
            return left == 0 and digest.digest() == file.read()[len(SEAL) :]
    except OSError:
        return False


def sync(path: Path) -> None:
    """Brings a file or a folder's entries to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot, and syncs no file opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
