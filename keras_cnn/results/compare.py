"""What each of the deck's defects changes, as numbers.

Accuracies are in percent, their differences in percentage points. Lines without a number of the
measure (all runs diverged, or an older result lacks it) are left out of every comparison.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, median, stdev, variance

import numpy as np

from keras_cnn.recipe import measures
from keras_cnn.recipe.spec import SEEDS
from keras_cnn.results.collect import Collected
from keras_cnn.results.differences import drawn_once
from keras_cnn.results.table import AS_RUN, Line

CORRECTED = "corrected"

# A row has learned if its train accuracy is above this many times chance. One that has not ends at
# chance: on 1,000 images of ten classes at 10 percent with a standard deviation of 0.9, so 15
# percent is far outside of what guessing gives, and far below what any row that learns reaches.
LEARNED = 1.5
MAY_FAIL = ("l2",)  # settings of which not learning is an effect: rows that fail count as well


@dataclass(frozen=True)
class VariantDifference:
    """Corrected minus as run, over the rows that have both.

    Attributes:
        by_row: Differences of the means, by the row's name.
        as_run: Mean over rows.
        corrected: Mean over rows.
        standard_error: Of the mean difference, from how it varies over the repeats; None where
            there are fewer than two, or where they are not independent.
        one_draw: Whether all repeats as run share one draw of few images, so that their spread
            does not tell how much another draw would change.
    """

    by_row: dict[str, float]
    as_run: float
    corrected: float
    standard_error: float | None
    one_draw: bool

    @property
    def mean(self) -> float:
        """Over rows."""
        return fmean(self.by_row.values())


@dataclass(frozen=True)
class SettingEffect:
    """How much rows that differ in one setting alone differ in a measure.

    Attributes:
        sets: How many sets of such rows.
        rows: How many rows in all of them.
        left_out: How many more rows differ in the setting, but did not learn, have no number, or
            are the only one left of their set.
        range: Highest minus lowest mean of a set, median over sets; None without a set.
        by_chance: The range to expect if the setting had no effect, from the spread of the
            repeats; None without a set, or where a row was run once.
    """

    sets: int
    rows: int
    left_out: int
    range: float | None
    by_chance: float | None


def best_minus_mean(collected: Collected) -> dict[str, float]:
    """Best of n minus the mean of the same runs, by row: test accuracy as run, n from 2."""
    return {
        line.row: line.measures["test_accuracy"].best - line.measures["test_accuracy"].mean
        for line in collected.lines
        if line.variant == AS_RUN and line.n > 1 and _is_measured(line, "test_accuracy")
    }


def variant_difference(collected: Collected, measure: str) -> VariantDifference | None:
    """Compares the two variants; None where no row has both."""
    pairs = [
        (line, other)
        for line in collected.lines
        if line.variant == AS_RUN and (other := collected.line(line.row, CORRECTED))
        if _is_measured(line, measure) and _is_measured(other, measure)
    ]
    if not pairs:
        return None
    means = {pair[0].row: [line.measures[measure].mean for line in pair] for pair in pairs}
    one_draw = any(drawn_once(collected.runs(as_run)) for as_run, _ in pairs)
    return VariantDifference(
        by_row={row: corrected - as_run for row, (as_run, corrected) in means.items()},
        as_run=fmean(as_run for as_run, _ in means.values()),
        corrected=fmean(corrected for _, corrected in means.values()),
        standard_error=None if one_draw else _standard_error(collected, pairs, measure),
        one_draw=one_draw,
    )


def _standard_error(
    collected: Collected, pairs: Sequence[tuple[Line, Line]], measure: str
) -> float | None:
    """Of the mean difference: rows of one repeat share their images, repeats share nothing."""
    by_repeat: dict[int, list[float]] = {}
    for pair in pairs:
        as_run, corrected = (_by_repeat(collected, line, measure) for line in pair)
        for repeat in as_run.keys() & corrected.keys():
            by_repeat.setdefault(repeat, []).append(corrected[repeat] - as_run[repeat])
    means = [fmean(values) for values in by_repeat.values() if len(values) == len(pairs)]
    return stdev(means) / sqrt(len(means)) if len(means) > 1 else None


def setting_effect(
    collected: Collected, setting: str, measure: str, variant: str
) -> SettingEffect | None:
    """Compares rows that differ in one setting alone; None where no two do.

    Rows of the variant that did not learn are left out, since a row at chance tells nothing about
    the setting, unless failing to learn is what the setting does.
    """
    alike = _alike_but_for(collected, setting, variant)
    if not alike:
        return None

    def counts(line: Line) -> bool:
        return _is_measured(line, measure) and (setting in MAY_FAIL or _learned(collected, line))

    counted = [list(filter(counts, lines)) for lines in alike]
    sets = [lines for lines in counted if len(lines) > 1]
    rows = sum(map(len, sets))
    means = [[line.measures[measure].mean for line in lines] for lines in sets]
    return SettingEffect(
        sets=len(sets),
        rows=rows,
        left_out=sum(map(len, alike)) - rows,
        range=median(max(values) - min(values) for values in means) if sets else None,
        by_chance=_range_by_chance(collected, sets, measure),
    )


def _alike_but_for(collected: Collected, setting: str, variant: str) -> list[list[Line]]:
    """Sets of two rows and more that differ in one setting alone."""
    sets: dict[str, dict[object, Line]] = {}
    for line in collected.lines:
        if line.variant == variant:
            settings = collected.runs(line)[0].settings
            others = {k: v for k, v in settings.items() if k not in (setting, *SEEDS)}
            same = sets.setdefault(json.dumps(others, sort_keys=True), {})
            same[settings.get(setting)] = line
    return [list(lines.values()) for lines in sets.values() if len(lines) > 1]


def _learned(collected: Collected, line: Line) -> bool:
    accuracy = line.measures["train_accuracy"].mean
    chance = 100 / len(collected.runs(line)[0].class_names)
    return accuracy is None or accuracy > LEARNED * chance


def _range_by_chance(
    collected: Collected, sets: Sequence[Sequence[Line]], measure: str
) -> float | None:
    """The range of a set's means that the spread of the repeats alone makes, median over sets."""
    rows = [[_by_repeat(collected, line, measure) for line in lines] for lines in sets]
    if not rows or any(len(repeats) < 2 for lines in rows for repeats in lines):
        return None
    return median(_normal_range(len(lines)) * sqrt(_error_variance(lines)) for lines in rows)


