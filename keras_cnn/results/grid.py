"""Tables as text: Markdown for files and pages, aligned columns for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: Its own heading.
        cells: The text of each row.
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
        columns: All of the same length. Their text is Markdown, with `|` escaped.
        between: Joins a group and the heading under it.
    """
    headings = [between.join(filter(None, (c.group, c.heading))) for c in columns]
    rows = [headings, *zip(*(column.cells for column in columns), strict=True)]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows]
    ends = (":" if column.is_number else "-" for column in columns)
    rules = ["-" * (width + 1) + end for width, end in zip(widths, ends, strict=True)]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]])


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Lines of text with the cells of a column under one another, two spaces apart.

    Args:
        rows: Cells, as many in each row; a heading is a row like the others.
        right: Indices of the columns that are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if index in right else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
