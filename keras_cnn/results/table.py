"""Results of a recipe as a table: as presented, as run, corrected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field

from keras_cnn import files
from keras_cnn.data import sources
from keras_cnn.pretrained import named
from keras_cnn.recipe import measures, resolve
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.schema import Recipe, Row
from keras_cnn.results import differences, intervals
from keras_cnn.results.differences import Answers, Difference, Name
from keras_cnn.results.store import Result

NAMED = 10  # runs in one sentence
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
        caption=_caption(recipe, results, lines, beside_deck),
        command=command,
        data=_data(results[0]),
        beside_deck=beside_deck,
        shown=recipe.measures,
        lines=lines,
        differences=differences.differences(answered, recipe.reference_row),
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

    There are no runs of ours in it: `n` is 0.
    """
    runs = reversed(resolve.runs(recipe, "deck", repeats=1))
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


def _caption(
    recipe: Recipe, results: Sequence[Result], lines: Sequence[Line], beside_deck: bool
) -> str:
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
        f"{_range(r.metrics['test_images'] for r in results)} test images of "
        f"{_range(len(r.class_names) for r in results)} classes{_tasks(results)}, "
        f"{_range(r.settings['image_size'] for r in results)} pixels; {_listed(models)}; "
        f"backend{plural} {_listed(backends)} "
        f"({', '.join(f'{name} {_listed(found)}' for name, found in versions.items())}), "
        f"device {_listed(machines)}.",
        "Accuracies in percent, after the last epoch; ± is the sample standard deviation over the "
        "repeats, on these test images.",
        *_of_intervals(results, lines),
    ]
    if shared := max(r.metrics.get("shared_images", 0) for r in results):
        sentences.append(f"{shared:,} test images of the data have the pixels of training images.")
    if set(recipe.measures) & set(ACCURACIES):
        sentences.append(
            "Best of n is the repeat with the best test accuracy, chosen on the test images."
        )
    if beside_deck and any(row.deck.model_fields_set for row in recipe.rows):
        sentences.append(f"The deck's figures: {recipe.deck_figures}.")
    methods = {r.settings["method"] for r in results}
    notes = [
        note  # the deck's own methods are called by the right one's name, and what is wrong
        for name, note in recipe.method_notes.items()
        if any(method.startswith(name) for method in methods)
    ]
    said = [*sentences, *_diverged(results), *_names_one_class(results), recipe.note, *notes]
    return " ".join(said).strip()


def _of_intervals(results: Sequence[Result], lines: Sequence[Line]) -> list[str]:
    """What the intervals cover; nothing where there are none."""
    sentences = []
    with_interval = [line for line in lines if line.on_new_images]
    if with_interval:
        repeats = "other repeats (their seeds and shots) and other test images"
        one = "other test images alone" if any(line.n == 1 for line in with_interval) else ""
        several = repeats if any(line.n > 1 for line in with_interval) else ""
        covers = "; of a single run, ".join(filter(None, (several, one)))
        sentences.append(
            "The 95 percent interval is of the accuracy of the saved models on new images, and "
            f"covers {covers}."
        )
    if any(line.n == 2 for line in with_interval):
        sentences.append("Two runs hardly tell how far runs lie apart: their interval is wide.")
    once = _drawn_once(results, with_interval)
    if once:
        sentences.append(
            f"{once}, all repeats share one draw of images: these intervals are for that draw."
        )
    if any(line.measures["episode_interval"].mean is not None for line in lines):
        sentences.append(
            "That of test episodes covers other episodes drawn with replacement from the same test "
            "images, not new images (arXiv:2409.02850)."
        )
    return sentences


def _drawn_once(results: Sequence[Result], lines: Sequence[Line]) -> str:
    """The variants whose repeats share one draw of images."""
    variants = {
        line.variant
        for line in lines
        if differences.drawn_once([r for r in results if r.folder.name in line.runs])
    }
    return _listed(variants).replace("_", " ").capitalize()


def way(result: Result) -> int:
    """Of how many classes a run's test accuracy is: of its tasks or episodes, or of all."""
    classes = len(result.class_names)
    return min(result.settings.get("way") or classes, classes)


def _tasks(results: Sequence[Result]) -> str:
    ways = {
        f"row {r.place.row}: in tasks of {way(r)}, chance {100 / way(r):.1f}"
        for r in results
        if way(r) < len(r.class_names)
    }
    return f" ({'; '.join(sorted(ways))})" if ways else ""


def _diverged(results: Sequence[Result]) -> list[str]:
    """A sentence that names the runs that diverged; none where none did."""
    named = [
        f"row {r.place.row} {r.place.variant} repeat {r.place.repeat + 1} at epoch {r.diverged_at}"
        for r in results
        if r.diverged_at
    ]
    more = f" and {len(named) - NAMED:,} more" if len(named) > NAMED else ""
    listed = f"{', '.join(named[:NAMED])}{more}"
    return [f"Diverged, to what is no number, and in no figure: {listed}."] if named else []


def _names_one_class(results: Sequence[Result]) -> list[str]:
    """A sentence that counts the runs that learnt nothing; none where all did."""
    groups: dict[str, list[bool]] = {}
    for result in results:
        name = f"row {result.place.row} {result.place.variant}"
        groups.setdefault(name, []).append(result.names_one_class)
    counts = [f"{sum(them)} of {len(them)} ({name})" for name, them in groups.items() if any(them)]
    more = f" and {len(counts) - NAMED:,} more" if len(counts) > NAMED else ""
    listed = f"{', '.join(counts[:NAMED])}{more}"
    return [f"Runs that name one class for every test image: {listed}."] if counts else []


def _data(result: Result) -> str:
    return sources.title(result.settings["data"])


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names))


def _range(counts: Iterable[int]) -> str:
    """`1,000`, or `10 to 1,000`."""
    found = sorted(set(counts))
    return f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,}"


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
