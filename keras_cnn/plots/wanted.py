"""Which pictures a recipe wants, drawn where their runs changed. Never imports keras."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.figure

from keras_cnn import files, plots
from keras_cnn.data import sources
from keras_cnn.plots import Picture
from keras_cnn.recipe import schema
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results.store import Result

STAMPS = ".figures.json"


def draw(plan: Recipe, results: Sequence[Result], folder: Path) -> list[Path]:
    """Draws a recipe's figures; where it lists none, each row's curves and confusion matrices.

    A picture whose runs and recipe have not changed since it was drawn is left alone; one that no
    finished run belongs to is skipped.

    Args:
        plan: The recipe.
        results: Finished runs of it, in the order of its rows.
        folder: Where the pictures go.

    Returns:
        The pictures' paths.
    """
    stamps_path = folder / STAMPS
    stamps = _read_stamps(stamps_path)
    wanted = _figures(plan, results) if plan.figures else _rows(plan, results)
    content = plan.model_dump_json(exclude={"path"})
    version = hashlib.sha256(content.encode()).hexdigest()
    for name, (group, picture) in wanted.items():
        stamp = [version, *([r.folder.name, r.folder.stat().st_mtime_ns] for r in group)]
        if stamps.get(name) != stamp or not (folder / name).is_file():
            with files.replacing(folder / name) as partial_file:
                picture().savefig(partial_file, format="png", dpi=120)
            stamps[name] = stamp
    files.write_text(stamps_path, json.dumps(stamps))
    return [folder / name for name in wanted]


def drawn(folder: Path) -> list[Path]:
    """What `draw` left in a folder: pictures, and what it remembers of them."""
    stamps = folder / STAMPS
    return [*(folder / name for name in _read_stamps(stamps)), stamps]


# The file's name, to the runs it is drawn from and what draws it.
Wanted = dict[str, tuple[Sequence[Result], Callable[[], matplotlib.figure.Figure]]]


def _figures(plan: Recipe, results: Sequence[Result]) -> Wanted:
    wanted: Wanted = {}
    for figure in plan.figures:
        group = [
            result
            for result in results
            if schema.matches(figure.where, result.settings | {"row": result.place.row})
        ]
        if group:
            picture = partial(plots.KINDS[figure.kind], Picture(plan, figure, group))
            wanted[f"{figure.name}.png"] = (group, picture)
    return wanted


def _rows(plan: Recipe, results: Sequence[Result]) -> Wanted:
    wanted: Wanted = {}
    for row in dict.fromkeys(result.place.row for result in results):
        of_row = [result for result in results if result.place.row == row]
        figure = schema.Figure(name="curves", kind="curves", title=f"Row {row}")
        curves = Picture(plan, figure, of_row)
        wanted[f"row-{row}-curves.png"] = (of_row, partial(plots.KINDS["curves"], curves))
        for variant, group in curves.variants.items():
            settings = group[0].settings
            data = sources.title(settings["data"])
            heading = f"Row {row}, {variant}: {settings['model']} on {data}"
            matrix = partial(plots.confusion, heading, group)
            wanted[f"row-{row}-{variant}-confusion.png"] = (group, matrix)
    return wanted


def _read_stamps(path: Path) -> dict[str, list]:
    try:
        stamps = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # then everything is drawn
    return stamps if isinstance(stamps, dict) else {}
