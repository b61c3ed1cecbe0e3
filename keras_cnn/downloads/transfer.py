"""A file from an address on the web into a file on disk, going on where an earlier try stood."""

from __future__ import annotations

import email.utils
import http.client
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

TRIES = 5  # connections to one address
PAUSE_SECONDS = 1.0  # before the second connection; then twice, three times, ... as long
LONGEST_PAUSE_SECONDS = 60.0  # that a server may ask for
SILENCE_SECONDS = 30.0  # after which a connection counts as cut
LEAST_BYTES_A_SECOND = 10_000  # over the time below; a slower connection counts as cut
RATE_SECONDS = 60.0
CHUNK_BYTES = 1 << 18
BUSY = (429, 500, 502, 503, 504)  # HTTP statuses after which the same request may succeed


class Unusable(Exception):
    """An address that does not give the file; the text says why."""


class NoConnection(Unusable):
    """Nobody answers at an address."""


class _Busy(Unusable):
    """A server that asks to come again after some seconds."""

    def __init__(self, reason: str, seconds: float) -> None:
        super().__init__(reason)
        self.seconds = seconds


def receive(
    address: str,
    part: Path,
    size_bytes: int,
    difference: Callable[[Path], str | None],
    report: Callable[[int], None],
) -> None:
    """Fills a file from one address, connecting again after a broken connection.

    What the file holds goes only when more, or the right whole, has come in its place.

    Args:
        address: Where to ask.
        part: The file; what it holds is not asked for again.
        size_bytes: Of the whole.
        difference: Says what is wrong with a whole file; None where it is right.
        report: Called with the bytes that are there.

    Raises:
        Unusable: The address does not give the file.
    """
    connect = partial(_receive_more, address, part, size_bytes, difference, report)
    resumed = size(part) > 0
    _fill(part, size_bytes, connect)
    problem = difference(part)
    if problem and resumed:  # what was there may have been the beginning of another file
        part.unlink()
        _fill(part, size_bytes, connect)
        problem = difference(part)
    if problem:
        part.unlink()
        raise Unusable(problem)


def size(path: Path) -> int:
    """A file's bytes; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _fill(part: Path, size_bytes: int, connect: Callable[[], None]) -> None:
    """Connects until the file has all bytes, or too often."""
    _beside(part).unlink(missing_ok=True)  # left by a process that was killed
    busy, pause = None, 0.0
    for attempt in range(TRIES):
        time.sleep(pause)
        pause = PAUSE_SECONDS * (attempt + 1)
        try:
            busy = None
            connect()
        except NoConnection:
            if attempt == 0:
                raise
        except _Busy as error:
            busy, pause = error, max(pause, min(error.seconds, LONGEST_PAUSE_SECONDS))
        if size(part) >= size_bytes:
            return
    slow = f"the connection was cut, or slower than {LEAST_BYTES_A_SECOND // 1000} kB/s,"
    kept = f"{size(part):,} of {size_bytes:,} bytes are kept, fetch again to go on"
    raise Unusable(f"{busy or slow} {TRIES} times; {kept if size(part) else 'nothing came'}")


def _receive_more(
    address: str,
    part: Path,
    size_bytes: int,
    difference: Callable[[Path], str | None],
    report: Callable[[int], None],
) -> None:
    """Adds what one connection gives; what would replace it waits beside the file."""
    beside = _beside(part)
    with _connect(address, size(part)) as response:
        start = _first_byte(response, size(part), size_bytes)
        path = beside if size(part) and not start else part
        with path.open("ab" if start else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                report(file.tell())
                if file.tell() > size_bytes:  # no length was stated; the check will refuse it
                    break
    if path == beside:
        problem = difference(beside) if size(beside) >= size_bytes else None
        if problem is None and size(beside) > size(part):
            os.replace(beside, part)
        beside.unlink(missing_ok=True)
        if problem:
            raise Unusable(problem)


def _beside(part: Path) -> Path:
    return part.with_name(f"{part.name}.new")


def _connect(address: str, start: int) -> http.client.HTTPResponse:
    headers = {"User-Agent": "keras_cnn"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(address, headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=SILENCE_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return _connect(address, 0)
        reason = f"HTTP {error.code} {error.reason}"
        if error.code in BUSY:
            raise _Busy(reason, _seconds(error.headers.get("Retry-After", ""))) from None
        raise Unusable(reason) from None
    except urllib.error.URLError as error:
        raise NoConnection(getattr(error.reason, "strerror", None) or error.reason) from None
    except (OSError, http.client.HTTPException) as error:
        raise NoConnection(error or type(error).__name__) from None


def _seconds(retry_after: str) -> float:
    """The seconds that a server asks to wait, given as such or as a date; 0 where it does not."""
    if retry_after.isdecimal():
        return float(retry_after[:9])
    try:
        return email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _first_byte(response: http.client.HTTPResponse, start: int, size_bytes: int) -> int:
    """Where in the file the response begins: where it was asked to, or 0 if it ignores ranges.

    Raises:
        Unusable: It answers with something else, or with a file of another size.
    """
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        stated = response.headers.get("Content-Range", "")
        match = re.fullmatch(rf"bytes {start}-\d+/(\d+|\*)", stated)
        if match is None:
            raise Unusable(f"asked for the bytes from {start}, it sends {stated!r}")
        total = match[1]
    else:
        start, total = 0, response.headers.get("Content-Length", "*")
    if total.isdecimal() and total.lstrip("0") != str(size_bytes):
        raise Unusable(f"{total} bytes, expected {size_bytes:,}")
    return start


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body, piece by piece; what breaks or is too slow ends early, and the size tells."""
    began, count = time.monotonic(), 0
    try:
        # read1 returns what has arrived; read would lose a piece that a break cuts short.
        while chunk := response.read1(CHUNK_BYTES):
            yield chunk
            count += len(chunk)
            seconds = time.monotonic() - began
            if seconds >= RATE_SECONDS:
                if count < LEAST_BYTES_A_SECOND * seconds:
                    return
                began, count = time.monotonic(), 0
    except (OSError, http.client.HTTPException):
        return
