"""Results of a recipe as a table: as presented, as run, corrected. Never imports keras."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_cnn.recipe import Recipe
from keras_cnn.store import Result


@dataclass(frozen=True)
class Line:
    """One row and variant over its repeats; accuracies in percent.

    Attributes:
        row: The row's name.
        settings: What the table's columns show, by heading.
        variant: The variant's name.
        n: How many repeats.
        best_train: Train accuracy of the repeat with the best final test accuracy.
        best_test: Its test accuracy: what the deck prints.
        mean_train: Mean final train accuracy.
        mean_test: Mean final test accuracy.
        sd_train: Sample standard deviation; None for one repeat.
        sd_test: Likewise.
        deck_train: What the slide prints.
        deck_test: What the slide prints.
        comparable: Whether the slide's figures are of the same data, weights and settings.
        runs: The folders' names.
    """

    row: str
    settings: dict[str, object]
    variant: str
    n: int
    best_train: float
    best_test: float
    mean_train: float
    mean_test: float
    sd_train: float | None
    sd_test: float | None
    deck_train: float | None
    deck_test: float | None
    comparable: bool
    runs: list[str]


@dataclass(frozen=True)
class Table:
    """A recipe's table: `lines` under a `title`, a `caption`, and the `command` that gives it."""

    title: str
    caption: str
    command: str
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
                if (result.run["row"], result.run["variant"]) == (str(row.row), variant)
            ]
            if group:
                lines.append(_line(recipe, row.deck.train_accuracy, row.deck.test_accuracy, group))
    return Table(recipe.title, _caption(results), command, lines)


def _line(
    recipe: Recipe, deck_train: float | None, deck_test: float | None, group: Sequence[Result]
) -> Line:
    first = group[0].run
    flat = {**first["data"], **first["model"], **first["training"]}
    train = [100 * result.metrics["train_accuracy"] for result in group]
    test = [100 * result.metrics["test_accuracy"] for result in group]
    best = max(range(len(group)), key=test.__getitem__)
    return Line(
        row=first["row"],
        settings={heading: flat[setting] for heading, setting in recipe.columns.items()},
        variant=first["variant"],
        n=len(group),
        best_train=train[best],
        best_test=test[best],
        mean_train=statistics.fmean(train),
        mean_test=statistics.fmean(test),
        sd_train=statistics.stdev(train) if len(group) > 1 else None,
        sd_test=statistics.stdev(test) if len(group) > 1 else None,
        deck_train=deck_train,
        deck_test=deck_test,
        comparable=first["comparable"],
        runs=[result.folder.name for result in group],
    )


def _caption(results: Sequence[Result]) -> str:
    """What was measured on what: data, weights, profile, backend and machine."""
    first = results[0]
    run, where = first.run, first.environment
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    machines = sorted(
        {f"{r.environment['device']} ({r.environment['processor']})" for r in results}
    )
    weights = run["model"]["weights"]
    weights = weights if weights in ("random", "pretrained") else Path(weights).name
    name = run["data"]["data"]
    return (
        f"Profile {run['profile']}: data {Path(name).name or name}, "
        f"{first.metrics['train_images']} training and {first.metrics['test_images']} test images, "
        f"{run['data']['image_size']} pixels; {run['model']['model']} from {weights} weights; "
        f"backend {where['backend']} ({versions}), device {', '.join(machines)}. "
        "Accuracies in percent after the last epoch; ± is the sample standard deviation."
    )


def markdown(table: Table) -> str:
    """The table as Markdown, readable as it stands."""
    comparable = all(line.comparable for line in table.lines)
    headings = ["row", *table.lines[0].settings, "variant", "n"]
    headings += ["train, best of n", "test, best of n", "train, mean", "test, mean"]
    headings += ["train, deck", "test, deck"] if comparable else []
    rows = [
        [
            line.row,
            *(_setting(value) for value in line.settings.values()),
            line.variant,
            str(line.n),
            _percent(line.best_train),
            _percent(line.best_test),
            _spread(line.mean_train, line.sd_train),
            _spread(line.mean_test, line.sd_test),
            *((_whole(line.deck_train), _whole(line.deck_test)) if comparable else ()),
        ]
        for line in table.lines
    ]
    parts = [f"# {table.title}", table.caption, _grid(headings, rows)]
    if not comparable:
        parts += [
            "The slide's own figures, from CINIC-10 and the weights and settings of the deck: "
            "another measurement, not comparable with the table above.",
            _grid(["row", "train, deck", "test, deck"], _deck_rows(table.lines)),
        ]
    parts.append(f"Again with: `{table.command}`")
    return "\n\n".join(parts) + "\n"


def comma_separated(table: Table) -> str:
    """The table as CSV, one line a row and variant, figures in full."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    figures = [name for name in Line.__dataclass_fields__ if name not in ("settings", "runs")]
    writer.writerow([*table.lines[0].settings, *figures])
    for line in table.lines:
        writer.writerow([*line.settings.values(), *(getattr(line, name) for name in figures)])
    return text.getvalue()


def as_json(table: Table) -> str:
    """The table as JSON, with the folders each line is made from."""
    content = {
        "title": table.title,
        "caption": table.caption,
        "command": table.command,
        "lines": [vars(line) for line in table.lines],
    }
    return json.dumps(content, indent=2) + "\n"


def _deck_rows(lines: Sequence[Line]) -> list[list[str]]:
    decks = {line.row: (line.deck_train, line.deck_test) for line in lines}
    return [[row, _whole(train), _whole(test)] for row, (train, test) in decks.items()]


def _grid(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([line(headings), rule, *map(line, rows)])


def _setting(value: object) -> str:
    if value is None:
        return "all"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _spread(mean: float, sd: float | None) -> str:
    return f"{mean:.1f}" if sd is None else f"{mean:.1f} ± {sd:.1f}"
