"""What a source of images holds, before anything is decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from keras_cnn.errors import UserError

if TYPE_CHECKING:
    import numpy as np


class Division(NamedTuple):
    """A part of images of which some are drawn for testing, once they are decoded.

    Attributes:
        part: Which of them.
        draw: Gives for labels (n,) and perceptual hashes (n,) which images are test, bool (n,).
    """

    part: Literal["train", "test", "all"]
    draw: Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Listing:
    """One split of a source.

    Attributes:
        key: Of the cache; another one when the files are others.
        content: Gives what there is to decode, paths of image files or images uint8 (n, h, w, 3),
            and labels, int64 (n,).
        folder: Where the files lie; empty for arrays.
        strays: What lies among the images and is passed over, relative to `folder`.
        division: The part of the content that the split is; None: all of it.
        notes: What to say of it once it is decoded, a line each.
    """

    key: str
    content: Callable[[], tuple[list[str] | np.ndarray, np.ndarray]]
    folder: str = ""
    strays: tuple[str, ...] = ()
    division: Division | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """All splits of a source; each is listed only when it is wanted.

    Attributes:
        class_names: In the order of the labels.
        splits: By name (`train`, `valid`, `test`), what lists it.
        notes: What a reader of the data should know about its splits, a line each.
        strays: Folders and images beside the splits, which are passed over.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, Callable[[], Listing]]
    notes: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()


def files_key(paths: Iterable[Path], remedy: str) -> str:
    """A cache key of files: another one when a path, size or modification time is another.

    Args:
        paths: The files, in order.
        remedy: What to do about one that is missing.

    Raises:
        UserError: One is missing.
    """
    seen = []
    for path in paths:
        try:
            stat = path.stat()
        except FileNotFoundError:
            raise UserError(f"{path} is missing: {remedy}") from None
        seen.append((str(path), stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(repr(seen).encode()).hexdigest()
