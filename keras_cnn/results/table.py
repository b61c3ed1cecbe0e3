"""Results of a recipe as a table: as presented, as run, corrected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field

from keras_cnn import files
from keras_cnn.data import sources
from keras_cnn.recipe import measures, resolve
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.schema import Recipe, Row
from keras_cnn.results import caption, differences, intervals
from keras_cnn.results.differences import Answers, Difference, Name
from keras_cnn.results.store import Result

ACCURACIES = ("train_accuracy", "test_accuracy")
AS_RUN = "as_run"


@dataclass(frozen=True)
class Statistic:
    """One measure over the repeats of a row and variant, in the measure's unit.

    Attributes:
        best: Accuracy of the repeat with the best final test accuracy, as the deck's few-shot
            tables print it; None for other measures.
        mean: None where an older result lacks the measure.
        sd: Sample standard deviation; None for one repeat.
        deck: What the slide or its notebook gives.
    """

    best: float | None = None
    mean: float | None = None
    sd: float | None = None
    deck: float | None = None


@dataclass(frozen=True)
class OnNewImages:
    """How accurate the saved models of a row and variant are on new images, in percent.

    Attributes:
        mean: Over repeats and test images.
        low: Where the 95 percent interval begins.
        high: Where it ends.
        images: Test images of a repeat.
    """

    mean: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Line:
    """One row and variant over its repeats.

    Attributes:
        row: The row's name.
        settings: What the table's columns show, by heading.
        variant: The variant's name.
        n: How many repeats the figures are of: those that did not diverge.
        diverged: The epochs at which the others did.
        comparable: Whether the deck's numbers are of the same data, weights and settings.
        measures: By name, every measure of `MEASURES`.
        runs: The names of the runs' folders.
        on_new_images: The accuracy's interval; None where a run has no predictions.
    """

    row: str
    settings: dict[str, object]
    variant: str
    n: int
    diverged: list[int]
    comparable: bool
    measures: dict[str, Statistic]
    runs: list[str]
    on_new_images: OnNewImages | None = None


@dataclass(frozen=True)
class Table:
    """A recipe's table.

    Attributes:
        title: One line.
        caption: What was measured on what.
        command: The command line that prints the table again.
        data: The images' source, in short.
        beside_deck: Whether the deck's numbers are shown at all: not for a user's own images.
        shown: The measures a reader sees; CSV and JSON hold all.
        lines: Rows and variants in the recipe's order.
        differences: Of the saved models' accuracies, where the table shows accuracies.
    """

    title: str
    caption: str
    command: str
    data: str
    beside_deck: bool
    shown: list[str]
    lines: list[Line]
    differences: list[Difference] = field(default_factory=list)

    @property
    def comparable(self) -> bool:
        """Whether every run is of the deck's data, weights and settings.

        Only then do its numbers stand beside ours; else they have a table of their own.
        """
        return all(line.comparable for line in self.lines)


def build(recipe: Recipe, results: Sequence[Result], command: str) -> Table:
    """Gathers the repeats of each row and variant.

    Args:
        recipe: The recipe.
        results: Finished runs of it, at least one.
        command: The command line that prints the table again.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.place.row, result.place.variant), []).append(result)
    names = [
        (str(row.row), variant)
        for row in recipe.rows
        for variant in recipe.variants
        if (str(row.row), variant) in groups
    ]
    rows = {str(row.row): row for row in recipe.rows}
    answered = _answers({name: groups[name] for name in names}) if recipe.shows_accuracy else {}
    lines = [_line(recipe, rows[name[0]], groups[name], answered.get(name)) for name in names]
    beside_deck = all(sources.is_named(result.settings["data"]) for result in results)
    return Table(
        title=recipe.title,
        caption=caption.text(recipe, results, lines, beside_deck),
        command=command,
        data=sources.title(results[0].settings["data"]),
        beside_deck=beside_deck,
        shown=recipe.measures,
        lines=lines,
        differences=differences.differences(answered, list(recipe.variants), recipe.reference_row),
    )


def _answers(groups: Mapping[Name, Sequence[Result]]) -> dict[Name, Answers]:
    """What the runs of each row and variant answered; without those of older versions."""
    found = {
        name: differences.answers([result for result in group if not result.diverged_at])
        for name, group in groups.items()
    }
    return {name: answers for name, answers in found.items() if answers}


def presented(recipe: Recipe) -> list[Line]:
    """The deck's own table: a line for each row, with the settings of its first variant.

    A recipe that no slide shows has its rows alone.

    There are no runs of ours in it: `n` is 0.
    """
    profile = "deck" if "deck" in recipe.profiles else next(iter(recipe.profiles))
    runs = reversed(resolve.runs(recipe, profile, [resolve.ALL], repeats=1))
    first = {run.place.row: run for run in runs}  # in the row's first variant
    lines = []
    for row in recipe.rows:
        run = first[str(row.row)]
        decks = {name: Statistic(deck=getattr(row.deck, name, None)) for name in MEASURES}
        settings = _settings(recipe, run.spec.settings)
        lines.append(Line(run.place.row, settings, run.place.variant, 0, [], True, decks, []))
    return lines


def _line(recipe: Recipe, row: Row, group: Sequence[Result], answers: Answers | None) -> Line:
    place = group[0].place
    finished = [result for result in group if not result.diverged_at]
    return Line(
        row=place.row,
        settings=_settings(recipe, group[0].settings),
        variant=place.variant,
        n=len(finished),
        diverged=[result.diverged_at for result in group if result.diverged_at],
        comparable=place.comparable,
        measures={name: _statistic(name, row, finished) for name in MEASURES},
        runs=[result.folder.name for result in group],
        on_new_images=_on_new_images(answers) if answers else None,
    )


def _on_new_images(answers: Answers) -> OnNewImages:
    estimate = intervals.accuracy(list(answers.by_repeat.values()))
    low, high = intervals.accuracy_interval(estimate)
    return OnNewImages(100 * estimate.value, 100 * low, 100 * high, round(estimate.images))


def _settings(recipe: Recipe, settings: Mapping[str, object]) -> dict[str, object]:
    """What the recipe's columns show of a run's settings."""
    return {heading: settings.get(name, "-") for heading, name in recipe.columns.items()}


def _statistic(name: str, row: Row, group: Sequence[Result]) -> Statistic:
    values = [measures.final(result, name) for result in group]
    deck = getattr(row.deck, name, None)
    if None in values or not values:
        return Statistic(deck=deck)
    best = max(range(len(group)), key=lambda index: group[index].metrics["test_accuracy"] or 0.0)
    return Statistic(
        best=values[best] if name in ACCURACIES else None,
        mean=float(np.mean(values)),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 and MEASURES[name].varies else None,
        deck=deck,
    )


def as_json(table: Table) -> str:
    """The table as JSON, every measure in full, with the folders each line is made from."""
    return files.json_text(asdict(table)) + "\n"


class _WrittenLine(BaseModel):
    runs: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*[A-Za-z0-9_-]$")]]


class Written(BaseModel):
    """What is read back of a table's JSON.

    Attributes:
        command: The command line that prints the table again.
        data: The images' source, in short.
        lines: The runs' folders.
    """

    command: str = ""
    data: str = "table"
    lines: list[_WrittenLine]

    @property
    def runs(self) -> list[str]:
        """The names of the runs' folders."""
        return [run for line in self.lines for run in line.runs]


def read(path: Path) -> Written:
    """Reads what `as_json` made.

    Raises:
        OSError: It cannot be read.
        ValueError: It is damaged.
    """
    return Written.model_validate(files.read_json(path))