def _error_variance(rows: Sequence[dict[int, float]]) -> float:
    """Variance of a row's mean relative to the other rows of its set.

    Rows of one repeat share their images and their seed. What these do to all rows alike moves no
    row away from another, so it is taken out where all rows have the same repeats.
    """
    if any(row.keys() != rows[0].keys() for row in rows):
        return fmean(variance(row.values()) / len(row) for row in rows)
    shared = {repeat: fmean(row[repeat] for row in rows) for repeat in rows[0]}
    spread = fmean(variance(row[repeat] - shared[repeat] for repeat in row) for row in rows)
    # Subtracting the rows' mean removes 1 / len(rows) of their own spread as well.
    return spread * len(rows) / (len(rows) - 1) / len(shared)


def _normal_range(count: int) -> float:
    """Expected highest minus lowest of `count` standard normal numbers (Tippett 1925)."""
    from scipy.special import ndtr

    x = np.linspace(-8, 8, 4001)
    below = ndtr(x)
    return float(np.trapezoid(1 - below**count - (1 - below) ** count, x))


def augmentation_means(collected: Collected, variant: str) -> dict[str, float]:
    """Mean test accuracy by augmentation, `none` among them; empty without anything to compare."""
    means = {
        str(collected.runs(line)[0].settings.get("augment")): line.measures["test_accuracy"].mean
        for line in collected.lines
        if line.variant == variant and _is_measured(line, "test_accuracy")
    }
    return means if "none" in means and len(means) > 1 else {}


def _by_repeat(collected: Collected, line: Line, measure: str) -> dict[int, float]:
    finished = (run for run in collected.runs(line) if not run.diverged_at)
    return {one.place.repeat: measures.final(one, measure) for one in finished}


def _is_measured(line: Line, measure: str) -> bool:
    return line.measures[measure].mean is not None
