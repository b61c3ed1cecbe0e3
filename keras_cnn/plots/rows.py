"""A recipe's rows beside one another, each with the interval of its accuracy on new images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn.plots.canvas import LINE_INCHES, LONGEST, short, wrapped
from keras_cnn.plots.plot import (
    DECK_COLOUR,
    OF_TWO,
    Plot,
    colour_and_marker,
    draw_panels,
    final_values,
    has_two_runs,
    legend_beside,
    setting_value,
)
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.results import differences, intervals
from keras_cnn.results.grid import width
from keras_cnn.results.layout import setting_text, variant_text
from keras_cnn.results.store import Result
from keras_cnn.results.table import AS_RUN

JUDGED = "test_accuracy_over_images"  # which has an interval
LINE = 0.3  # inches of a row and variant
HIGHEST = 14.0  # inches of the panel
LEGEND = "mean and its 95 percent interval on new images; dots are runs"
INKS = {AS_RUN: 0, "corrected": 1}  # the same in every recipe


def rows(plot: Plot) -> Figure:
    """Accuracy of the saved models, a line for each row and variant.

    A point is the mean over repeats, a bar its 95 percent interval on new images, a dot a run.
    Labels have the settings in which the rows differ. The axis ends at 0 and 100 at most.
    """
    row_names = list(plot.groups(plot.results, "row"))
    variants = list(plot.variants)
    lines = len(row_names) * len(variants)
    height = min(0.6 + LINE * max(lines, len(row_names) + 1), HIGHEST)

    def draw(panel: Axes, runs: Sequence[Result], quantity: str) -> None:
        for place, group in enumerate(plot.groups(runs, "row").values()):
            for number, variant in enumerate(variants):
                repeats = [run for run in group if run.place.variant == variant]
                step = (number - (len(variants) - 1) / 2) * 0.6 / len(variants)
                ink = INKS.get(variant, len(INKS) + number)
                _line(panel, place + step, repeats, quantity, colour_and_marker(ink))
            _deck(panel, place, plot.deck(group, "test_accuracy"))
        told, labels = _labels(plot, row_names)
        every = int(np.ceil(len(labels) * LINE_INCHES / height))
        panel.set_yticks(range(0, len(labels), every), labels[::every])
        panel.set_ylim(len(labels) - 0.5, -0.5)  # the first on top
        named = f"row: {', '.join(told)}" if told else "row"
        panel.set_ylabel(wrapped(named, height, 9), fontsize=9)
        panel.grid(visible=False, axis="y")
        words = [MEASURES[quantity].heading, LEGEND, *([OF_TWO] if has_two_runs(runs) else [])]
        panel.set_xlabel("\n".join(words), fontsize=9)
        if MEASURES[quantity].unit == "percent":
            _limit(panel)

    figure, panels = draw_panels(plot, plot.spec.shown, draw, height, side=6.0, together=True)
    handles, names = panels[0, 0].get_legend_handles_labels()
    once = dict(zip(names, handles, strict=True))
    if once:
        legend_beside(figure, list(once.values()), list(once))
    return figure


def _line(
    panel: Axes, at: float, repeats: Sequence[Result], quantity: str, style: dict[str, str]
) -> None:
    """A row and variant: runs, mean and interval, as far as there are any."""
    finals = final_values(repeats, quantity)
    if not len(finals):
        return
    panel.plot(finals, np.full(len(finals), at), ".", color=style["color"], alpha=0.6)
    mean, reach = finals.mean(), None
    finished = [run for run in repeats if not run.diverged_at]
    if quantity == JUDGED and (answers := differences.answers(finished)):
        estimate = intervals.accuracy(list(answers.by_repeat.values()))
        low, high = intervals.accuracy_interval(estimate)
        mean = 100 * estimate.value
        reach = [[max(mean - 100 * low, 0)], [max(100 * high - mean, 0)]]
    label = variant_text(repeats[0].place.variant)
    how = {"capsize": 3, "markersize": 5, "linestyle": "", "label": label}
    panel.errorbar(mean, at, xerr=reach, **how, **style)


def _deck(panel: Axes, at: float, accuracy: float | None) -> None:
    if accuracy is not None:
        panel.plot(accuracy, at, "|", color=DECK_COLOUR, markersize=14, label="deck")


def _labels(plot: Plot, row_names: Sequence[object]) -> tuple[list[str], list[str]]:
    """The settings that the table shows, where rows differ in them, and each row's label."""
    last = [group[-1] for group in plot.groups(plot.results, "row").values()]  # corrected, if any
    values = {
        heading: [setting_text(setting_value(result, name)) for result in last]
        for heading, name in plot.recipe.columns.items()
    }
    told = {heading: texts for heading, texts in values.items() if len({*texts}) > 1}
    names, labels = [*map(str, row_names)], []
    for place, row in enumerate(names):
        in_name = [] if row.isdigit() else row.split("-")  # as a grid's `{method}-{shots}`
        settings = [texts[place] for texts in told.values() if texts[place] not in in_name]
        labels.append(": ".join(filter(None, (row, ", ".join(settings)))))
    if not any(map(str.isdigit, names)) and max(map(width, labels)) > LONGEST:
        told, labels = {}, names  # which say enough
    return list(told), [*map(short, labels)]


def _limit(panel: Axes) -> None:
    """Shows what is drawn, and nothing below 0 or above 100 percent."""
    low, high = panel.get_xlim()
    panel.set_xlim(max(low, 0.0), min(high, 100.0))
