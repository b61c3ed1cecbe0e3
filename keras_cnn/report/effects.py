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
from statistics import fmean, median, stdev, variance

import numpy as np

from keras_cnn.recipe import measures
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.report.evidence import Evidence
from keras_cnn.results.table import Line

AS_RUN, CORRECTED = "as_run", "corrected"
FAILING_IS_THE_EFFECT = {"l2"}  # what stops learning when it is strong


@dataclass(frozen=True)
class Difference:
    """Corrected minus as run, over the rows that have both.

    Attributes:
        by_row: Differences of the means, by the row's name.
        as_run: Mean over rows.
        corrected: Mean over rows.
        standard_error: That of the mean difference, from how it varies over the repeats; None
            where these are fewer than two or not independent.
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
    settings = [result.settings for result in found.of(line)]
    few = any(one["shots"] is not None or one["test_shots"] is not None for one in settings)
    return line.n > 1 and few and len({one["shots_seed"] for one in settings}) == 1


def _standard_error(
    found: Evidence, pairs: Sequence[tuple[Line, Line]], measure: str
) -> float | None:
    """Of the difference over rows: rows of one repeat share their images, repeats share nothing."""
    of_repeat: dict[int, list[float]] = {}
    for pair in pairs:
        finals = [_by_repeat(found, line, measure) for line in pair]
        for repeat in finals[0].keys() & finals[1].keys():
            of_repeat.setdefault(repeat, []).append(finals[1][repeat] - finals[0][repeat])
    means = [fmean(values) for values in of_repeat.values() if len(values) == len(pairs)]
    return stdev(means) / sqrt(len(means)) if len(means) > 1 else None


def _by_repeat(found: Evidence, line: Line, measure: str) -> dict[int, float]:
    return {result.place.repeat: measures.final(result, measure) for result in found.of(line)}


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
        left_out: How many rows more differ in it, but cannot be compared or are alone without
            those that cannot.
        range: Highest minus lowest mean of a set, the median over sets; None without a set.
        by_chance: What that range would be, were there no effect, by the spread of the repeats;
            None without a set, or where a row was run once.
    """

    groups: int
    rows: int
    left_out: int
    range: float | None
    by_chance: float | None


def apart(found: Evidence, setting: str, measure: str, variant: str) -> Apart | None:
    """Compares rows that differ in one setting alone; None where no two do.

    Rows that did not learn, at one and a half times chance or less in training, are left out:
    where they lie says nothing of the setting, unless failing is what it does.
    """
    alike = _alike_but_for(found, setting, variant)
    if not alike:
        return None
    kept = [[line for line in lines if _tells(found, line, setting, measure)] for lines in alike]
    sets = [lines for lines in kept if len(lines) > 1]
    rows = sum(map(len, sets))
    means = [[line.measures[measure].mean for line in lines] for lines in sets]
    return Apart(
        groups=len(sets),
        rows=rows,
        left_out=sum(map(len, alike)) - rows,
        range=median(max(of) - min(of) for of in means) if sets else None,
        by_chance=_by_chance(found, sets, measure),
    )


def _alike_but_for(found: Evidence, setting: str, variant: str) -> list[list[Line]]:
    """Sets of two rows and more that differ in one setting alone."""
    groups: dict[str, dict[object, Line]] = {}
    for line in found.lines:
        if line.variant == variant:
            settings = found.of(line)[0].settings
            rest = {key: value for key, value in settings.items() if key != setting}
            same = groups.setdefault(json.dumps(rest, sort_keys=True), {})
            same[settings.get(setting)] = line
    return [list(group.values()) for group in groups.values() if len(group) > 1]


def _tells(found: Evidence, line: Line, setting: str, measure: str) -> bool:
    """Whether where a row lies says something of a setting."""
    learns = setting in FAILING_IS_THE_EFFECT or _learns(found, line)
    return learns and _is_measured(line, measure)


def _learns(found: Evidence, line: Line) -> bool:
    of = line.measures.get("train_accuracy")
    chance = 100 / len(found.of(line)[0].class_names)
    return of is None or of.mean is None or of.mean > 1.5 * chance


def _by_chance(found: Evidence, sets: Sequence[Sequence[Line]], measure: str) -> float | None:
    """The range of a set's means that the spread of the repeats alone makes, median over sets."""
    if not sets or any(line.n < 2 for lines in sets for line in lines):
        return None
    return median(
        _normal_range(len(lines))
        * sqrt(_error_variance([_by_repeat(found, line, measure) for line in lines]))
        for lines in sets
    )


def _error_variance(rows: Sequence[dict[int, float]]) -> float:
    """Of a row's mean against those of the set's other rows; each row's figures by repeat.

    Rows of one repeat share their images and their seed. What these do to all of them alike moves
    no row away from another, so it is taken out where all rows have the same repeats.
    """
    if any(row.keys() != rows[0].keys() for row in rows):
        return fmean(variance(row.values()) / len(row) for row in rows)
    shared = {repeat: fmean(row[repeat] for row in rows) for repeat in rows[0]}
    spread = fmean(variance(row[repeat] - shared[repeat] for repeat in row) for row in rows)
    # The rows' own mean takes a share of their spread along.
    return spread * len(rows) / (len(rows) - 1) / len(shared)


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
    text += f": {test.mean:+z.1f} points"
    if test.standard_error is not None:
        text += f", standard error {test.standard_error:.1f}"
    elif test.one_draw:
        text += " (without a standard error: as run, all repeats share one draw of images)"
    if len(test.by_row) > 1:
        low, high = (pick(test.by_row, key=test.by_row.__getitem__) for pick in (min, max))
        text += (
            f"; from {test.by_row[low]:+z.1f} (row {low}) to {test.by_row[high]:+z.1f} (row {high})"
        )
    if train:
        text += f". Train accuracy {train.as_run:.1f} as run, {train.corrected:.1f} corrected"
    return f"{text}."


def apart_by(setting: str, name: str, found: Evidence) -> str | None:
    """Defects 2 and 4: how far rows lie apart that differ in one setting, in either variant."""
    if not found.lines:
        return None
    compared = {
        f"{MEASURES[measure].label} {_words(variant)}": of
        for measure in ("train_accuracy", "test_accuracy")
        for variant in found.plan.variants
        if (of := apart(found, setting, measure, variant))
    }
    if not compared:
        return f"no two of the rows at hand differ in {name} alone."
    clauses = "; ".join(f"{what} {_apart(of)}" for what, of in compared.items())
    text = f"compared where rows differ in {name} alone: {clauses}."
    if any(of.left_out for of in compared.values()):
        text += f" Left out are rows {_why_left_out(setting)}, and those then alone in their set."
    return text


def _apart(of: Apart) -> str:
    if of.range is None:
        return f"cannot be compared ({of.left_out} rows left out)"
    notes = [f"{of.rows} rows in {of.groups} {'sets' if of.groups > 1 else 'set'}"]
    if of.left_out:
        notes.append(f"{of.left_out} left out")
    if of.by_chance is not None:
        notes.append(f"by chance alone {of.by_chance:.1f}")
    return f"{of.range:.1f} points apart ({', '.join(notes)})"


def _why_left_out(setting: str) -> str:
    if setting in FAILING_IS_THE_EFFECT:
        return "without a figure"
    chance = "one and a half times chance or less in training"
    return f"that did not learn ({chance}, or without a figure)"


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
            each = ", ".join(f"{kind} {added:+z.1f}" for kind, added in of[1].items())
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
