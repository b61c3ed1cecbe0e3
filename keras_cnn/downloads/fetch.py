"""Downloads data sets and weights: the only code that uses the network.

A download is written to `downloads/<file>.part` and resumes from there after a broken connection, a
crash or Ctrl-C. Only what passed its check is put, by one rename, where the package looks for it.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from keras_cnn import files, progress
from keras_cnn.downloads import registry
from keras_cnn.downloads.registry import Download
from keras_cnn.errors import UserError
from keras_cnn.home import home

TRIES = 5  # connections to one address before the next is tried
PAUSE_SECONDS = 1.0  # before the second connection; then twice, three times, ... as long
TIMEOUT_SECONDS = 30.0  # of silence
CHUNK_BYTES = 1 << 18


class _Unusable(Exception):
    """An address that does not give the file; the text says why."""


class _NoConnection(_Unusable):
    """Nobody answers at an address."""


def fetch(name: str) -> list[Path]:
    """Downloads what a name stands for, checks it, and unpacks it where it is an archive.

    Nothing is requested for what is already there. A file downloaded by hand to `home()/downloads`,
    under its own name, is used in place of a download.

    Args:
        name: One of `registry.DOWNLOADS` or `registry.BUNDLES`.

    Returns:
        The folder of each data set and the file of each set of weights.

    Raises:
        UserError: The name is unknown, no address gives the right file, an archive tries to leave
            its folder, or the disk does not take it.
    """
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
        if problem := _difference(download.by_hand, download):
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


def _difference(path: Path, download: Download) -> str | None:
    """How a file differs from what it should be; None when it is right."""
    if (size := path.stat().st_size) != download.size_bytes:
        return f"{size:,} bytes, expected {download.size_bytes:,}"
    if (found := registry.file_hash(path, download.algorithm)) != download.digest:
        return f"{download.algorithm} is {found}, expected {download.digest}"
    return None


# --- from the network into the .part file -----------------------------------------------------


def _download(download: Download) -> Path:
    """Tries one address after the other until the whole file is here and its hash is right.

    Returns:
        The `.part` file, checked.

    Raises:
        UserError: No address gave it; says why for each.
    """
    part = download.by_hand.with_name(f"{download.file_name}.part")
    if _size(part) >= download.size_bytes:  # stopped before or during unpacking
        if _difference(part, download) is None:
            return part
        part.unlink()
    failures: list[tuple[str, _Unusable]] = []
    for address in download.addresses:
        try:
            _receive(address, part, download)
            if problem := _difference(part, download):
                part.unlink()
                raise _Unusable(problem)
            return part
        except _Unusable as failure:
            failures.append((address, failure))
    raise UserError(_explain(download, failures))


def _explain(download: Download, failures: list[tuple[str, _Unusable]]) -> str:
    remedy = f"a file downloaded by hand goes to {download.by_hand}"
    if all(isinstance(failure, _NoConnection) for _, failure in failures):
        addresses = " or ".join(address for address, _ in failures)
        reason = failures[0][1]
        return f"{download.title}: no connection to {addresses} ({reason}); {remedy}"
    lines = [f"{address}: {failure}" for address, failure in failures]
    if len(lines) == 1:
        return f"{download.title}: {lines[0]}; {remedy}"
    return "\n  ".join([f"{download.title} could not be fetched; {remedy}", *lines])


def _receive(address: str, part: Path, download: Download) -> None:
    """Fills the `.part` file from one address, connecting again after a broken connection.

    Raises:
        _Unusable: The address does not give the file.
    """
    with _bar("downloading", download, _size(part)) as report:
        for attempt in range(TRIES):
            time.sleep(PAUSE_SECONDS * attempt)
            try:
                _receive_more(address, part, download.size_bytes, report)
            except _NoConnection:
                if attempt == 0:
                    raise
            if _size(part) >= download.size_bytes:
                return
    raise _Unusable(
        f"the connection was cut {TRIES} times; {_size(part):,} of {download.size_bytes:,} bytes "
        "are kept, fetch again to go on"
    )


def _receive_more(address: str, part: Path, size_bytes: int, report: Callable[[int], None]) -> None:
    """Appends to the `.part` file what one connection gives before it ends or breaks."""
    with _connect(address, _size(part)) as response:
        start = _first_byte(response, _size(part), size_bytes)
        with part.open("ab" if start else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                report(file.tell())
                if file.tell() > size_bytes:  # no length was stated; the check will refuse it
                    return


def _connect(address: str, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "keras_cnn"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(address, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return _connect(address, 0)
        raise _Unusable(f"HTTP {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise _NoConnection(getattr(error.reason, "strerror", None) or error.reason) from None
    except (OSError, http.client.HTTPException) as error:
        raise _NoConnection(error or type(error).__name__) from None


def _first_byte(response: http.client.HTTPResponse, start: int, size_bytes: int) -> int:
    """Where in the file the response begins: where it was asked to, or 0 if it ignores ranges.

    Raises:
        _Unusable: It answers with something else, or with a file of another size.
    """
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        stated = response.headers.get("Content-Range", "")
        match = re.fullmatch(rf"bytes {start}-\d+/(\d+|\*)", stated)
        if match is None:
            raise _Unusable(f"asked for the bytes from {start}, it sends {stated!r}")
        total = match[1]
    else:
        start, total = 0, response.headers.get("Content-Length", "*")
    if total.isdecimal() and int(total) != size_bytes:
        raise _Unusable(f"{int(total):,} bytes, expected {size_bytes:,}")
    return start


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body, piece by piece; a broken connection looks like its end, and the size tells."""
    try:
        # read1 returns what has arrived; read would lose a piece that a break cuts short.
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
    except (OSError, http.client.HTTPException):
        return


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


