"""A recipe's plots as PNG files, drawn anew where their runs changed. Never imports keras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.figure

from keras_cnn import plots
from keras_cnn.data import sources
from keras_cnn.plots import Plot
from keras_cnn.recipe import schema
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results import stamps
from keras_cnn.results.layout import setting_text
from keras_cnn.results.store import Result

# By the file's name, the runs it shows and what draws it.
Files = dict[str, tuple[Sequence[Result], Callable[[], matplotlib.figure.Figure]]]


def recipe_plots(recipe: Recipe, results: Sequence[Result], folder: Path) -> list[Path]:
    """Draws a recipe's plots; where it lists none, each row's curves and confusion matrices.

    All rows are also compared in one picture.

    A plot whose runs and recipe have not changed since it was drawn is left alone; one without a
    finished run is skipped. The results are in the order of the recipe's rows.

    Returns:
        The files' paths, in the folder.
    """
    stamped = stamps.read(folder)
    wanted = _listed(recipe, results) if recipe.figures else _of_each_row(recipe, results)
    wanted |= _comparison(recipe, results)
    for name, (runs, draw) in wanted.items():
        shown = stamps.shown(recipe, runs)
        if stamped.get(name) != [stamps.content_hash(folder / name), *shown]:
            plots.save(draw, folder / name)
            stamped[name] = [stamps.content_hash(folder / name), *shown]
    for name in [name for name in stamped if name not in (*wanted, stamps.ALL)]:
        (folder / name).unlink(missing_ok=True)  # of a recipe that had other figures
        del stamped[name]
    stamps.write(folder, stamped | {stamps.ALL: stamps.shown(recipe, results)})
    return [folder / name for name in wanted]


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


def _comparison(recipe: Recipe, results: Sequence[Result]) -> Files:
    """All rows beside one another, where an accuracy is the first of what is measured."""
    compared = {(result.place.row, result.place.variant) for result in results}
    if len(compared) < 2 or MEASURES[recipe.measures[0]].unit != "percent":
        return {}
    plot = Plot(recipe, schema.Figure(name="rows", kind="rows"), results)
    return {"rows.png": (results, partial(plots.KINDS["rows"], plot))}


def _of_each_row(recipe: Recipe, results: Sequence[Result]) -> Files:
    wanted: Files = {}
    for row in dict.fromkeys(result.place.row for result in results):
        runs = [result for result in results if result.place.row == row]
        told = [
            f"{heading} {setting_text(runs[-1].settings[name])}"
            for heading, name in recipe.columns.items()
            if runs[-1].settings.get(name) is not None
        ]
        title = ": ".join(filter(None, (f"Row {row}", ", ".join(told))))
        spec = schema.Figure(name="curves", kind="curves", title=title)
        curves = Plot(recipe, spec, runs)
        wanted[f"row-{row}-curves.png"] = (runs, partial(plots.KINDS["curves"], curves))
        for variant, repeats in curves.variants.items():
            repeats = [result for result in repeats if not result.diverged_at]
            if not repeats:
                continue
            model, source = (repeats[0].settings[name] for name in ("model", "data"))
            title = f"Row {row}, {variant}: {model} on {sources.title(source)}"
            matrix = partial(plots.confusion, title, repeats)
            wanted[f"row-{row}-{variant}-confusion.png"] = (repeats, matrix)
    return wanted
