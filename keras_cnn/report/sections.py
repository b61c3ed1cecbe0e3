"""The parts of the page: a slide, a recipe without one, a defect. Each is a list of paragraphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from keras_cnn.deck.slides import Defect, Network, Slide
from keras_cnn.errors import UserError
from keras_cnn.recipe import resolve
from keras_cnn.recipe.schema import Recipe
from keras_cnn.report import markdown
from keras_cnn.report.markdown import code, escape, heading, link, missing, note, problem, prose
from keras_cnn.report.published import published
from keras_cnn.report.sentences import SENTENCES
from keras_cnn.results.collect import Collected
from keras_cnn.results.grid import Column
from keras_cnn.results.layout import (
    DIFFERENCES,
    MOST_DIFFERENCES,
    deck_table,
    difference_columns,
    side_by_side,
    variant_text,
)
from keras_cnn.results.table import Table

BATCH = 64  # of the summary slides
TOTALS = {
    "parameters": "parameters",
    "mult_adds": "mult-adds",
    "input_megabytes": "input, MB",
    "forward_backward_megabytes": "forward and backward pass, MB",
    "parameters_megabytes": "parameters, MB",
    "total_megabytes": "total, MB",
}


def slide_section(
    slide: Slide, recipes: Sequence[Collected], anchors: Mapping[str, str], folder: Path
) -> list[str]:
    """What a slide shows: the deck's, as run, corrected.

    Args:
        slide: The slide.
        recipes: The results of the recipes that name it.
        anchors: By recipe, the heading its table stands under.
        folder: Of the page.
    """
    words = numbers(slide.slides)
    short = words.removeprefix("slides ").removeprefix("slide ").replace(" and ", ", ")
    title = f"{words.capitalize()}: {slide.heading}"
    parts = [heading(3, title, slide.anchor, short), prose(slide.text)]
    for network in slide.networks:
        parts += _network(network)
    for collected in recipes:
        if slide.table:
            parts += _tables(collected, folder)
        elif collected.lines:
            source = link(f"the table of {collected.recipe.name}", anchors[collected.recipe.name])
            parts.append(note(f"From the runs of {source} ({escape(collected.source)})."))
        else:
            parts += [*map(problem, collected.problems), _not_measured(collected)]
        pictures = _pictures(collected, slide.pictures, folder, all_rows=slide.table)
        parts += pictures
        if collected.lines and slide.pictures and not slide.table and not pictures:
            parts.append(_not_measured(collected))
    return parts


def recipe_section(collected: Collected, folder: Path) -> list[str]:
    """A recipe that no slide shows."""
    recipe = collected.recipe
    title = heading(3, recipe.title, f"recipe-{recipe.name}", recipe.name)
    return [title, *_tables(collected, folder), *_pictures(collected, None, folder, all_rows=True)]


def defect_section(
    defect: Defect, recipes: Mapping[str, Collected], anchors: Mapping[str, str]
) -> list[str]:
    """What the deck did, where, and what it changes in the results at hand, by recipe."""
    title = f"{defect.number}. {defect.heading}"
    parts = [
        heading(3, title, f"defect-{defect.number}", f"defect {defect.number}"),
        f"{prose(defect.text)} Where: {numbers(defect.slides)}.",
    ]
    if defect.deck:
        parts.append(f"In the deck's own figures: {prose(defect.deck)}")
    commands = []
    for name, sentence in defect.measured.items():
        if name not in recipes:
            continue
        text = SENTENCES[sentence](recipes[name])
        if text is None:
            commands.append(code(recipes[name].command))
        else:
            source = escape(recipes[name].source)
            parts.append(f"Measured, {link(name, anchors[name])} ({source}): {escape(text)}")
    if commands:
        parts.append(missing(f"Not measured here yet: {', '.join(commands)}"))
    return parts


def at_hand(recipes: Sequence[Collected]) -> str:
    """Which recipes have results, and from which data."""
    return markdown.table(
        "Results at hand",
        [
            Column("recipe", [one.recipe.name for one in recipes]),
            Column("slides", [", ".join(map(str, one.recipe.slides)) or "-" for one in recipes]),
            Column("runs", [str(len(one.results)) for one in recipes], is_number=True),
            Column("made on", [one.source if one.results else "-" for one in recipes]),
        ],
    )


def numbers(slides: Sequence[int]) -> str:
    """`slide 3`, `slides 3 and 4`, `slides 5 to 7`, `slides 5, 6 and 9`."""
    if len(slides) == 1:
        return f"slide {slides[0]}"
    if len(slides) > 2 and list(slides) == list(range(slides[0], slides[-1] + 1)):
        return f"slides {slides[0]} to {slides[-1]}"
    return f"slides {', '.join(map(str, slides[:-1]))} and {slides[-1]}"


def _tables(collected: Collected, folder: Path) -> list[str]:
    """A recipe's table, and the deck's own where it is another measurement."""
    recipe, made = collected.recipe, collected.table
    problems = [problem(text) for text in collected.problems]
    parts = []
    if not (made and made.comparable) and (deck := deck_table(recipe)):
        parts.append(markdown.table(f"The deck's figures ({recipe.deck_figures})", deck))
    if not made:
        return [*parts, *problems, _not_measured(collected), *published(recipe, folder)]
    columns = side_by_side(made, recipe)
    deck = ["the deck"] if any(column.heading == "deck" for column in columns) else []
    run = [name for name in recipe.variants if any(name == line.variant for line in made.lines)]
    beside = ", ".join([*deck, *map(variant_text, run)])
    again = f" Made by {code(made.command)}." if made.command else ""
    parts += [
        markdown.table(f"{recipe.title}: {beside}", columns),
        note(f"{escape(made.caption)}{again}"),
        *_differences(made),
        *problems,
    ]
    rows = dict.fromkeys(str(row.row) for row in recipe.rows)
    absent = rows.keys() - {line.row for line in made.lines}
    if absent:
        names = ", ".join(row for row in rows if row in absent)
        command = f"{collected.command} --rows={resolve.ALL}"
        parts.append(missing(f"Rows not measured here yet ({names}): {code(command)}"))
    return parts


def _differences(made: Table) -> list[str]:
    """The table of differences; of many, of those that are seen."""
    found = made.differences
    if not found:
        return []
    shown = [one for one in found if one.is_seen or len(found) <= MOST_DIFFERENCES]
    rest = len(found) - len(shown)
    others = f" {rest} others are not seen." if rest else ""
    table = markdown.table(f"{made.title}: differences", difference_columns(shown)) if shown else ""
    return [*filter(None, (table, note(escape(f"{DIFFERENCES}{others}"))))]


def _not_measured(collected: Collected) -> str:
    return missing(f"Not measured here yet: {code(collected.command)}")


def _pictures(
    collected: Collected, patterns: Sequence[str] | None, folder: Path, all_rows: bool
) -> list[str]:
    """The recipe's pictures of the runs at hand, drawn anew where these have changed."""
    recipe = collected.recipe
    if patterns is None:
        patterns = [f"{figure.name}.png" for figure in recipe.figures]
    patterns = [*patterns, *(["rows.png"] if all_rows else [])]
    if not patterns or not collected.results:
        return []
    from keras_cnn.plots import draw

    try:
        paths = draw.recipe_plots(recipe, collected.results, collected.folder)
    except (UserError, OSError) as error:
        return [problem(str(error), "Pictures left out")]
    return [
        markdown.picture(path, _description(recipe, path), folder)
        for path in paths
        if any(fnmatch(path.name, pattern) for pattern in patterns)
    ]


