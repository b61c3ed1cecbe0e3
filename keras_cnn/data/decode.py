"""Decodes image files on all cores.

Pillow holds Python's lock for most of the work on a small image: two threads decode 32x32 JPEGs
slower than one. Hence processes; and as plain children that run this module, because
multiprocessing either forks, which hangs after torch was used, or imports the user's script again.
"""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from PIL import Image

from keras_cnn.data import formats, near_duplicates
from keras_cnn.data.fit import Fit, square
from keras_cnn.data.image_file import TOO_MANY, Unreadable, look, picture
from keras_cnn.environment import cores
from keras_cnn.errors import UserError, printable

MOST_BYTES = 500_000_000  # of a file
BATCH = 64
BATCH_PIXELS = 2**22  # of large images fewer are decoded together
PARALLEL_FROM = 500  # fewer images are decoded before a process has started,
PARALLEL_FROM_LARGE, LARGE = 250, 128  # or half as many where they stay large, 3 ms each


@dataclass(frozen=True)
class Batch:
    """Decoded images.

    Attributes:
        images: uint8 (k, s, s, 3); those that could be decoded.
        indices: int64 (k,), which of the items these are.
        sizes: int32 (k, 2), height and width before scaling, as stored.
        hashes: uint64 (k,), of the whole pictures, whatever size and fit is asked for
            (`near_duplicates.hashes`); empty where they were not asked for.
        unreadable: Path and reason of each of the others.
    """

    images: np.ndarray
    indices: np.ndarray
    sizes: np.ndarray
    hashes: np.ndarray
    unreadable: list[tuple[str, str]]


def batches(
    items: list[str] | np.ndarray, image_size: int, fit: Fit = "crop", hashed: bool = False
) -> Iterator[Batch]:
    """Decodes paths of image files, or images, uint8 (n, h, w, 3), in order, batch by batch.

    Args:
        items: The paths or the images.
        image_size: Height and width of what becomes of them.
        fit: As of `image_file.decode_image`.
        hashed: Give perceptual hashes too, for which a JPEG may be read twice.

    Raises:
        UserError: A file cannot be read from its disk; a damaged image is listed in its batch.
    """
    count = max(1, min(BATCH, BATCH_PIXELS // image_size**2))
    starts = range(0, len(items), count)
    # Arrays are scaled sooner than they are sent to another process and back.
    fewest = PARALLEL_FROM_LARGE if image_size >= LARGE else PARALLEL_FROM
    if isinstance(items, np.ndarray) or len(items) < fewest or cores() == 1:
        for start in starts:
            yield decode_batch(items[start : start + count], image_size, fit, start, hashed)
        return
    with ExitStack() as stack:
        workers: SimpleQueue[subprocess.Popen] = SimpleQueue()
        for _ in range(cores()):
            workers.put(stack.enter_context(_worker()))

        def decode(start: int) -> Batch:
            worker = workers.get()
            try:
                return _ask(worker, (items[start : start + count], image_size, fit, start, hashed))
            finally:
                workers.put(worker)

        threads = ThreadPoolExecutor(cores())  # these only wait for the processes
        stack.callback(threads.shutdown, cancel_futures=True)
        ahead: deque[Future[Batch]] = deque()
        for start in starts:
            ahead.append(threads.submit(decode, start))
            if len(ahead) > 2 * cores():  # not all that there are: what is made of them is slower
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def decode_batch(
    items: list[str] | np.ndarray,
    image_size: int,
    fit: Fit = "crop",
    start: int = 0,
    hashed: bool = False,
) -> Batch:
    """Decodes a few images in this process; as `batches`, the first item being number `start`."""
    images, indices, sizes, looks, unreadable = [], [], [], [], []
    for index, item in enumerate(items, start):
        try:
            raw = item if isinstance(item, np.ndarray) else _content(item)
            image, size, stored = picture(raw, image_size, fit)
            pixels = np.asarray(square(image, image_size, fit))
            seen = [look(raw, image, stored)] if hashed else []
        except (MemoryError, UserError):
            raise
        except Exception as error:  # Pillow's readers raise almost anything on damaged files
            unreadable.append((str(item), _reason(error)))
        else:
            images.append(pixels)
            indices.append(index)
            sizes.append(size)
            looks += seen
    side = near_duplicates.SIDE
    return Batch(
        np.array(images, np.uint8).reshape(-1, image_size, image_size, 3),
        np.array(indices, np.int64),
        np.array(sizes, np.int32).reshape(-1, 2),
        near_duplicates.hashes(np.array(looks, np.uint8).reshape(-1, side, side, 3)),
        unreadable,
    )


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return f"not a {formats.NAMED} image"
    if isinstance(error, Image.DecompressionBombError):
        return TOO_MANY
    return printable(str(error)) or type(error).__name__


def _content(path: str) -> bytes:
    """All of a regular file; no pipe and no device, which may never end."""
    try:
        state = os.stat(path)
        if not stat.S_ISREG(state.st_mode):
            raise Unreadable("not a regular file")
        if not state.st_size:
            raise Unreadable("empty file")
        if state.st_size > MOST_BYTES:
            raise Unreadable(f"{state.st_size:,} bytes, more than the {MOST_BYTES:,} that are read")
        with open(path, "rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


@contextmanager
def _worker() -> Iterator[subprocess.Popen]:
    """A child process that runs `serve`; it ends with this process, however that ends."""
    # It finds modules where this process does; PYTHONPATH would go before the standard library.
    code = "import sys; sys.path = sys.argv[1:]; from keras_cnn.data import decode; decode.serve()"
    worker = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def _ask(worker: subprocess.Popen, question: tuple[list[str], int, Fit, int, bool]) -> Batch:
    """What a worker answers to the arguments of `decode_batch`."""
    try:
        pickle.dump(question, worker.stdin)
        worker.stdin.flush()
        answer = pickle.load(worker.stdout)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        raise UserError("a process that decodes images was ended, perhaps for memory") from None
    if isinstance(answer, UserError):
        raise answer
    return answer


def serve() -> None:
    """The worker's side: answers pickled arguments of `decode_batch` on stdin with a `Batch`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent ends this process
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            question = pickle.load(questions)
        except EOFError:
            return
        try:
            answer: Batch | UserError = decode_batch(*question)
        except UserError as error:
            answer = error
        try:
            pickle.dump(answer, answers)
            answers.flush()
        except BrokenPipeError:
            return
