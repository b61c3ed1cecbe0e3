"""Rows that are a product: a recipe's `grid` written out before it is checked as any other rows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from keras_cnn.errors import UserError
from keras_cnn.recipe import strict_yaml
from keras_cnn.recipe.schema import Grid


def expanded(
    document: Mapping[str, object], path: Path, lines: dict[strict_yaml.KeyPath, int]
) -> dict[str, object]:
    """A recipe's document with the rows of its grids after those it lists.

    Args:
        document: As read from the file; `grid` is one grid, or a list of them.
        path: The file.
        lines: Line numbers of its entries; the new rows' are added.

    Raises:
        UserError: A grid cannot be used; with file and line.
    """
    if "grid" not in document:
        return dict(document)
    grids = document["grid"] if isinstance(document["grid"], list) else [document["grid"]]
    rows = document.get("rows", [])
    if not isinstance(rows, list):
        return dict(document)  # refused as any other recipe of this shape
    rows = list(rows)
    for number, content in enumerate(grids):
        at = ("grid", number) if isinstance(document["grid"], list) else ("grid",)
        try:
            made = _rows(Grid.model_validate(content), len(rows))
        except ValueError as error:  # pydantic's is one too
            raise UserError(
                f"{strict_yaml.place(str(path), lines, at)}: grid: {_complaint(error)}"
            ) from None
        lines |= {("rows", len(rows) + index): lines[at] for index in range(len(made))}
        rows += made
    return {key: value for key, value in document.items() if key != "grid"} | {"rows": rows}


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
    rows = []
    for index, chosen in enumerate(itertools.product(*axes)):
        settings = dict(grid.settings)
        for values in chosen:
            settings |= values
        rows.append(
            {
                "row": _named(grid.name, settings) if grid.name else before + index + 1,
                "settings": settings,
                "profiles": grid.profiles,
                "deck": {},
                "variants": grid.variants,
            }
        )
    for name, figures in grid.deck.items():
        if len(figures) != len(rows):
            raise ValueError(f"deck: {name} has {len(figures)} figures for {len(rows)} rows")
        for row, figure in zip(rows, figures, strict=True):
            row["deck"] = row["deck"] | {name: figure}
    return rows


def _named(pattern: str, settings: Mapping[str, object]) -> str:
    try:
        return pattern.format(**settings)
    except (LookupError, AttributeError, ValueError):
        listed = ", ".join(settings)
        raise ValueError(f"name: {pattern!r}: braces take a row's settings ({listed})") from None
