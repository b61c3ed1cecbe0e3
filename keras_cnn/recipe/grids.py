"""Rows that are a product: a recipe's `grid` written out before it is checked as any other rows."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping

from pydantic import ValidationError

from keras_cnn.errors import UserError
from keras_cnn.recipe.schema import Grid
from keras_cnn.recipe.strict_yaml import Document

MOST_ROWS = 10_000


def expanded(document: Document) -> Document:
    """A recipe's document with the rows of its grids after those it lists.

    Args:
        document: A mapping; its `grid` is one grid, or a list of them.

    Raises:
        UserError: A grid cannot be used; with file and line.
    """
    content = dict(document.content)
    rows = content.get("rows", [])
    if "grid" not in content or not isinstance(rows, list):
        return document  # rows that are no list are refused as in any other recipe
    grids, rows, lines = content.pop("grid"), list(rows), dict(document.lines)
    places = [("grid", n) for n in range(len(grids))] if isinstance(grids, list) else [("grid",)]
    for at, grid in zip(places, grids if isinstance(grids, list) else [grids], strict=True):
        try:
            made = _rows(Grid.model_validate(grid), len(rows))
        except ValueError as error:  # pydantic's is one too
            raise UserError(f"{document.place(*at)}: grid: {_complaint(error)}") from None
        lines |= {("rows", len(rows) + index): lines[at] for index in range(len(made))}
        rows += made
    return Document(document.path, content | {"rows": rows}, lines)


def _complaint(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _rows(grid: Grid, before: int) -> list[dict[str, object]]:
    """A grid's rows as a recipe would list them; `before` rows have numbers already."""
    axes = [
        [value if isinstance(value, dict) else {name: value} for value in values]
        for name, values in grid.across.items()
    ]
    if (count := math.prod(map(len, axes))) > MOST_ROWS:
        raise ValueError(f"across: {count:,} rows are more than {MOST_ROWS:,} rows")
    same = {"profiles": grid.profiles, "variants": grid.variants}
    rows = []
    for number, chosen in enumerate(itertools.product(*axes), start=before + 1):
        settings = dict(grid.settings)
        for values in chosen:
            settings |= values
        name = _named(grid.name, settings) if grid.name else number
        rows.append({"row": name, "settings": settings, "deck": {}, **same})
    for name, figures in grid.deck.items():
        if len(figures) != len(rows):
            raise ValueError(f"deck: {name} has {len(figures)} figures for {len(rows)} rows")
        for row, figure in zip(rows, figures, strict=True):
            row["deck"][name] = figure
    return rows


def _named(pattern: str, settings: Mapping[str, object]) -> str:
    name = re.sub(r"{(\w+)}", lambda found: str(settings.get(found[1], found[0])), pattern)
    if "{" in name:
        listed = ", ".join(settings)
        raise ValueError(f"name: {pattern!r}: braces take a row's settings ({listed})")
    return name
