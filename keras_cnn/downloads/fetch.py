"""Downloads data sets and weights: the only code that uses the network.

A download is written to `downloads/<file>.part` and resumes from there after a broken connection, a
crash or Ctrl-C. Only what passed its check is put, by one rename, where the package looks for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from keras_cnn import files, progress
from keras_cnn.downloads import packaged, registry, transfer
from keras_cnn.downloads.registry import Download
from keras_cnn.downloads.unpack import unpack
from keras_cnn.errors import UserError
from keras_cnn.home import home


def fetch(name: str) -> list[Path]:
    """Downloads what a name stands for, checks it, and unpacks it where it is an archive.

    Nothing is requested for what is already there. A file downloaded by hand to `home()/downloads`,
    under its own name, is used in place of a download.

    Args:
        name: One of `registry.DOWNLOADS` or `registry.BUNDLES`. For weights that another package
            holds, which are not fetched, it gives their file.

    Returns:
        The folder of each data set and the file of each set of weights.

    Raises:
        UserError: The name is unknown, no address gives the right file, an archive cannot be
            unpacked, or the disk does not take it.
    """
    if name in packaged.PACKAGED:
        return [packaged.weights_file(name)]
    return [_fetch_one(download) for download in registry.find(name)]


def _fetch_one(download: Download) -> Path:
    if download.is_here():  # asked before the lock, which a shared, read-only folder refuses
        return download.target
    try:
        lock = download.by_hand.with_name(f".{download.name}.lock")
        with files.locked(lock, say=f"{download.title}: waiting for another fetch of it"):
            if not download.is_here():
                _bring(download)
    except OSError as error:
        place = error.filename or home()
        raise UserError(
            f"{download.title}: {error.strerror or error} ({place}); "
            "KERAS_CNN_HOME can name another folder"
        ) from None
    return download.target


def _bring(download: Download) -> None:
    if download.target.exists():
        raise UserError(
            f"{download.target} is not what `fetch {download.name}` puts there; "
            "move or delete it, then fetch again"
        )
    if download.by_hand.exists():
        if problem := download.difference(download.by_hand):
            raise UserError(
                f"{download.by_hand}: {problem}; delete it, or replace it with the file from "
                f"{download.addresses[0]}"
            )
        _put_in_place(download.by_hand, download)
        return
    part = _download(download)
    try:
        _put_in_place(part, download)
    except UserError:
        part.unlink()
        raise
    part.unlink()


def _download(download: Download) -> Path:
    """Tries one address after the other; gives the `.part` file, whole and checked."""
    part = download.by_hand.with_name(f"{download.file_name}.part")
    if transfer.size(part) >= download.size_bytes:  # stopped before or during unpacking
        if download.difference(part) is None:
            return part
        part.unlink()
    failures: list[tuple[str, transfer.Unusable]] = []
    for address in download.addresses:
        try:
            with _bar("downloading", download, transfer.size(part)) as report:
                transfer.receive(address, part, download.size_bytes, download.difference, report)
            return part
        except transfer.Unusable as failure:
            failures.append((address, failure))
    raise UserError(_explain(download, failures))


def _explain(download: Download, failures: list[tuple[str, transfer.Unusable]]) -> str:
    remedy = f"a file downloaded by hand goes to {download.by_hand}"
    if all(isinstance(failure, transfer.NoConnection) for _, failure in failures):
        addresses = " or ".join(address for address, _ in failures)
        return f"{download.title}: no connection to {addresses} ({failures[0][1]}); {remedy}"
    reasons = "; ".join(f"{address}: {failure}" for address, failure in failures)
    return f"{download.title} could not be fetched: {reasons}; {remedy}"


def _put_in_place(file: Path, download: Download) -> None:
    if download.kind == "archive":
        with _bar("unpacking", download) as report:
            unpack(file, download.target, report)
        return
    with files.replacing(download.target) as copy:
        shutil.copyfile(file, copy)


def _bar(
    what: str, download: Download, done: int = 0
) -> AbstractContextManager[Callable[[int], None]]:
    """A bar of bytes."""
    return progress.bar(f"{what} {download.title}", download.size_bytes, done, _megabytes, True)


def _megabytes(done: int, total: int) -> str:
    return f"{done / total:.0%} of {total / 1e6:,.1f} MB"
