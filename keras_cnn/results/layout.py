"""A table laid out: as columns, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from keras_cnn.errors import printable
from keras_cnn.recipe import measures
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results import grid
from keras_cnn.results.contents import csv_cell
from keras_cnn.results.differences import Difference
from keras_cnn.results.grid import Column
from keras_cnn.results.table import (
    ACCURACIES,
    AS_RUN,
    Line,
    OnNewImages,
    Statistic,
    Table,
    presented,
)

ON_NEW_IMAGES = "on new images, 95 percent interval"
MOST_DIFFERENCES = 24  # on a screen; of more, those that are seen
DIFFERENCES = (
    "Of the saved models' accuracy, in percentage points, paired by repeat and by test image. Each "
    "interval is by itself; p is by Holm's correction for all of them, and a difference is seen "
    "where it is below 0.05."
)


def line_by_line(table: Table) -> list[Column]:
    """The table with a line for each row and variant, and the deck's numbers on their right.

    For each measure: the best of n, where it is an accuracy, the mean ± standard deviation, and
    the deck's number, where the two are comparable.
    """
    lines = table.lines
    columns = [
        *_row_columns(lines),
        Column("variant", [line.variant for line in lines]),
        Column("n", [count_text(line) for line in lines]),
    ]
    for name in table.shown:
        mean = "mean" if MEASURES[name].varies else ""
        columns += _measured(name, {mean: lines}, _heading(name), {mean: "best of n"})
        columns += _deck(name, lines, _heading(name)) if table.comparable else []
        if name == _judged_by(table):
            columns += _on_new_images({"": lines})
    return columns


def side_by_side(table: Table, recipe: Recipe) -> list[Column]:
    """The table with a line for each row, and for each measure a column for each variant.

    The deck's numbers come first, where they are comparable: then with all rows of the recipe, run
    or not. Measures of which there is no number are left out.
    """
    run = {(line.row, line.variant): line for line in table.lines}
    run_rows, run_variants = map(set, zip(*run, strict=True))
    rows = [line for line in presented(recipe) if table.comparable or line.row in run_rows]
    by_variant = {
        variant_text(variant): [run.get((line.row, variant)) for line in rows]
        for variant in recipe.variants
        if variant in run_variants
    }
    beside = list(zip(*by_variant.values(), strict=True))  # for each row a line for each variant
    columns = [Column("row", [line.row for line in rows])]
    for heading in recipe.columns:
        cells = [
            _each(setting_text(one.settings[heading]) for one in [*filter(None, lines)] or [row])
            for row, lines in zip(rows, beside, strict=True)
        ]
        columns.append(Column(heading, cells))
    counts = [_each(count_text(line) if line else "0" for line in lines) for lines in beside]
    columns.append(Column("n", counts, is_number=True))
    as_run = variant_text(AS_RUN)
    best = {as_run: f"{as_run}, best"} if recipe.deck_figures.startswith("best") else {}
    for name in table.shown:
        group = MEASURES[name].heading
        columns += _deck(name, rows, group) if table.comparable else []
        if any(line.measures[name].mean is not None for line in table.lines):
            columns += _measured(name, by_variant, group, best)
        if name == _judged_by(table):
            columns += _on_new_images(by_variant)
    return columns


def deck_table(recipe: Recipe) -> list[Column]:
    """The deck's own table: the rows it has numbers of; no columns where it has none."""
    lines = [
        line
        for line in presented(recipe)
        if any(one.deck is not None for one in line.measures.values())
    ]
    if not lines:
        return []
    numbers = [
        Column(column.group, column.cells, is_number=True)
        for name in recipe.measures
        for column in _deck(name, lines, MEASURES[name].heading)
    ]
    return [*_row_columns(lines), *numbers]


def _row_columns(lines: Sequence[Line]) -> list[Column]:
    """The lines' rows and settings."""
    return [
        Column("row", [line.row for line in lines]),
        *(
            Column(heading, [setting_text(line.settings[heading]) for line in lines])
            for heading in lines[0].settings
        ),
    ]


def _deck(name: str, lines: Sequence[Line], group: str) -> list[Column]:
    """A column of the deck's numbers of a measure; none where it has none."""
    texts = deck_texts([line.measures[name] for line in lines])
    return [Column("deck", texts, group, is_number=True)] if {*texts} != {"-"} else []


def _measured(
    name: str,
    lines: Mapping[str, Sequence[Line | None]],
    group: str,
    best: Mapping[str, str],
) -> list[Column]:
    """A measure's columns, all with the same number of decimals, under the headings of the means.

    `best` gives by those headings that of the best of n beside them, if it is shown.
    """
    statistics = {
        heading: [line.measures[name] if line else Statistic() for line in column]
        for heading, column in lines.items()
    }
    means = [one.mean for column in statistics.values() for one in column if one.mean is not None]
    places = measures.decimals(name, means)
    columns = []
    for heading, column in statistics.items():
        if name in ACCURACIES and heading in best:
            cells = [measures.written(one.best, None, places) for one in column]
            columns.append(Column(best[heading], cells, group, is_number=True))
        cells = [measures.written(one.mean, one.sd, places) for one in column]
        columns.append(Column(heading, cells, group, is_number=True))
    return columns


