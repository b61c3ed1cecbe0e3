"""Which files are images for us, by the ends of their names and by their content."""

from __future__ import annotations

import importlib.util
from functools import lru_cache

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")  # by Pillow's names
NAMED = "PNG, JPEG, WebP, BMP, TIFF or HEIC"
HEIC_SUFFIXES = (".heic", ".heif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", *HEIC_SUFFIXES)
OTHER_SUFFIXES = (".gif", ".avif", ".jp2", ".jxl", ".svg")
WITHOUT_HEIC = "HEIC is read where pillow-heif is installed: pip install 'keras-cnn[heic]'"

_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


@lru_cache
def reads_heic() -> bool:
    """Whether the package that reads HEIC, an extra one, is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


def is_heic(raw: bytes) -> bool:
    """Whether the content of a file begins as HEIC does (ISO 23008-12: its box of brands)."""
    return raw[4:8] == b"ftyp" and raw[8:12] in _HEIC_BRANDS
