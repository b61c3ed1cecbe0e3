"""The parts of the page: a slide, a recipe without one, a defect. Each gives blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from keras_cnn.deck.slides import Defect, Network, Slide
from keras_cnn.errors import UserError
from keras_cnn.recipe import measures, resolve
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.schema import Recipe, Row
from keras_cnn.report.effects import AS_RUN, EFFECTS
from keras_cnn.report.evidence import Evidence
from keras_cnn.report.tree import (
    Block,
    Code,
    Column,
    Heading,
    Link,
    Paragraph,
    Picture,
    Span,
    Table,
    prose,
)
from keras_cnn.results import table
from keras_cnn.results.table import Figures, Line

NO_FIGURES = Figures(None, None, None, None)
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
    slide: Slide, found: Sequence[Evidence], anchors: Mapping[str, str]
) -> list[Block]:
    """What a slide shows: the deck's, as run, corrected.

    Args:
        slide: The slide.
        found: What is at hand of the recipes that name it.
        anchors: By recipe, the heading its table stands under.
    """
    words = numbers(slide.slides)
    short = words.removeprefix("slides ").removeprefix("slide ").replace(" and ", ", ")
    heading = Heading(3, f"{words.capitalize()}: {slide.heading}", slide.anchor, short)
    blocks: list[Block] = [heading, Paragraph(prose(slide.text))]
    for network in slide.networks:
        blocks += _network(network)
    for evidence in found:
        blocks += _recipe(evidence, slide.table, slide.pictures, anchors)
    return blocks


def recipe_section(found: Evidence, anchors: Mapping[str, str]) -> list[Block]:
    """A recipe that no slide shows."""
    heading = Heading(3, found.plan.title, f"recipe-{found.plan.name}", found.plan.name)
    return [heading, *_recipe(found, True, None, anchors)]


def defect_section(
    defect: Defect, found: Mapping[str, Evidence], anchors: Mapping[str, str]
) -> list[Block]:
    """What the deck did, where, and what it changes in the results at hand.

    Args:
        defect: The defect.
        found: By recipe.
        anchors: By recipe, the heading its table stands under.
    """
    title = f"{defect.number}. {defect.heading}"
    blocks: list[Block] = [
        Heading(3, title, f"defect-{defect.number}", f"defect {defect.number}"),
        Paragraph([*prose(defect.text), f" Where: {numbers(defect.slides)}."]),
    ]
    if defect.deck:
        blocks.append(Paragraph(["In the deck's own figures: ", *prose(defect.deck)]))
    missing: list[Span] = []
    for name, effect in defect.measured.items():
        if name not in found:
            continue
        text = EFFECTS[effect](found[name])
        if text is None:
            missing += [", " if missing else "Not measured here yet: ", Code(found[name].command)]
        else:
            link = Link(name, anchors[name])
            blocks.append(Paragraph(["Measured, ", link, f" ({found[name].source}): {text}"]))
    if missing:
        blocks.append(Paragraph(missing, "missing"))
    return blocks


def at_hand(found: Sequence[Evidence]) -> Table:
    """Which recipes have results, and of what."""
    return Table(
        "Results at hand",
        [
            Column("recipe", [evidence.plan.name for evidence in found]),
            Column("slides", [", ".join(map(str, e.plan.slides)) or "-" for e in found]),
            Column("runs", [str(len(evidence.results)) for evidence in found], is_number=True),
            Column("made on", [e.source if e.results else "-" for e in found]),
        ],
    )


def numbers(slides: Sequence[int]) -> str:
    """`slide 3`, `slides 3 and 4`, `slides 5 to 7`, `slides 5, 6 and 9`."""
    if len(slides) == 1:
        return f"slide {slides[0]}"
    if len(slides) > 2 and list(slides) == list(range(slides[0], slides[-1] + 1)):
        return f"slides {slides[0]} to {slides[-1]}"
    return f"slides {', '.join(map(str, slides[:-1]))} and {slides[-1]}"


def _recipe(
    found: Evidence,
    has_table: bool,
    patterns: Sequence[str] | None,
    anchors: Mapping[str, str],
) -> list[Block]:
    """A recipe's table and pictures, or what makes them."""
    plan, blocks = found.plan, []
    comparable = all(line.comparable for line in found.lines)
    if has_table and not (found.lines and comparable):
        blocks += _deck_table(plan)
    if not found.lines:
        return [*blocks, *_problems(found), _missing(found)]
    if has_table:
        blocks += [_side_by_side(found, comparable), _source(found), *_problems(found)]
        rows = [str(row.row) for row in plan.rows]
        absent = [row for row in rows if all(line.row != row for line in found.lines)]
        if absent:
            blocks.append(_missing(found, f"Rows not measured here yet ({', '.join(absent)}): "))
    else:
        link = Link(f"the table of {plan.name}", anchors[plan.name])
        blocks.append(Paragraph(["From the runs of ", link, f" ({found.source})."], "note"))
    pictures = _pictures(found, patterns)
    if patterns and not has_table and not any(isinstance(block, Picture) for block in pictures):
        pictures.append(_missing(found))
    return [*blocks, *pictures]


