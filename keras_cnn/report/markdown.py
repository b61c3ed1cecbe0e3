"""The pieces of the page as Markdown; text is escaped, so that it is shown as it is."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from keras_cnn.results import grid
from keras_cnn.results.grid import Column, code, escape


def prose(text: str) -> str:
    """Text of our own, whose pieces between backticks are code."""
    pieces = text.split("`")
    return "".join(code(piece) if i % 2 else escape(piece) for i, piece in enumerate(pieces))


def link(text: str, anchor: str) -> str:
    """A link to a heading of the page."""
    return f"[{escape(text)}](#{anchor})"


def heading(level: int, text: str, anchor: str, short: str = "") -> str:
    """A heading that links can name by its anchor: letters, digits and hyphens.

    `short` is a word or two for a narrow table of contents.
    """
    title = f' title="{html.escape(short)}"' if short else ""
    return f'{"#" * level} <a id="{anchor}"{title}></a>{escape(text)}'


def note(text: str) -> str:
    """A paragraph in small print, of Markdown."""
    return f"*{text}*"


def missing(text: str) -> str:
    """A paragraph, of Markdown, that says how to make results that are not there."""
    return f"> {text}"


def problem(text: str, what: str = "Left out") -> str:
    """A paragraph, of text, that says what is left out because something is wrong with it."""
    return f"> **{what}:** {escape(text)}."


def table(caption: str, columns: Sequence[Column]) -> str:
    """A table under its caption; the first column names the rows."""
    return f"**{escape(caption)}**\n\n{grid.markdown(columns)}"


def picture(path: Path, text: str, folder: Path) -> str:
    """A PNG file as seen from the page's folder; the text says what it shows."""
    seen = Path(os.path.relpath(path, folder)).as_posix()
    return f"![{escape(text)}]({quote(os.fsencode(seen))})"
