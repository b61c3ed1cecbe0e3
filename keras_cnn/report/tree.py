"""A page as a tree of blocks, written as Markdown and as HTML from the same tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Code:
    """Words of a command line or a program."""

    text: str


@dataclass(frozen=True)
class Link:
    """A link to a heading of the page."""

    text: str
    anchor: str


Span = str | Code | Link


@dataclass(frozen=True)
class Heading:
    """A heading that links can name.

    Attributes:
        level: 1 is the page's.
        text: The heading.
        anchor: Letters, digits and hyphens.
        short: A word or two for a narrow table of contents.
    """

    level: int
    text: str
    anchor: str
    short: str = ""


@dataclass(frozen=True)
class Paragraph:
    """Running text.

    Attributes:
        spans: Its pieces.
        kind: `note` is small print, `missing` says what makes absent results, `problem` what is
            wrong with present ones.
    """

    spans: Sequence[Span]
    kind: Literal["text", "note", "missing", "problem"] = "text"


@dataclass(frozen=True)
class Column:
    """A table's column; neighbours of one `group` share it as a heading above their own."""

    heading: str
    cells: Sequence[str]
    group: str = ""
    is_number: bool = False


@dataclass(frozen=True)
class Table:
    """A table; the first column names its rows.

    Attributes:
        caption: What it shows, in a few words.
        columns: All of the same length.
    """

    caption: str
    columns: Sequence[Column]


@dataclass(frozen=True)
class Picture:
    """A PNG file.

    Attributes:
        path: Where it lies.
        text: What it shows, for who cannot see it and as its caption.
    """

    path: Path
    text: str


Block = Heading | Paragraph | Table | Picture


def prose(text: str) -> list[Span]:
    """Text whose pieces between backticks are code."""
    pieces = text.split("`")
    return [Code(piece) if index % 2 else piece for index, piece in enumerate(pieces) if piece]
