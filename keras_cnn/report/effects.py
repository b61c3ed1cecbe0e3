"""What each of the deck's defects changes, computed from results. Never imports keras.

Each function takes the results of one recipe and gives a sentence, or None where they do not hold
what it needs. Accuracies are in percent, their differences in percentage points.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, sqrt
from statistics import fmean, median, stdev

import numpy as np

from keras_cnn import measures
from keras_cnn.measures import MEASURES
from keras_cnn.report.evidence import Evidence
from keras_cnn.table import Line

AS_RUN, CORRECTED = "as_run", "corrected"


@dataclass(frozen=True)
class Difference:
    """Corrected minus as run, over the rows that have both.

    Attributes:
        by_row: Of the means, by the row's name.
        as_run: Mean over rows.
        corrected: Mean over rows.
        standard_error: Of the mean difference, from how it varies over the repeats; None where
            these are fewer than two or not independent.
        one_draw: Whether all repeats as run learn from the same draw of few images, so that their
            spread does not tell how far another draw would lie.
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


def difference(found: Evidence, measure: str) -> Difference | None:
    """Compares the two variants; None where no row has both."""
    pairs = [
        (line, other)
        for line in found.lines
        if line.variant == AS_RUN and (other := found.line(line.row, CORRECTED))
        if _is_measured(line, measure) and _is_measured(other, measure)
    ]
    if not pairs:
        return None
    means = [[line.measures[measure].mean for line in pair] for pair in pairs]
    one_draw = any(_shares_a_draw(found, before) for before, _ in pairs)
    return Difference(
        by_row={
            pair[0].row: after - before for pair, (before, after) in zip(pairs, means, strict=True)
        },
        as_run=fmean(before for before, _ in means),
        corrected=fmean(after for _, after in means),
        standard_error=None if one_draw else _standard_error(found, pairs, measure),
        one_draw=one_draw,
    )


def _shares_a_draw(found: Evidence, line: Line) -> bool:
    data = [result.run["data"] for result in found.of(line)]
    few = any(one["shots"] is not None or one["test_shots"] is not None for one in data)
    return line.n > 1 and few and not any(one["redraw_shots"] for one in data)


def _standard_error(
    found: Evidence, pairs: Sequence[tuple[Line, Line]], measure: str
) -> float | None:
    """Of the difference over rows: rows of one repeat share their images, repeats share nothing."""
    of_repeat: dict[int, list[float]] = {}
    for pair in pairs:
        finals = [
            {r.run["repeat"]: measures.final(r, measure) for r in found.of(line)} for line in pair
        ]
        for repeat in finals[0].keys() & finals[1].keys():
            of_repeat.setdefault(repeat, []).append(finals[1][repeat] - finals[0][repeat])
    means = [fmean(values) for values in of_repeat.values() if len(values) == len(pairs)]
    return stdev(means) / sqrt(len(means)) if len(means) > 1 else None


def excess_of_best(found: Evidence) -> dict[str, float]:
    """Best of n minus the mean of the same runs, by row: test accuracy as run, n from 2."""
    return {
        line.row: line.measures["test_accuracy"].best - line.measures["test_accuracy"].mean
        for line in found.lines
        if line.variant == AS_RUN and line.n > 1 and _is_measured(line, "test_accuracy")
    }


@dataclass(frozen=True)
class Apart:
    """How far rows lie apart that differ in one setting alone.

    Attributes:
        groups: How many sets of such rows.
        rows: How many rows in all of them.
        range: Highest minus lowest mean of a set, the median over sets.
        by_chance: What that range would be, were there no effect, by the spread of the repeats;
            None where a row was run once.
    """

    groups: int
    rows: int
    range: float
    by_chance: float | None


def apart(found: Evidence, setting: str, measure: str, variant: str) -> Apart | None:
    """Compares rows that differ in one setting alone; None where no two do.

    Sets with a row that did not learn, at less than one and a half times chance in training, are
    left out: where it lies says nothing of the setting.
    """
    groups: dict[str, dict[object, Line]] = {}
    for line in found.lines:
        if line.variant == variant and _is_measured(line, measure):
            settings = found.of(line)[0].settings
            rest = {key: value for key, value in settings.items() if key != setting}
            same = groups.setdefault(json.dumps(rest, sort_keys=True), {})
            same[settings.get(setting)] = line
    sets = [
        list(group.values())
        for group in groups.values()
        if len(group) > 1 and all(_learns(found, line) for line in group.values())
    ]
    if not sets:
        return None
    ranges = [
        max(means) - min(means)
        for means in ([line.measures[measure].mean for line in lines] for lines in sets)
    ]
    lines = [line for one in sets for line in one]
    by_chance = None
    if all(line.n > 1 for line in lines):
        by_chance = median(
            _normal_range(len(one))
            * sqrt(fmean(line.measures[measure].sd ** 2 / line.n for line in one))
            for one in sets
        )
    return Apart(len(sets), len(lines), median(ranges), by_chance)


def _learns(found: Evidence, line: Line) -> bool:
    of = line.measures.get("train_accuracy")
    chance = 100 / len(found.of(line)[0].class_names)
    return of is None or of.mean is None or of.mean > 1.5 * chance


def _normal_range(count: int) -> float:
    """Expected highest minus lowest of as many standard normal figures (Tippett 1925)."""
    from scipy.special import ndtr

    x = np.linspace(-8, 8, 4001)
    below = ndtr(x)
    return float(np.trapezoid(1 - below**count - (1 - below) ** count, x))


