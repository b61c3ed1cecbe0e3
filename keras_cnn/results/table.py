"""Results of a recipe as a table: as presented, as run, corrected. Never imports keras."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from keras_cnn.data import sources
from keras_cnn.pretrained import named
from keras_cnn.recipe import measures
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.schema import Recipe, Row
from keras_cnn.results.store import Result

ACCURACIES = ("train_accuracy", "test_accuracy")


@dataclass(frozen=True)
class Figures:
    """One measure over the repeats of a row and variant, in the measure's unit.

    Attributes:
        best: Accuracy of the repeat with the best final test accuracy: what the deck's few-shot
            tables print. None for other measures.
        mean: None where an older result lacks the measure.
        sd: Sample standard deviation; None for one repeat.
        deck: What the slide or its notebook gives.
    """

    best: float | None
    mean: float | None
    sd: float | None
    deck: float | None


@dataclass(frozen=True)
class Line:
    """One row and variant over its repeats.

    Attributes:
        row: The row's name.
        settings: What the table's columns show, by heading.
        variant: The variant's name.
        n: How many repeats.
        comparable: Whether the deck's figures are of the same data, weights and settings.
        measures: By name, every measure of `MEASURES`.
        runs: The folders' names.
    """

    row: str
    settings: dict[str, object]
    variant: str
    n: int
    comparable: bool
    measures: dict[str, Figures]
    runs: list[str]


@dataclass(frozen=True)
class Table:
    """A recipe's table.

    Attributes:
        title: One line.
        caption: What was measured on what.
        command: What gives the table again.
        data: The images' source, in short.
        beside_deck: Whether the deck's figures are of interest: not for a user's own images.
        shown: The measures a reader sees; CSV and JSON hold all.
        lines: Rows and variants in the recipe's order.
    """

    title: str
    caption: str
    command: str
    data: str
    beside_deck: bool
    shown: list[str]
    lines: list[Line]


def build(recipe: Recipe, results: Sequence[Result], command: str) -> Table:
    """Gathers the repeats of each row and variant.

    Args:
        recipe: The recipe.
        results: Finished runs of it, at least one.
        command: What gives the table again.
    """
    lines = []
    for row in recipe.rows:
        for variant in recipe.variants:
            group = [
                result
                for result in results
                if (result.place.row, result.place.variant) == (str(row.row), variant)
            ]
            if group:
                lines.append(_line(recipe, row, group))
    beside_deck = all(sources.is_named(result.settings["data"]) for result in results)
    return Table(
        title=recipe.title,
        caption=_caption(recipe, results, beside_deck),
        command=command,
        data=_data(results[0]),
        beside_deck=beside_deck,
        shown=recipe.measures,
        lines=lines,
    )


def _line(recipe: Recipe, row: Row, group: Sequence[Result]) -> Line:
    first = group[0]
    return Line(
        row=first.place.row,
        settings={
            heading: first.settings.get(name, "-") for heading, name in recipe.columns.items()
        },
        variant=first.place.variant,
        n=len(group),
        comparable=first.place.comparable,
        measures={name: _figures(name, row, group) for name in MEASURES},
        runs=[result.folder.name for result in group],
    )


def _figures(name: str, row: Row, group: Sequence[Result]) -> Figures:
    values = [measures.final(result, name) for result in group]
    deck = getattr(row.deck, name, None)
    if None in values:
        return Figures(None, None, None, deck)
    best = max(range(len(group)), key=lambda index: group[index].metrics["test_accuracy"])
    return Figures(
        best=values[best] if name in ACCURACIES else None,
        mean=float(np.mean(values)),  # nan where a run diverged
        sd=float(np.std(values, ddof=1)) if len(values) > 1 and MEASURES[name].varies else None,
        deck=deck,
    )


def _caption(recipe: Recipe, results: Sequence[Result], beside_deck: bool) -> str:
    """What was measured on what, by which software and machine, and how to read the figures."""
    versions: dict[str, set[str]] = {}
    for result in results:
        for name, version in result.environment["versions"].items():
            versions.setdefault(name, set()).add(version)
    machines = {f"{r.environment['device']} ({r.environment['processor']})" for r in results}
    models = {
        f"{r.settings['model']} from {named.weights_title(r.settings['weights'])}" for r in results
    }
    backends = {r.environment["backend"] for r in results}
    plural = "s" if len(backends) > 1 else ""
    sentences = [
        f"Profile {_listed({r.place.profile for r in results})}: "
        f"data {_listed({_data(r) for r in results})}, "
        f"{_range(r.metrics['train_images'] for r in results)} training and "
        f"{_range(r.metrics['test_images'] for r in results)} test images, "
        f"{_range(r.settings['image_size'] for r in results)} pixels; {_listed(models)}; "
        f"backend{plural} {_listed(backends)} "
        f"({', '.join(f'{name} {_listed(found)}' for name, found in versions.items())}), "
        f"device {_listed(machines)}.",
        "Accuracies in percent, after the last epoch; ± is the sample standard deviation.",
    ]
    if set(recipe.measures) & set(ACCURACIES):
        sentences.append("Best of n is the repeat with the best test accuracy.")
    if beside_deck and any(row.deck.model_fields_set for row in recipe.rows):
        sentences.append(f"The deck's figures: {recipe.deck_figures}.")
    return " ".join([*sentences, recipe.note]).strip()


def _data(result: Result) -> str:
    return sources.title(result.settings["data"])


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _range(counts: Iterable[int]) -> str:
    """`1,000`, or `10 to 1,000`."""
    found = sorted(set(counts))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


def markdown(table: Table) -> str:
    """The table as Markdown, readable as it stands."""
    lines = table.lines
    on_slide = [
        name for name in table.shown if any(line.measures[name].deck is not None for line in lines)
    ]
    comparable = all(line.comparable for line in lines)
    columns = {"row": [line.row for line in lines]}
    for heading in lines[0].settings:
        columns[heading] = [setting_text(line.settings[heading]) for line in lines]
    columns["variant"] = [line.variant for line in lines]
    columns["n"] = [str(line.n) for line in lines]
    for name in table.shown:
        of_lines = [line.measures[name] for line in lines]
        means = [figures.mean for figures in of_lines if figures.mean is not None]
        places = measures.decimals(name, means)
        heading = _heading(name)
        if name in ACCURACIES:
            columns[f"{heading}, best of n"] = [
                measures.written(figures.best, None, places) for figures in of_lines
            ]
        columns[f"{heading}, mean" if MEASURES[name].varies else heading] = [
            measures.written(figures.mean, figures.sd, places) for figures in of_lines
        ]
        if comparable and name in on_slide:
            columns[f"{heading}, deck"] = deck_texts(of_lines)
    parts = [f"# {table.title}", table.caption, _grid(columns)]
    if on_slide and table.beside_deck and not comparable:
        by_row = {line.row: line.measures for line in lines}
        slide = {"row": list(by_row)}
        for name in on_slide:
            of_rows = [of_row[name] for of_row in by_row.values()]
            slide[f"{_heading(name)}, deck"] = deck_texts(of_rows)
        parts += [
            "The deck's own figures, from CINIC-10 and the weights and settings of the deck: "
            "another measurement, not comparable with the table above.",
            _grid(slide),
        ]
    parts.append(f"Again with: `{table.command}`")
    return "\n\n".join(parts) + "\n"


def comma_separated(table: Table) -> str:
    """The table as CSV, one line a row and variant, every measure in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    kinds = list(Figures.__dataclass_fields__)
    headings = [f"{name}_{kind}" for name in MEASURES for kind in kinds]
    writer.writerow([*table.lines[0].settings, "row", "variant", "n", "comparable", *headings])
    for line in table.lines:
        figures = [getattr(line.measures[name], kind) for name in MEASURES for kind in kinds]
        writer.writerow(
            [*line.settings.values(), line.row, line.variant, line.n, line.comparable, *figures]
        )
    return text.getvalue()


def as_json(table: Table) -> str:
    """The table as JSON, every measure in full, with the folders each line is made from.

    A figure of a diverged run, which is no number, is null: JSON has no word for it.
    """
    content = json.loads(json.dumps(asdict(table)), parse_constant=lambda constant: None)
    return json.dumps(content, indent=2) + "\n"


def _grid(columns: Mapping[str, Sequence[str]]) -> str:
    widths = [max(map(len, [heading, *cells])) for heading, cells in columns.items()]

    def line(cells: Iterable[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([line(columns), rule, *map(line, zip(*columns.values(), strict=True))])


def setting_text(value: object) -> str:
    """A setting as a table's cell."""
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _heading(name: str) -> str:
    """With the unit, but that of accuracies, which the caption gives."""
    return MEASURES[name].label if name in ACCURACIES else MEASURES[name].heading


def deck_texts(column: Sequence[Figures]) -> list[str]:
    """The deck's figures under one another, with the decimals of the one that has most."""
    texts = [f"{figures.deck:g}" for figures in column if figures.deck is not None]
    places = max((len(text.partition(".")[2]) for text in texts), default=0)
    return [measures.written(figures.deck, None, places) for figures in column]