def _missing(found: Evidence, words: str = "Not measured here yet: ") -> Paragraph:
    return Paragraph([words, Code(found.command)], "missing")


def _problems(found: Evidence) -> list[Block]:
    return [Paragraph([f"Left out: {problem}."], "problem") for problem in found.problems]


def _source(found: Evidence) -> Paragraph:
    """Data, weights, backend, versions, and the command that was given."""
    again = [" Made by ", Code(found.table.command), "."] if found.table.command else []
    return Paragraph([found.table.caption, *again], "note")


def _pictures(found: Evidence, patterns: Sequence[str] | None) -> list[Block]:
    """The recipe's pictures of the runs at hand, drawn anew where these have changed."""
    if patterns is None:
        patterns = ["*"] if found.plan.figures else []
    if not patterns:
        return []
    from keras_cnn.plots import wanted

    try:
        paths = wanted.draw(found.plan, found.results, found.folder)
    except (UserError, OSError) as error:
        return [Paragraph([f"Pictures left out: {error}."], "problem")]
    return [
        Picture(path, _description(found.plan, path))
        for path in paths
        if any(fnmatch(path.name, pattern) for pattern in patterns)
    ]


def _description(plan: Recipe, path: Path) -> str:
    titles = {figure.name: figure.title or plan.title for figure in plan.figures}
    if path.stem in titles:
        return f"{titles[path.stem]} ({plan.name})"
    row, _, kind = path.stem.removeprefix("row-").rpartition("-")
    for variant in plan.variants:
        row = row.replace(f"-{variant}", f", {_words(variant)}")
    kinds = {"curves": "accuracy and loss by epoch", "confusion": "confusion matrix"}
    return f"Row {row}: {kinds.get(kind, kind)} ({plan.name})"


def _deck_table(plan: Recipe) -> list[Block]:
    """The deck's own figures; nothing where a recipe has none."""
    rows = [row for row in plan.rows if row.deck.model_fields_set]
    if not rows:
        return []
    shown = [name for name in plan.measures if any(_deck(row, name) is not None for row in rows)]
    columns = [Column("row", [str(row.row) for row in rows]), *_settings(plan, rows, None)]
    columns += [
        Column(MEASURES[name].heading, _deck_cells(rows, name), is_number=True) for name in shown
    ]
    caption = f"The deck's figures ({plan.deck_figures})"
    return [Table(caption, columns)]