def _judged_by(table: Table) -> str:
    """The measure beside which the intervals stand: the nearest to the saved models' accuracy."""
    over_images = "test_accuracy_over_images"
    return over_images if over_images in table.shown else "test_accuracy"


def _on_new_images(lines: Mapping[str, Sequence[Line | None]]) -> list[Column]:
    """Columns of intervals by heading; none where no line has one."""
    if not any(line and line.on_new_images for column in lines.values() for line in column):
        return []
    return [
        Column(heading, [_interval_text(line) for line in column], ON_NEW_IMAGES, is_number=True)
        for heading, column in lines.items()
    ]


def _interval_text(line: Line | None) -> str:
    found = line.on_new_images if line else None
    return f"{found.low:.1f} to {found.high:.1f}" if found else "-"


def difference_columns(differences: Sequence[Difference], where: bool = True) -> list[Column]:
    """The table of differences; no columns where there is none.

    Args:
        differences: One a line.
        where: Say of each of how many repeats and images it is.
    """
    if not differences:
        return []
    texts = [_difference_texts(one, where) for one in differences]
    headings = ("row", "variant", "against", "difference", "95 percent interval", "p", "which is")
    return [
        Column(heading, cells, is_number=heading in headings[3:6])
        for heading, cells in zip(headings, zip(*texts, strict=True), strict=True)
    ]


def _difference_texts(one: Difference, where: bool) -> tuple[str, ...]:
    against_row = one.variant == one.than_variant
    seen = "seen" if one.is_seen else "not seen"
    return (
        one.row,
        variant_text(one.variant),
        f"row {one.than_row}" if against_row else variant_text(one.than_variant),
        f"{one.points:+z.1f}",
        "-" if one.low is None else f"{one.low:+z.1f} to {one.high:+z.1f}",
        "< 0.001" if one.p < 0.001 else f"{one.p:.3f}",
        f"{seen} at {where_text(one)}" if where else seen,
    )


def where_text(one: Difference) -> str:
    """Of how many repeats and images a difference is: `n = 5 with 372 images`."""
    return f"n = {one.n} with {one.images:,} images"


def markdown(table: Table) -> str:
    """The table as Markdown, readable as it stands."""
    parts = [
        f"# {grid.escape(table.title)}",
        grid.escape(table.caption),
        _grid(line_by_line(table)),
    ]
    if table.differences:
        parts += ["## Differences", DIFFERENCES, _grid(difference_columns(table.differences))]
    if table.beside_deck and not table.comparable:
        lines = list({line.row: line for line in table.lines}.values())
        numbers = [column for name in table.shown for column in _deck(name, lines, _heading(name))]
        if numbers:
            parts += [
                "The deck's own figures, from CINIC-10 and the weights and settings of the deck: "
                "another measurement, not comparable with the table above.",
                _grid([Column("row", [line.row for line in lines]), *numbers]),
            ]
    parts.append(f"Again with: {grid.code(table.command)}")
    return "\n\n".join(parts) + "\n"


def comma_separated(table: Table) -> str:
    """The table as CSV, one line a row and variant, every measure in full.

    No cell is one that a spreadsheet takes for a formula.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = list(Statistic.__dataclass_fields__)
    headings = [f"{name}_{kind}" for name in MEASURES for kind in kinds]
    columns = ["row", "variant", "n", "diverged", "comparable"]
    parts = list(OnNewImages.__dataclass_fields__)
    new = [f"on_new_images_{part}" for part in parts]
    rows = [[*table.lines[0].settings, *columns, *headings, *new]]
    for line in table.lines:
        place = [line.row, line.variant, line.n, len(line.diverged), line.comparable]
        values = [getattr(line.measures[name], kind) for name in MEASURES for kind in kinds]
        ends = [getattr(line.on_new_images, part, None) for part in parts]
        rows.append([*line.settings.values(), *place, *values, *ends])
    for row in rows:
        writer.writerow(csv_cell(printable(c)) if isinstance(c, str) else c for c in row)
    return text.getvalue()


def _grid(columns: Sequence[Column]) -> str:
    return grid.markdown([Column(c.heading, c.cells, c.group) for c in columns], between=", ")


def setting_text(value: object) -> str:
    """A setting as a table's cell."""
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)


def count_text(line: Line) -> str:
    """How many runs a line is of: `3`, or `2, 1 diverged`."""
    return f"{line.n}, {len(line.diverged)} diverged" if line.diverged else str(line.n)


def variant_text(variant: str) -> str:
    """A variant's name in words: `as run`."""
    return variant.replace("_", " ")


def deck_texts(column: Sequence[Statistic]) -> list[str]:
    """The deck's numbers under one another, with the decimals of the one that has most."""
    texts = [f"{one.deck:g}" for one in column if one.deck is not None]
    places = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [measures.written(one.deck, None, places) for one in column]


def _heading(name: str) -> str:
    """With the unit, but for accuracies, whose unit is in the caption."""
    return MEASURES[name].label if name in ACCURACIES else MEASURES[name].heading


def _each(texts: Iterable[str]) -> str:
    """`adam / sgd`: what the variants of a row differ in, each text once."""
    return " / ".join(dict.fromkeys(texts))