# --- from the checked file to its place -------------------------------------------------------


def _put_in_place(file: Path, download: Download) -> None:
    if download.kind == "archive":
        _unpack(file, download)
        return
    with files.replacing(download.target, alone=True) as partial:
        shutil.copyfile(file, partial)


def _unpack(archive: Path, download: Download) -> None:
    """Unpacks a tar or zip archive into a folder beside the target, which then takes its name.

    Raises:
        UserError: An entry would land outside; nothing is unpacked.
    """
    target = download.target
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    try:
        with (
            archive.open("rb") as file,
            _bar("unpacking", download) as report,
        ):
            if download.file_name.endswith(".zip"):
                _unzip(file, partial, report)
            else:
                with tarfile.open(fileobj=file) as tar:
                    tar.extractall(partial, members=_watched(tar, file, report), filter="data")
        if hasattr(os, "sync"):
            os.sync()  # once, not an fsync for each of 270,000 images
        os.rename(partial, target)
    except tarfile.FilterError as error:
        raise UserError(
            f"{download.title}: refused, nothing was unpacked: the archive's entry "
            f"{error.tarinfo.name!r} leads out of its folder or is no ordinary file"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unzip(file: BinaryIO, folder: Path, report: Callable[[int], None]) -> None:
    """Unpacks a zip archive; names that lead out of the folder are kept inside by `zipfile`."""
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                archive.extract(member, folder)
                report(member.header_offset)
    except zipfile.BadZipFile as error:
        raise UserError(f"{file.name}: not a whole zip archive ({error})") from None


def _watched(
    tar: tarfile.TarFile, file: BinaryIO, report: Callable[[int], None]
) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        yield member
        report(file.tell())


# --- progress ---------------------------------------------------------------------------------


def _bar(
    what: str, download: Download, done: int = 0
) -> AbstractContextManager[Callable[[int], None]]:
    """A bar of bytes."""
    return progress.bar(f"{what} {download.title}", download.size_bytes, done, _megabytes, True)


def _megabytes(done: int, total: int) -> str:
    return f"{done / total:.0%} of {total / 1e6:,.1f} MB"
