"""A recipe's plots as PNG files, drawn anew where their runs changed. Never imports keras."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.figure

from keras_cnn import files, plots
from keras_cnn.data import sources
from keras_cnn.plots import DPI, Plot
from keras_cnn.recipe import schema
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results.store import Result

STAMPS = ".figures.json"

# By the file's name, the runs it shows and what draws it.
Files = dict[str, tuple[Sequence[Result], Callable[[], matplotlib.figure.Figure]]]


def recipe_plots(recipe: Recipe, results: Sequence[Result], folder: Path) -> list[Path]:
    """Draws a recipe's plots; where it lists none, each row's curves and confusion matrices.

    A plot whose runs and recipe have not changed since it was drawn is left alone; one without a
    finished run is skipped. The results are in the order of the recipe's rows.

    Returns:
        The files' paths, in the folder.
    """
    stamps = _read_stamps(folder)
    wanted = _listed(recipe, results) if recipe.figures else _of_each_row(recipe, results)
    content = recipe.model_dump_json(exclude={"path"})
    version = hashlib.sha256(content.encode()).hexdigest()
    for name, (runs, draw) in wanted.items():
        stamp = [version, *([run.folder.name, run.folder.stat().st_mtime_ns] for run in runs)]
        if stamps.get(name) != stamp or not (folder / name).is_file():
            with files.replacing(folder / name) as partial_file:
                draw().savefig(partial_file, format="png", dpi=DPI)
            stamps[name] = stamp
    files.write_text(folder / STAMPS, json.dumps(stamps))
    return [folder / name for name in wanted]


def drawn(folder: Path) -> list[Path]:
    """The plots in a folder, and the file that says of which runs they are."""
    return [*(folder / name for name in _read_stamps(folder)), folder / STAMPS]


def _listed(recipe: Recipe, results: Sequence[Result]) -> Files:
    wanted: Files = {}
    for spec in recipe.figures:
        runs = [
            result
            for result in results
            if schema.matches(spec.where, result.settings | {"row": result.place.row})
        ]
        if runs:
            draw = partial(plots.KINDS[spec.kind], Plot(recipe, spec, runs))
            wanted[f"{spec.name}.png"] = (runs, draw)
    return wanted


def _of_each_row(recipe: Recipe, results: Sequence[Result]) -> Files:
    wanted: Files = {}
    for row in dict.fromkeys(result.place.row for result in results):
        runs = [result for result in results if result.place.row == row]
        spec = schema.Figure(name="curves", kind="curves", title=f"Row {row}")
        curves = Plot(recipe, spec, runs)
        wanted[f"row-{row}-curves.png"] = (runs, partial(plots.KINDS["curves"], curves))
        for variant, repeats in curves.variants.items():
            model, source = (repeats[0].settings[name] for name in ("model", "data"))
            title = f"Row {row}, {variant}: {model} on {sources.title(source)}"
            matrix = partial(plots.confusion, title, repeats)
            wanted[f"row-{row}-{variant}-confusion.png"] = (repeats, matrix)
    return wanted


def _read_stamps(folder: Path) -> dict[str, list]:
    try:
        stamps = json.loads((folder / STAMPS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}  # then everything is drawn
    return stamps if isinstance(stamps, dict) else {}