def best_of_n(found: Evidence) -> str | None:
    """Defect 1: how far the best of n stands above the mean."""
    excess = excess_of_best(found)
    if not excess:
        return None
    counts = {line.n for line in found.lines if line.row in excess and line.variant == AS_RUN}
    text = (
        f"as run, the best of {_listed(counts)} stands {fmean(excess.values()):.1f} points of "
        "test accuracy above the mean of the same runs"
    )
    if len(excess) == 1:
        return f"{text} (row {next(iter(excess))})."
    most = max(excess, key=excess.__getitem__)
    return f"{text} on average over {len(excess)} rows, {excess[most]:.1f} in row {most}."


def as_run_and_corrected(found: Evidence) -> str | None:
    """Defects 2 and 3: what the corrected variant changes."""
    test, train = difference(found, "test_accuracy"), difference(found, "train_accuracy")
    if not test:
        return None
    text = f"test accuracy {test.as_run:.1f} as run, {test.corrected:.1f} corrected"
    text += f" (over {len(test.by_row)} rows)" if len(test.by_row) > 1 else ""
    text += f": {test.mean:+.1f} points"
    if test.standard_error is not None:
        text += f", standard error {test.standard_error:.1f}"
    elif test.one_draw:
        text += " (without a standard error: as run, all repeats share one draw of images)"
    if len(test.by_row) > 1:
        low, high = (pick(test.by_row, key=test.by_row.__getitem__) for pick in (min, max))
        text += (
            f"; from {test.by_row[low]:+.1f} (row {low}) to {test.by_row[high]:+.1f} (row {high})"
        )
    if train:
        text += f". Train accuracy {train.as_run:.1f} as run, {train.corrected:.1f} corrected"
    return f"{text}."


def apart_by(setting: str, name: str, found: Evidence) -> str | None:
    """Defects 2 and 4: how far rows lie apart that differ in one setting, in either variant."""
    texts = []
    for measure in ("train_accuracy", "test_accuracy"):
        for variant in found.plan.variants:
            of = apart(found, setting, measure, variant)
            if of:
                text = f"{MEASURES[measure].label} {_words(variant)} {of.range:.1f} points apart"
                chance = "" if of.by_chance is None else f" (by chance alone {of.by_chance:.1f})"
                texts.append(text + chance)
                rows = of.rows
    return (
        f"{rows} rows, compared where they differ in {name} alone: {'; '.join(texts)}."
        if texts
        else None
    )


def against_unchanged(found: Evidence, variant: str) -> tuple[float, dict[str, float]] | None:
    """Test accuracy of the row that changes no image, and by augmentation what it adds to that."""
    means = {
        str(found.of(line)[0].settings.get("augment")): line.measures["test_accuracy"].mean
        for line in found.lines
        if line.variant == variant and _is_measured(line, "test_accuracy")
    }
    if "none" not in means or len(means) < 2:
        return None
    unchanged = means.pop("none")
    return unchanged, {kind: mean - unchanged for kind, mean in means.items()}


def augmentation(found: Evidence) -> str | None:
    """Defect 5: what each augmentation adds or takes away, in either variant."""
    texts = []
    for variant in found.plan.variants:
        of = against_unchanged(found, variant)
        if of:
            each = ", ".join(f"{kind} {added:+.1f}" for kind, added in of[1].items())
            texts.append(f"{_words(variant)} {each} points against {of[0]:.1f} with none")
    return f"test accuracy {'; '.join(texts)}." if texts else None


def of_method(method: str, shown: Sequence[str], found: Evidence) -> str | None:
    """Defects 6 to 8: what a method's rows give in each variant."""
    lines = [line for line in found.lines if found.of(line)[0].settings["method"] == method]
    if not lines:
        return None
    texts = [
        f"row {line.row} {_words(line.variant)} (n = {line.n}): {_figures(line, shown)}"
        for line in lines
    ]
    classes = len(found.of(lines[0])[0].class_names)
    return f"{'; '.join(texts)}. Chance of {classes} classes is {100 / classes:.1f} percent."


EFFECTS: dict[str, Callable[[Evidence], str | None]] = {
    "best_of_n": best_of_n,
    "as_run_and_corrected": as_run_and_corrected,
    "augmentation": augmentation,
    "apart_by_dropout": partial(apart_by, "dropout", "dropout"),
    "apart_by_l2": partial(apart_by, "l2", "L2"),
    "siamese": partial(of_method, "siamese", ("pair_accuracy", "test_accuracy_over_images")),
    "maml": partial(
        of_method, "maml", ("weights_moved", "test_accuracy", "test_accuracy_over_images")
    ),
    "prototypical": partial(
        of_method,
        "prototypical",
        ("test_accuracy", "episode_accuracy", "test_accuracy_over_images"),
    ),
}


def _is_measured(line: Line, measure: str) -> bool:
    mean = line.measures[measure].mean
    return mean is not None and isfinite(mean)


def _figures(line: Line, shown: Sequence[str]) -> str:
    texts = []
    for name in shown:
        of = line.measures.get(name)
        if of and of.mean is not None:
            places = measures.decimals(name, [of.mean])
            texts.append(f"{MEASURES[name].label} {measures.written(of.mean, of.sd, places)}")
    return ", ".join(texts) or "none of what is needed"


def _words(variant: str) -> str:
    return variant.replace("_", " ")


def _listed(counts: set[int]) -> str:
    return " or ".join(map(str, sorted(counts)))
