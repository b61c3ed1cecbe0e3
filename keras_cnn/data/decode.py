"""Decodes image files on all cores.

Pillow holds Python's lock for most of the work on a small image: two threads decode 32x32 JPEGs
slower than one. Hence processes; and as plain children that run this module, because
multiprocessing either forks, which hangs after torch was used, or imports the user's script again.
"""

from __future__ import annotations

import io
import os
import pickle
import signal
import stat
import struct
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np
from PIL import ExifTags, Image

from keras_cnn.data import formats, near_duplicates
from keras_cnn.data.fit import Fit, scaled_size, square
from keras_cnn.environment import cores
from keras_cnn.errors import UserError, printable

VERSION = 1  # raised when a change makes the same call give other images

MOST_BYTES = 500_000_000  # of a file
MOST_PIXELS = 2**26  # that are decoded: of a large JPEG, those of the fraction that is used
_TOO_MANY = f"more than the {MOST_PIXELS:,} pixels that are read"
BATCH = 64
BATCH_PIXELS = 2**22  # of large images fewer are decoded together
PARALLEL_FROM = 500  # fewer images are decoded before a process has started

_ORIENTED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # keys of Image.info
_PNG = b"\x89PNG\r\n\x1a\n"
_TEXTS = (b"tEXt", b"zTXt", b"iTXt", b"iCCP")  # chunks of a PNG
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF 6.0
_WHITE_IS_0 = 0  # of the latter
_TURNS = {  # by EXIF's orientation; 1 is upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(Exception):
    """A file that is no image for us; the text says why."""


@dataclass(frozen=True)
class Batch:
    """Decoded images.

    Attributes:
        images: uint8 (k, s, s, 3); those that could be decoded.
        indices: int64 (k,), which of the items these are.
        sizes: int32 (k, 2), height and width before scaling, as stored.
        hashes: uint64 (k,), of the whole pictures, whatever size and fit is asked for
            (`near_duplicates.hashes`).
        unreadable: Path and reason of each of the others.
    """

    images: np.ndarray
    indices: np.ndarray
    sizes: np.ndarray
    hashes: np.ndarray
    unreadable: list[tuple[str, str]]


def batches(items: list[str] | np.ndarray, image_size: int, fit: Fit = "crop") -> Iterator[Batch]:
    """Decodes paths of image files, or images, uint8 (n, h, w, 3), in order, batch by batch.

    Args:
        items: The paths or the images.
        image_size: Height and width of what becomes of them.
        fit: As of `decode_image`.

    Raises:
        UserError: A file cannot be read from its disk; a damaged image is listed in its batch.
    """
    count = max(1, min(BATCH, BATCH_PIXELS // image_size**2))
    starts = range(0, len(items), count)
    # Arrays are scaled sooner than they are sent to another process and back.
    if isinstance(items, np.ndarray) or len(items) < PARALLEL_FROM or cores() == 1:
        for start in starts:
            yield decode_batch(items[start : start + count], image_size, fit, start)
        return
    with ExitStack() as stack:
        workers: SimpleQueue[subprocess.Popen] = SimpleQueue()
        for _ in range(cores()):
            workers.put(stack.enter_context(_worker()))

        def decode(start: int) -> Batch:
            worker = workers.get()
            try:
                return _ask(worker, (items[start : start + count], image_size, fit, start))
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
    items: list[str] | np.ndarray, image_size: int, fit: Fit = "crop", start: int = 0
) -> Batch:
    """Decodes a few images in this process; as `batches`, the first item being number `start`."""
    images, indices, sizes, looks, unreadable = [], [], [], [], []
    for index, item in enumerate(items, start):
        try:
            raw = item if isinstance(item, np.ndarray) else _content(item)
            pixels, size, look = _decoded(raw, image_size, fit)
        except (MemoryError, UserError):
            raise
        except Exception as error:  # Pillow's readers raise almost anything on damaged files
            unreadable.append((str(item), _reason(error)))
        else:
            images.append(pixels)
            indices.append(index)
            sizes.append(size)
            looks.append(look)
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
        return _TOO_MANY
    return printable(str(error)) or type(error).__name__


def decode_image(
    raw: bytes | np.ndarray, image_size: int, fit: Fit = "crop"
) -> tuple[np.ndarray, tuple[int, int]]:
    """One image as an RGB square, scaled (bicubic, antialiased) to the size.

    EXIF rotation is applied; what is transparent becomes white; of 16 bits a channel the upper 8
    are taken; of an animation the first frame, of many pages the first. Colour profiles are not
    applied.

    Args:
        raw: The content of an image file, or pixels, uint8 (h, w, 3).
        image_size: Height and width of the result.
        fit: `crop` (the centre square), `pad` (the whole, with a grey border) or `squash` (the
            whole, its proportions lost).

    Returns:
        uint8 (image_size, image_size, 3), and the (height, width) it had.
    """
    image, size, _ = _picture(raw, image_size, fit)
    return np.asarray(square(image, image_size, fit)), size


def _decoded(
    raw: bytes | np.ndarray, image_size: int, fit: Fit
) -> tuple[np.ndarray, tuple[int, int], np.ndarray]:
    """As `decode_image`, and the whole picture squashed for its hash: uint8 (32, 32, 3)."""
    side = near_duplicates.SIDE
    image, size, stored = _picture(raw, image_size, fit)
    whole = image
    if stored:  # a JPEG at a fraction: which one must not depend on the size that is asked for
        with warnings.catch_warnings(action="ignore"):
            opened = Image.open(io.BytesIO(raw), formats=["JPEG"])
        opened.draft(None, (2 * side, 2 * side))
        if opened.size != stored:
            whole, _, _ = _picture(raw, side, "squash")
    pixels = np.asarray(square(image, image_size, fit))
    return pixels, size, np.asarray(square(whole, side, "squash"))


def _picture(
    raw: bytes | np.ndarray, image_size: int, fit: Fit
) -> tuple[Image.Image, tuple[int, int], tuple[int, int] | None]:
    """An image as RGB and upright, its (height, width), and a JPEG's size as it was read."""
    if isinstance(raw, np.ndarray):
        image = Image.fromarray(raw)
        return image, (image.height, image.width), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images and odd metadata
        try:
            image, size = _loaded(raw, image_size, fit)
        except ValueError:  # Pillow refuses a PNG for texts or a colour profile of over 1 MB
            if not raw.startswith(_PNG):
                raise
            image, size = _loaded(_without_texts(raw), image_size, fit)
        stored = image.size if image.format == "JPEG" else None
        if not _ORIENTED.isdisjoint(image.info):
            image = _upright(image)
        return _rgb(image), size, stored


def _loaded(raw: bytes, image_size: int, fit: Fit) -> tuple[Image.Image, tuple[int, int]]:
    """The image in its own colours, large JPEGs at a fraction, and the (height, width) it has."""
    if formats.is_heic(raw):
        image = _heic(raw)
    else:
        image = Image.open(io.BytesIO(raw), formats=formats.FORMATS)
    size = image.height, image.width
    if image.format == "JPEG":
        # Twice what it is scaled to is enough; the sides of a square that is cropped are equal.
        width, height = scaled_size(*image.size, image_size, fit)
        image.draft(None, (2 * width, 2 * height))
    if image.width * image.height > MOST_PIXELS:
        raise Unreadable(f"{size[0]} x {size[1]} pixels, {_TOO_MANY}")
    colour = image.info.get("transparency")
    if (
        isinstance(colour, tuple) and image.format == "PNG" and raw[24] == 16
    ):  # a PNG of 16 bits a channel
        # Pillow halves the depth of colours, but not of the one that is transparent.
        image.info["transparency"] = tuple(value >> 8 for value in colour)
    image.load()
    return image, size


def _heic(raw: bytes) -> Image.Image:
    """A HEIC file's main image, turned as it says; Pillow itself is left as it was."""
    if not formats.reads_heic():
        raise Unreadable(formats.WITHOUT_HEIC)
    from pillow_heif import HeifImageFile

    return HeifImageFile(io.BytesIO(raw))


def _without_texts(png: bytes) -> bytes:
    """A PNG file without what is no pixel."""
    pieces, start = [_PNG], len(_PNG)
    while start < len(png):
        length, name = struct.unpack(">I4s", png[start : start + 8].ljust(8, b"\0"))
        end = start + 12 + length  # length, name and checksum take four bytes each
        if name not in _TEXTS:
            pieces.append(png[start:end])
        start = end
    return b"".join(pieces)


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
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        raise Unreadable("its values have no known range: save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # 16-bit grey: convert() would clip it at 255
        image = _grey_of_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _grey_of_8_bits(image: Image.Image) -> Image.Image:
    """The upper 8 bits of grey in 16, or in a TIFF's 12; a TIFF's 0 may be white."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    (depth,) = tags.get(_BITS_PER_SAMPLE, (16,))
    grey = np.asarray(image)
    seen = grey != image.info.get("transparency", -1)
    grey = grey >> (depth - 8)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_0:
        grey = 255 - grey
    return Image.fromarray(np.where(seen, grey, 255).astype(np.uint8))


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


def _ask(worker: subprocess.Popen, question: tuple[list[str], int, Fit, int]) -> Batch:
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