def _description(recipe: Recipe, path: Path) -> str:
    titles = {figure.name: figure.title or recipe.title for figure in recipe.figures}
    if path.stem in titles:
        return f"{titles[path.stem]} ({recipe.name})"
    row, _, kind = path.stem.removeprefix("row-").rpartition("-")
    for variant in recipe.variants:
        row = row.replace(f"-{variant}", f", {variant_text(variant)}")
    if path.stem == "rows":
        return f"Accuracy of the saved models on new images, row by row ({recipe.name})"
    kinds = {"curves": "accuracy and loss by epoch", "confusion": "confusion matrix"}
    return f"Row {row}: {kinds.get(kind, kind)} ({recipe.name})"


def _network(network: Network) -> list[str]:
    """A network's layers and totals, counted here, beside the totals the slide prints."""
    from keras_cnn import models  # keras from here on
    from keras_cnn.models import summary

    graph = models.classifier(
        network.model,
        class_count=10,
        dropout=models.network(network.model).dropout,
        hidden_units=network.hidden_units,
    )
    counted = summary.summarise(graph, BATCH)
    name = f"{network.model.capitalize()}, {network.hidden_units} hidden units"
    layers = list(_flat(counted.model))
    here = [_total(key, getattr(counted, key)) for key in TOTALS]
    return [
        markdown.table(
            f"{name}: totals for a batch of {BATCH}",
            [
                Column("", list(TOTALS.values())),
                Column("deck", [_total(key, network.deck[key]) for key in TOTALS], "", True),
                Column("here", here, "", True),
            ],
        ),
        markdown.table(
            f"{name}: layers",
            [
                Column("layer", [_indented(layer) for layer in layers]),
                Column("kind", [layer.kind for layer in layers]),
                Column("output", [str(layer.output_shapes[0]) for layer in layers]),
                Column("parameters", [f"{layer.parameters:,}" for layer in layers], "", True),
            ],
        ),
    ]


def _flat(layer: object) -> list:
    """A layer's layers, blocks before what they are made of."""
    return [one for child in layer.layers for one in (child, *_flat(child))]


def _indented(layer: object) -> str:
    return "\N{NO-BREAK SPACE}" * 3 * (layer.depth - 1) + layer.name


def _total(key: str, number: float) -> str:
    if key == "mult_adds":
        return f"{number / 1e9:.2f} G" if number >= 1e9 else f"{number / 1e6:.2f} M"
    return f"{number:,}" if key == "parameters" else f"{number:,.2f}"
