"""What a source of images holds, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Listing:
    """One split of a source.

    Attributes:
        key: Another one whenever the split may decode to something else; quick to make.
        content: Gives what there is to decode (paths of image files, or a uint8 array
            (n, h, w, 3)) and its labels, int64 (n,).
        folder: Where the files lie; empty for arrays.
        strays: What is not read, though it lies among the images or is an image or a folder of
            them; relative to `folder`. A text file beside the class folders is none.
    """

    key: str
    content: Callable[[], tuple[list[str] | np.ndarray, np.ndarray]]
    folder: str = ""
    strays: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """All splits of a source; each is listed only when it is wanted.

    Attributes:
        class_names: In the order of the labels.
        splits: By name (`train`, `valid`, `test`), what lists it.
        note: What a reader of the data should know about its splits; may be empty.
    """

    class_names: tuple[str, ...]
    splits: Mapping[str, Callable[[], Listing]]
    note: str = ""
