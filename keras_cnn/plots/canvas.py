"""Text of users in pictures, and pictures in files: no formulas, no boxes, no raw warnings."""

from __future__ import annotations

import functools
import re
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import matplotlib.font_manager
import matplotlib.style
import matplotlib.text
from matplotlib.figure import Figure

from keras_cnn import files
from keras_cnn.errors import UserError, printable
from keras_cnn.results.grid import width

DPI = 120  # pixels an inch
LONGEST = 28  # characters of a name in a picture
LINE_INCHES, LETTER_INCHES = 0.16, 0.085  # that a name along an axis needs, and one of its letters
LETTERS_AN_INCH = 17  # in 7 points, with room to spare for wide ones
MISSING_GLYPH = r"Glyph (\d+) .* missing"
LAST_RESORT = "LastResort"  # a font of boxes, which has every character


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Draws a figure into a file, which appears whole.

    Text is drawn as it is: a `$` begins no formula. Characters that matplotlib's own font lacks
    are taken from a font of this machine; where none has them, a line on standard error says so.

    Args:
        draw: Makes the figure.
        path: Its ending says what kind of file.

    Raises:
        UserError: The file cannot be written, or its folder is not there.
    """
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}")
    # As matplotlib comes: a matplotlibrc, as may lie in the current folder, decides nothing.
    plain = matplotlib.style.context(["default", {"text.parse_math": False}])
    with plain, _boxes_told():
        figure = draw()
        _choose_fonts(figure)
        try:
            with files.replacing(path) as partial:
                kind = path.suffix[1:].lower()  # nothing is cut off at the edges
                figure.savefig(partial, format=kind, dpi=DPI, bbox_inches="tight")
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from None


@contextmanager
def _boxes_told() -> Iterator[None]:
    """Says in a line of ours which characters matplotlib warned that it drew boxes for."""
    boxes: set[str] = set()
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", MISSING_GLYPH, UserWarning)
        yield
    for warning in caught:
        if glyph := re.match(MISSING_GLYPH, str(warning.message)):
            boxes.add(chr(int(glyph[1])))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if boxes:
        _say_missing("".join(sorted(boxes)))


def short(name: object, most: int = LONGEST) -> str:
    """A name that fits into a picture: its middle is left out where it is too long.

    Args:
        name: Of a class, a row, a file.
        most: As many letters, as `results.grid.width` counts them.
    """
    text = printable(str(name))
    if width(text) <= most:
        return text
    begin, end = "", ""
    while width(begin) + width(end) < most - 2:
        begin, end = text[: len(begin) + 1], text[len(text) - len(begin) - 1 :]
    return f"{begin}…{end}"


def wrapped(text: str, inches: float, points: float) -> str:
    """Text in lines of a width, of letters of a size in points."""
    letters = max(10, int(inches * LETTERS_AN_INCH * 7 / points))
    is_wide = width(text) > 1.2 * len(text)
    return textwrap.fill(printable(text), letters // 2 if is_wide else letters)


def _choose_fonts(figure: Figure) -> None:
    """Adds, to each text that needs it, the fonts that have its characters."""
    texts = [one for one in figure.findobj(matplotlib.text.Text) if one.get_text()]
    needed = frozenset("".join(one.get_text() for one in texts)) - _own_characters() - {"\n"}
    if not needed:
        return
    for text in texts:
        text.set_fontfamily([*matplotlib.rcParams["font.family"], *_fonts_with(needed)])


@functools.cache
def _own_characters() -> frozenset[str]:
    own = matplotlib.font_manager.findfont(matplotlib.font_manager.FontProperties())
    return _characters(own)


def _characters(font: str) -> frozenset[str]:
    return frozenset(map(chr, matplotlib.font_manager.get_font(font).get_charmap()))


@functools.cache
def _fonts_with(needed: frozenset[str]) -> list[str]:
    """Families that together have as many of the characters as fonts here do."""
    families, missing = [], needed
    fonts = {font.fname: font.name for font in matplotlib.font_manager.fontManager.ttflist}
    for path, name in fonts.items():
        if not missing:
            break
        if LAST_RESORT in path.replace(" ", ""):
            continue
        try:
            had = missing & _characters(path)
        except (OSError, RuntimeError):  # no longer there, or no font
            continue
        if had:
            families.append(name)
            missing -= had
    return families


@functools.cache
def _say_missing(characters: str) -> None:
    """Once for the same characters."""
    shown = characters[:10] + ("…" if len(characters) > 10 else "")
    print(
        f"keras_cnn: no font here has {shown}: pictures show boxes in their place; install one, "
        "as fonts-noto-cjk",
        file=sys.stderr,
    )
