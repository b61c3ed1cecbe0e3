"""The page's photographs: small, each once however often it is shown, and not too many."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from keras_cnn import data, pages
from keras_cnn.data import decode
from keras_cnn.data.fit import Fit
from keras_cnn.errors import UserError

MOST = 400  # photographs


class Album:
    """Photographs to be shown on the page, as the model sees them but larger.

    They are backgrounds in the page's style, so that one shown twice is in the file once.

    Args:
        source: The folder that files are relative to, or a data source's name.
        image_size: Height and width, in pixels, that the model takes.
        fit: How the model has photographs brought to a square.
        most: How many photographs there is room for.
    """

    def __init__(self, source: Path, image_size: int, fit: Fit, most: int = MOST) -> None:
        self._source, self._image_size, self._fit, self._most = source, image_size, fit, most
        self._numbers: dict[str, int] = {}
        self._drawn: list[np.ndarray] = []

    def add(self, file: str) -> bool:
        """Keeps room for a photograph; False where there is none left."""
        if file not in self._numbers and len(self._numbers) < self._most:
            self._numbers[file] = len(self._numbers)
        return file in self._numbers

    def photograph(self, file: str) -> str:
        """HTML that shows a photograph, beside its name; empty where there was no room for it."""
        number = self._numbers.get(file)
        return "" if number is None else _picture(f"p{number}", "photograph")

    def drawing(self, image: np.ndarray, description: str) -> str:
        """HTML that shows an image of our own, uint8 (h, w, 3), which always has room."""
        self._drawn.append(image)
        return _picture(f"d{len(self._drawn) - 1}", description)

    def pixels(self, file: str, side: int = pages.PHOTOGRAPH) -> np.ndarray | None:
        """A photograph as the model sees it, uint8 (side, side, 3); None where it cannot be read.

        Args:
            file: Relative to the folder.
            side: In pixels.
        """
        try:
            item = str(self._source / file) if self._source.is_dir() else self._stored(file)
            return decode.decode_batch([item], side, self._fit).images[0]
        except (UserError, LookupError, ValueError):  # it has gone, or is no image any more
            return None

    def _stored(self, file: str) -> np.ndarray:
        """An image of a data source, which has no files, as the model has seen it.

        Raises:
            LookupError: There is no such image.
            ValueError: `file` is not a split's name and a place in it.
        """
        split, _, place = file.rpartition(" ")
        return self._dataset.splits[split].images[int(place)]

    @cached_property
    def _dataset(self) -> data.Dataset:
        return data.load(str(self._source), self._image_size, fit=self._fit)

    def style(self) -> str:
        """The CSS that holds all that was added."""
        shown = {f"p{number}": self.pixels(file) for file, number in self._numbers.items()}
        shown |= {f"d{number}": image for number, image in enumerate(self._drawn)}
        return "".join(
            f".{name}{{background-image:url({pages.photograph(image)})}}\n"
            for name, image in shown.items()
            if image is not None
        )


def _picture(kind: str, description: str) -> str:
    return f'<span class="picture {kind}" role="img" aria-label="{pages.text(description)}"></span>'
