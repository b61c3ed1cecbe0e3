"""Tables as text: Markdown for files and pages, aligned columns for a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from keras_cnn.errors import printable

# What Markdown would read as markup; an underscore inside a word and a lone ampersand are not.
SPECIAL = re.compile(r"[\\`*\[\]<>|~$]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: Its own heading.
        cells: The text of each row; any text, which is shown as it is.
        group: A second heading, shared with its neighbours; may be empty.
        is_number: Numbers are aligned to the right.
    """

    heading: str
    cells: Sequence[str]
    group: str = ""
    is_number: bool = False


def markdown(columns: Sequence[Column], between: str = ": ") -> str:
    """A Markdown table whose cells are padded, so that it can be read as it stands.

    Args:
        columns: All of the same length.
        between: Joins a group and the heading under it.
    """
    headings = [between.join(filter(None, (c.group, c.heading))) for c in columns]
    texts = [headings, *zip(*(column.cells for column in columns), strict=True)]
    rows = [[escape(text) for text in row] for row in texts]
    widths = [max(map(width, cells)) for cells in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(map(_padded, row, widths))} |" for row in rows]
    ends = (":" if column.is_number else "-" for column in columns)
    rules = ["-" * (letters + 1) + end for letters, end in zip(widths, ends, strict=True)]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


def escape(text: str) -> str:
    """Text as Markdown that reads back as it is, in a paragraph as in a table's cell."""
    escaped = SPECIAL.sub(r"\\\g<0>", printable(text.replace("\n", " ")))
    return escaped.replace("\N{NO-BREAK SPACE}", "&nbsp;")  # itself is cut off from a cell's ends


def code(text: str) -> str:
    """Words of a command line or a program as Markdown."""
    text = printable(text)
    # A fence one longer than the longest run of backticks inside.
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lines of text with the cells of a column under one another, two spaces apart.

    Args:
        rows: Cells, as many in each row; a heading is a row like the others.
        right: Indices of the columns that are aligned to the right.
    """
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            _padded(cell, letters, index in right)
            for index, (cell, letters) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def width(text: str) -> int:
    """How wide text is, in letters: Chinese, Japanese and Korean characters count as two."""
    return sum(
        0 if unicodedata.combining(one) else 1 + (unicodedata.east_asian_width(one) in "WF")
        for one in text
    )


def _padded(text: str, letters: int, right: bool = False) -> str:
    spaces = " " * (letters - width(text))
    return spaces + text if right else text + spaces