def _side_by_side(found: Evidence, comparable: bool) -> Table:
    """Of each row and measure the deck's figure and, beside it, that of each variant.

    The deck's figures stand here only where they are of the same measurement: then with all rows
    of the recipe, run or not.
    """
    plan = found.plan
    rows = [
        row
        for row in plan.rows
        if comparable or any(line.row == str(row.row) for line in found.lines)
    ]
    names = [name for name in plan.variants if any(line.variant == name for line in found.lines)]
    lines = {name: [found.line(str(row.row), name) for row in rows] for name in names}
    counts = zip(*([line.n if line else 0 for line in of] for of in lines.values()), strict=True)
    columns = [
        Column("row", [str(row.row) for row in rows]),
        *_settings(plan, rows, found),
        Column("n", [" / ".join(dict.fromkeys(map(str, n))) for n in counts], is_number=True),
    ]
    for measure in plan.measures:
        group = MEASURES[measure].heading
        if comparable and any(_deck(row, measure) is not None for row in rows):
            columns.append(Column("deck", _deck_cells(rows, measure), group, is_number=True))
        columns += _measured(measure, lines, plan.deck_figures.startswith("best"))
    has_deck = any(column.heading == "deck" for column in columns)
    beside = [*(["the deck"] if has_deck else []), *map(_words, names)]
    return Table(f"{plan.title}: {', '.join(beside)}", columns)


def _measured(
    measure: str, lines: Mapping[str, Sequence[Line | None]], prints_best: bool
) -> list[Column]:
    """A measure's columns, one a variant, and the best of n where the deck prints it; or none.

    Args:
        measure: Its name.
        lines: By variant, a line for each row; None where it was not run.
        prints_best: Whether the deck's figures are of its best run.
    """
    group = MEASURES[measure].heading
    figures = {
        name: [line.measures[measure] if line else NO_FIGURES for line in of]
        for name, of in lines.items()
    }
    means = [one.mean for of in figures.values() for one in of if one.mean is not None]
    if not means:
        return []
    places = measures.decimals(measure, means)
    columns = []
    for name, of in figures.items():
        if measure in table.ACCURACIES and name == AS_RUN and prints_best:
            best = [measures.written(one.best, None, places) for one in of]
            columns.append(Column(f"{_words(name)}, best", best, group, is_number=True))
        cells = [measures.written(one.mean, one.sd, places) for one in of]
        columns.append(Column(_words(name), cells, group, is_number=True))
    return columns


def _settings(plan: Recipe, rows: Sequence[Row], found: Evidence | None) -> list[Column]:
    """The recipe's own columns: of the runs at hand, else as the deck set them."""
    deck = {}
    for run in resolve.runs(plan, "deck", repeats=1):
        deck.setdefault(run.place.row, run.spec.settings)
    columns = []
    for heading, name in plan.columns.items():
        cells = []
        for row in map(str, (row.row for row in rows)):
            here = (
                [line.settings[heading] for line in found.lines if line.row == row] if found else []
            )
            texts = map(table.setting_text, here or [deck[row].get(name, "-")])
            cells.append(" / ".join(dict.fromkeys(texts)))  # variants may differ
        columns.append(Column(heading, cells))
    return columns


def _deck(row: Row, measure: str) -> float | None:
    return getattr(row.deck, measure, None)


def _deck_cells(rows: Sequence[Row], measure: str) -> list[str]:
    return table.deck_texts([Figures(None, None, None, _deck(row, measure)) for row in rows])


def _network(network: Network) -> list[Block]:
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
        Table(
            f"{name}: totals for a batch of {BATCH}",
            [
                Column("", list(TOTALS.values())),
                Column("deck", [_total(key, network.deck.get(key)) for key in TOTALS], "", True),
                Column("here", here, "", True),
            ],
        ),
        Table(
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


def _total(key: str, figure: float | None) -> str:
    if figure is None:
        return "-"
    if key == "parameters":
        return f"{figure:,}"
    if key == "mult_adds":
        return f"{figure / 1e9:.2f} G" if figure >= 1e9 else f"{figure / 1e6:.2f} M"
    return f"{figure:,.2f}"


def _words(variant: str) -> str:
    return variant.replace("_", " ")
