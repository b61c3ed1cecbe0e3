"""A table as a terminal shows it: no wider, and without columns that say nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from keras_cnn.errors import printable
from keras_cnn.results import grid, layout
from keras_cnn.results.grid import Column
from keras_cnn.results.table import Table

HEADING = 10  # letters of a heading that may make a column wider
WIDEST = 100  # letters of a line of prose


def text(table: Table, width: int) -> str:
    """The table, its caption and its differences.

    Columns without a number are left out, and settings that all lines share are told above. What
    is then too wide is left to `table.md`, and named.

    Args:
        table: The table.
        width: Of the terminal, in letters.
    """
    columns = layout.line_by_line(table)
    settings = ["variant", "n", *table.lines[0].settings]
    shared = [c for c in columns if c.heading in settings and not c.group and _is_repeated(c)]
    empty = [c for c in columns if {*c.cells} <= {"-", ""}]
    kept = [column for column in columns if column not in (*shared, *empty)]
    kept, too_wide = _fitting(kept, width)
    parts = [printable(table.title), _wrapped(table.caption, width)]
    above = [
        f"All rows: {', '.join(f'{c.heading} {c.cells[0]}' for c in shared)}." if shared else "",
        f"Without a number: {_named(empty)}." if empty else "",
        f"Left to table.md: {_named(too_wide)}." if too_wide else "",
    ]
    parts += [_wrapped(line, width) for line in above if line]
    parts += [_aligned(kept), *_differences(table, width)]
    decks = [line.measures[name].deck for line in table.lines for name in table.shown]
    if table.beside_deck and not table.comparable and any(deck is not None for deck in decks):
        parts.append("The deck's own figures, of another measurement, are in table.md.")
    parts.append(f"Again with: {table.command}")
    return "\n\n".join(parts) + "\n"


def _is_repeated(column: Column) -> bool:
    return len(column.cells) > 1 and len({*column.cells}) == 1


def _named(columns: Sequence[Column]) -> str:
    names = (", ".join(filter(None, (c.group, c.heading))) for c in columns)
    return "; ".join(dict.fromkeys(names))


def _fitting(columns: list[Column], width: int) -> tuple[list[Column], list[Column]]:
    """The columns that fit, and those left out: the best of n first, then those with most gaps.

    Rows, settings, and the accuracy with its interval, by which the table is judged, stay.
    """
    measured = [column for column in columns if column.group]
    judged = [i for i, column in enumerate(measured) if column.group == layout.ON_NEW_IMAGES]
    stay = measured[judged[0] - 1 : judged[0] + 1] if judged else measured[-1:]
    spare = [column for column in measured if column not in stay]
    spare.sort(key=lambda one: (one.heading != "best of n", -one.cells.count("-")))
    left_out = []
    while spare and max(map(grid.width, _aligned(columns).split("\n"))) > width:
        left_out.append(spare.pop(0))
        columns = [column for column in columns if column is not left_out[-1]]
    return columns, left_out


def _aligned(columns: Sequence[Column]) -> str:
    """The columns under headings of several lines."""
    headings = [_heading(column) for column in columns]
    height = max(map(len, headings))
    above = [[""] * (height - len(lines)) + lines for lines in headings]
    cells = zip(*(map(printable, column.cells) for column in columns), strict=True)
    right = [index for index, column in enumerate(columns) if column.is_number]
    return "\n".join(grid.aligned([*zip(*above, strict=True), *cells], right))


def _heading(column: Column) -> list[str]:
    words = printable(", ".join(filter(None, (column.group, column.heading))))
    letters = max(HEADING, *map(grid.width, column.cells))
    return textwrap.wrap(words, letters, break_long_words=False) or [""]


def _differences(table: Table, width: int) -> list[str]:
    if not table.differences:
        return []
    many = len(table.differences) > layout.MOST_DIFFERENCES
    shown = [one for one in table.differences if one.is_seen or not many]
    places = {layout.where_text(one) for one in table.differences}
    where = f" All are of {places.pop()}." if len(places) == 1 else ""
    parts = [_wrapped(f"Differences. {layout.DIFFERENCES}{where}", width)]
    if shown:
        parts.append(_aligned(layout.difference_columns(shown, where=not where)))
    if rest := len(table.differences) - len(shown):
        parts.append(f"{rest} others are not seen; table.md lists them.")
    return parts


def _wrapped(words: str, width: int) -> str:
    return textwrap.fill(printable(words), min(width, WIDEST), break_long_words=False)
