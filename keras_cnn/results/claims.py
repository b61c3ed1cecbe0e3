"""Who makes a run just now: one process at a time, on this machine or on another of its disk.

A claim is a file in the recipe folder's `.locks`, made exclusively and touched every few seconds
while its process lives: that works on disks shared by network, too, where locks of the operating
system often do not. A dead process of this machine loses its claim at once, one of another machine
when the claim has not changed for `LEASE_SECONDS` by the clock of whoever waits: clocks need not
agree. A process that was only cut off may then meet its successor; both make the same result, and
the first to bring it into place wins (`store.new_folder`).
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from keras_cnn import files

LEASE_SECONDS = 30.0  # all processes that share a folder have to agree on it


class Busy(Exception):
    """Another process holds the run."""


@dataclass(frozen=True)
class Claim:
    """A run that this process holds.

    Attributes:
        file: Holds what `tell` was told last.
    """

    file: Path

    def tell(self, record: Mapping[str, object]) -> None:
        """Leaves word of how far the run is, for `holder`."""
        word = {"host": platform.node(), "process": os.getpid(), **record}
        beside = self.file.with_name(f"{self.file.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # a full disk: the run itself will tell
            beside.write_text(files.json_text(word, indent=None), encoding="utf-8")
            os.replace(beside, self.file)


@contextmanager
def held(folder: Path, wait: bool = False) -> Iterator[Claim]:
    """Holds a run while the block runs; it is free again however the process ends.

    Args:
        folder: The run's folder.
        wait: Wait until no other process holds it.

    Raises:
        Busy: Another process holds it.
    """
    from filelock import SoftFileLease, Timeout  # here: it takes as long as all else to import

    lease, word = _files(folder)
    lease.parent.mkdir(parents=True, exist_ok=True)
    lock = SoftFileLease(lease, lease_duration=LEASE_SECONDS, thread_local=False)
    try:
        lock.acquire(timeout=-1 if wait else 0, poll_interval=0.2)
    except Timeout:
        raise Busy(folder.name) from None
    try:
        yield Claim(word)
    finally:
        word.unlink(missing_ok=True)
        lock.release()


def holder(folder: Path) -> dict[str, object] | None:
    """Who holds a run: its `host` and `process`, and what it told last; None where nobody does.

    Of a machine that has ended the claim counts a minute longer.
    """
    lease, word = _files(folder)
    if not _is_fresh(lease):
        return None
    try:
        with held(folder):
            return None
    except Busy:
        pass
    except OSError:  # not ours to write in
        return {}
    try:
        told = json.loads(files.content(word))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _files(folder: Path) -> tuple[Path, Path]:
    """The claim on a run, and the last word of who has it."""
    locks = folder.parent / ".locks"
    return locks / f"{folder.name}.lease", locks / f"{folder.name}.told"


def _is_fresh(lease: Path) -> bool:
    """Whether a claim was touched of late, by the clock of the disk that it is on."""
    try:
        touched = lease.stat().st_mtime
        with tempfile.TemporaryFile(dir=lease.parent) as now:
            now.write(b"now")
            now.flush()
            return os.fstat(now.fileno()).st_mtime - touched < 2 * LEASE_SECONDS
    except FileNotFoundError:
        return False
    except OSError:  # not ours to write in
        return True
