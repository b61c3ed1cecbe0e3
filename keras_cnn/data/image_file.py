"""One image file to pixels: as RGB, upright, squared, and its whole for a perceptual hash."""

from __future__ import annotations

import io
import struct
import warnings

import numpy as np
from PIL import ExifTags, Image

from keras_cnn.data import formats, near_duplicates
from keras_cnn.data.fit import Fit, scaled_size, square

VERSION = 1  # raised when a change makes the same call give other images

MOST_PIXELS = 2**26  # that are decoded: of a large JPEG, those of the fraction that is used
TOO_MANY = f"more than the {MOST_PIXELS:,} pixels that are read"

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
    image, size, _ = picture(raw, image_size, fit)
    return np.asarray(square(image, image_size, fit)), size


def look(raw: bytes | np.ndarray, image: Image.Image, stored: tuple[int, int] | None) -> np.ndarray:
    """The whole picture squashed for its hash, uint8 (32, 32, 3), of what `picture` gave."""
    side = near_duplicates.SIDE
    if stored:  # a JPEG at a fraction: which one must not depend on the size that is asked for
        with warnings.catch_warnings(action="ignore"):
            opened = Image.open(io.BytesIO(raw), formats=["JPEG"])
        opened.draft(None, (2 * side, 2 * side))
        if opened.size != stored:
            image, _, _ = picture(raw, side, "squash")
    return np.asarray(square(image, side, "squash"))


def picture(
    raw: bytes | np.ndarray, image_size: int, fit: Fit
) -> tuple[Image.Image, tuple[int, int], tuple[int, int] | None]:
    """A whole image, at least as large as it takes to bring it to a square.

    Args:
        raw: As for `decode_image`, and so are the others.
        image_size: Height and width of the square.
        fit: How it becomes one.

    Returns:
        The image in RGB and upright, the (height, width) it had, and of a JPEG the (width, height)
        it was read at.
    """
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
        raise Unreadable(f"{size[0]} x {size[1]} pixels, {TOO_MANY}")
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
