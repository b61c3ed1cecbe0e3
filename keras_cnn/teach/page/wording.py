"""Numbers and names as the page says them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_cnn import pages
from keras_cnn.errors import printable
from keras_cnn.teach.taught import Accuracy

LONGEST = 120  # letters of a file's name and folders


class Section(NamedTuple):
    """A part of the page.

    Attributes:
        anchor: Its id.
        heading: Text.
        short: One or two words for a narrow table of contents.
        body: HTML.
    """

    anchor: str
    heading: str
    short: str
    body: str


def percent(share: float) -> str:
    """`92.2%`, or a hyphen for what is no number."""
    return f"{100 * share:.1f}%" if np.isfinite(share) else "-"


def sureness(probability: float) -> str:
    """A probability as a caption says it: `83%`, and never quite 0 or 100."""
    if probability >= 0.995:
        return "over 99%"
    return f"{100 * probability:.0f}%" if probability >= 0.005 else "under 1%"


def of_images(count: int, what: str = "image") -> str:
    """`1 image`, `2,000 images`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def with_interval(accuracy: Accuracy) -> str:
    """`92.2% (86.8 to 95.5)`."""
    return f"{percent(accuracy.value)} ({interval(accuracy.low, accuracy.high)})"


def interval(low: float, high: float) -> str:
    """`86.8 to 95.5`, in percent."""
    return f"{100 * low:.1f} to {100 * high:.1f}"


def paragraph(html: str) -> str:
    """A paragraph of HTML."""
    return f"<p>{html}</p>"


def small_print(html: str) -> str:
    """A paragraph in small letters."""
    return f"<p><em>{html}</em></p>"


def file_name(file: str) -> str:
    """A file's name as HTML, its middle left out where it is very long."""
    shown = printable(file)
    if len(shown) > LONGEST:
        shown = f"{shown[: LONGEST // 2]}…{shown[-LONGEST // 2 + 1 :]}"
    return f'<span class="file">{pages.name(shown)}</span>'


def said(class_names: tuple[str, ...], label: int) -> str:
    """A class by its label; of an image that the model gives no number for, that."""
    return pages.name(class_names[label]) if label >= 0 else "nothing"
