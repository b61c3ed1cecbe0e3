"""Decodes image files on all cores.

Pillow holds Python's lock for most of the work on a small image: two threads decode 32x32 JPEGs
slower than one. Hence processes; and as plain children that run this module, because
multiprocessing either forks, which hangs after torch was used, or imports the user's script again.
"""

from __future__ import annotations

import io
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from PIL import ExifTags, Image

from keras_cnn.environment import cores
from keras_cnn.errors import UserError

# Raised when a change makes the same call give other images; it is part of the identity of runs
# that use it.
VERSION = 1

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
BATCH = 64
PARALLEL_FROM = 500  # fewer images are decoded before a process has started

_ORIENTED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # keys of Image.info
_TURNS = {  # by EXIF's orientation; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Batch:
    """Decoded images.

    Attributes:
        images: uint8 (k, s, s, 3); those that could be decoded.
        kept: int64 (k,), which of the items these are.
        sizes: int32 (k, 2), height and width before scaling, as stored.
        unreadable: Path and reason of each of the others.
    """

    images: np.ndarray
    kept: np.ndarray
    sizes: np.ndarray
    unreadable: list[tuple[str, str]]


def batches(items: list[str] | np.ndarray, image_size: int) -> Iterator[Batch]:
    """Decodes in order, batch by batch.

    Args:
        items: Paths of image files, or images, uint8 (n, h, w, 3).
        image_size: Height and width to scale to, in pixels.

    Raises:
        UserError: A file cannot be read from its disk (a damaged image is no such case: it is
            listed in its batch).
    """
    starts = range(0, len(items), BATCH)
    # Arrays are scaled sooner than they are sent to another process and back.
    if isinstance(items, np.ndarray) or len(items) < PARALLEL_FROM or cores() == 1:
        for start in starts:
            yield _numbered(decode_batch(items[start : start + BATCH], image_size), start)
        return
    with ExitStack() as stack:
        workers: SimpleQueue[subprocess.Popen] = SimpleQueue()
        for _ in range(cores()):
            workers.put(stack.enter_context(_worker()))

        def decode(start: int) -> Batch:
            worker = workers.get()
            try:
                return _numbered(_ask(worker, items[start : start + BATCH], image_size), start)
            finally:
                workers.put(worker)

        threads = ThreadPoolExecutor(cores())  # these only wait for the processes
        stack.callback(threads.shutdown, cancel_futures=True)
        yield from threads.map(decode, starts)


def decode_batch(items: list[str] | np.ndarray, image_size: int) -> Batch:
    """Decodes a few images in this process; arguments and errors as of `batches`."""
    images, kept, sizes, unreadable = [], [], [], []
    for index, item in enumerate(items):
        raw = item if isinstance(item, np.ndarray) else _bytes(item)
        try:
            pixels, size = decode_image(raw, image_size)
        except MemoryError:
            raise
        except Exception as error:  # Pillow's readers raise almost anything on damaged files
            reason = str(error) or type(error).__name__
            if isinstance(error, Image.UnidentifiedImageError):
                reason = "not a PNG, JPEG, WebP or BMP image" if raw else "empty file"
            unreadable.append((str(item), reason))
            continue
        images.append(pixels)
        kept.append(index)
        sizes.append(size)
    return Batch(
        np.array(images, np.uint8).reshape(-1, image_size, image_size, 3),
        np.array(kept, np.int64),
        np.array(sizes, np.int32).reshape(-1, 2),
        unreadable,
    )


def decode_image(raw: bytes | np.ndarray, image_size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """One image as RGB, its centre square scaled (bicubic, antialiased) to the size.

    EXIF rotation is applied; what is transparent becomes white; of 16 bits a channel the upper 8
    are kept; of an animation the first frame. Colour profiles are not applied.

    Args:
        raw: The content of an image file, or pixels, uint8 (h, w, 3).
        image_size: Height and width of the result.

    Returns:
        uint8 (image_size, image_size, 3), and the (height, width) it had.
    """
    if isinstance(raw, np.ndarray):
        image = Image.fromarray(raw)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large images and odd metadata
            image = Image.open(io.BytesIO(raw), formats=FORMATS)
            size = image.height, image.width
            image.draft(None, (2 * image_size, 2 * image_size))  # large JPEGs: decode what is used
            image.load()
            if not _ORIENTED.isdisjoint(image.info):
                image = _upright(image)
        return np.asarray(_centre_square(_rgb(image), image_size)), size
    return np.asarray(_centre_square(image, image_size)), (image.height, image.width)


def _upright(image: Image.Image) -> Image.Image:
    """Turned as EXIF says; `ImageOps.exif_transpose` writes all tags anew, and odd ones end it."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged tags raise whatever they run into, and the pixels are sound
        return image
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit grey: convert() would clip it at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _centre_square(image: Image.Image, image_size: int) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    if image.width != image.height:
        image = image.crop((left, top, left + side, top + side))
    if side != image_size:
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return image


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _numbered(batch: Batch, start: int) -> Batch:
    return Batch(batch.images, batch.kept + start, batch.sizes, batch.unreadable)


@contextmanager
def _worker() -> Iterator[subprocess.Popen]:
    """A child process that runs `serve`; it ends with this process, however that ends."""
    # It finds modules where this process does; PYTHONPATH would go before the standard library.
    code = "import sys; sys.path = sys.argv[1:]; from keras_cnn.data import decode; decode.serve()"
    worker = subprocess.Popen(
        [sys.executable, "-c", code, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def _ask(worker: subprocess.Popen, paths: list[str], image_size: int) -> Batch:
    try:
        pickle.dump((paths, image_size), worker.stdin)
        worker.stdin.flush()
        answer = pickle.load(worker.stdout)
    except (EOFError, BrokenPipeError, pickle.UnpicklingError):
        raise UserError("a process that decodes images was ended, perhaps for memory") from None
    if isinstance(answer, UserError):
        raise answer
    return answer


def serve() -> None:
    """The worker's side: answers each pickled (paths, image_size) on stdin with a `Batch`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent ends this process
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            paths, image_size = pickle.load(questions)
        except EOFError:
            return
        try:
            answer: Batch | UserError = decode_batch(paths, image_size)
        except UserError as error:
            answer = error
        try:
            pickle.dump(answer, answers)
            answers.flush()
        except BrokenPipeError:
            return
