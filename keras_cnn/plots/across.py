"""Quantities after the last epoch against another quantity, or against two settings."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn import statistics
from keras_cnn.plots.plot import (
    DECK_COLOUR,
    OF_TWO,
    Plot,
    colour_and_marker,
    draw_panels,
    final_values,
    has_two_runs,
    keep_to_range,
    legend_beside,
    setting_value,
    ticks,
)
from keras_cnn.recipe import measures
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.results.layout import setting_text
from keras_cnn.results.store import Result

# From this ratio of largest to smallest on, a linear axis hides the small ones.
WIDE_RANGE = 30
# Lines of a trend lie this share of the axis beside one another, so that error bars do not hide
# one another.
SIDESTEP = 0.01
MOST_TICKS = 12
LARGEST = 12.0  # inches of a heat map's side


def scatter(plot: Plot) -> Figure:
    """A quantity against `across`, a point a row with its spread, a colour for each value of `by`.

    Where `across` spans a wide range, once more with logarithmic axes.
    """
    across, values = plot.spec.across, plot.values
    wide = _spans_wide_range([_along(result, across) for result in plot.results])
    shown = [(quantity, log) for quantity in plot.spec.shown for log in (False, True)[: 1 + wide]]

    def draw(panel: Axes, runs: Sequence[Result], item: tuple[str, bool]) -> None:
        for value, group in plot.groups(runs, plot.spec.by).items():
            _points(panel, plot, group, item[0], colour_and_marker(values.index(value)))
        panel.set_xlabel(MEASURES[across].heading if across in MEASURES else across)
        panel.set_ylabel(MEASURES[item[0]].heading)

    figure, panels = draw_panels(plot, shown, draw)
    for panel_row, (_, log) in zip(panels, shown, strict=True):
        for panel in panel_row:
            _number_axes(panel, log)
    handles, names = panels[0, 0].get_legend_handles_labels()
    order = np.argsort(names)  # each value beside its deck
    legend_beside(figure, [handles[i] for i in order], [names[i] for i in order])
    return figure


def trend(plot: Plot) -> Figure:
    """Mean after the last epoch against `across`, a line for each value of `by`.

    Error bars are 95 percent confidence intervals of the means by Student's t, where there are
    repeats; they may reach out of the panel. Lines stand a little beside one another, so that
    their bars can be told apart. Numbers that span a wide range stand on a logarithmic axis.
    """
    across, values = plot.spec.across, plot.values
    everywhere = {_along(result, across) for result in plot.results}
    places = sorted(place for place in everywhere if not np.isnan(place))

    def draw(panel: Axes, runs: Sequence[Result], quantity: str) -> None:
        for value, group in plot.groups(runs, plot.spec.by).items():
            finals = {
                _along(row[0], across): final_values(row, quantity)
                for row in plot.groups(group, "row").values()
            }
            along = sorted(place for place in finals if place in places and len(finals[place]))
            number = values.index(value)
            panel.errorbar(
                _beside(along, places, number - (len(values) - 1) / 2),
                [finals[place].mean() for place in along],
                [_reach(finals[place]) for place in along],
                **colour_and_marker(number),
                label=setting_text(value).replace("_", " "),
                markersize=5,
                linewidth=1.2,
                capsize=3,
            )
        words = [MEASURES[quantity].heading, "mean, 95 percent interval of the mean"]
        panel.set_ylabel("\n".join([*words, *([OF_TWO] if has_two_runs(runs) else [])]))
        if _spans_wide_range(places):
            panel.set_xscale("log")
        named = _apart(places)
        panel.set_xticks(named, [f"{place:g}" for place in named])
        panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())

    figure, panels = draw_panels(plot, plot.spec.shown, draw, height=4.2, side=5.6)
    for panel in panels[-1]:
        beside = " (lines a little beside one another)" if len(values) > 1 else ""
        panel.set_xlabel(f"{plot.label(across)}{beside}")
    keep_to_range(panels, plot.spec.shown)
    legend_beside(figure, *panels[0, 0].get_legend_handles_labels())
    return figure


def heat_map(plot: Plot) -> Figure:
    """Mean and standard deviation after the last epoch, `by` downwards, `across` to the right."""
    rows, columns = plot.values, list(plot.groups(plot.results, plot.spec.across))
    height = min(1.1 + 0.55 * len(rows), LARGEST)
    side = min(max(3.2, 0.6 + 0.78 * len(columns)), LARGEST)
    has_room = len(rows) * 0.3 < height and len(columns) * 0.45 < side
    everywhere = {quantity: _colours(plot, quantity, rows, columns) for quantity in plot.spec.shown}

    def draw(panel: Axes, runs: Sequence[Result], quantity: str) -> None:
        norm, places = everywhere[quantity]
        mean, sd = _cells(plot, runs, quantity, rows, columns)
        image = panel.imshow(np.ma.masked_invalid(mean), norm=norm, cmap="cividis")
        image.axes.set_aspect("auto")
        for (row, column), value in np.ndenumerate(mean):
            if has_room and np.isfinite(value):
                text = f"{value:,.{places}f}"
                if np.isfinite(sd[row, column]):
                    text += f"\n± {sd[row, column]:,.{places}f}"
                ink = "black" if norm(value) > 0.5 else "white"
                panel.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)
        panel.set_xticks(*ticks(columns, side, letters=True))
        panel.set_yticks(*ticks(rows, height))
        panel.set_xlabel(plot.label(plot.spec.across))
        panel.set_ylabel(plot.label(plot.spec.by))

    figure, panels = draw_panels(plot, plot.spec.shown, draw, height, side, grid=False)
    for panel_row, quantity in zip(panels, plot.spec.shown, strict=True):
        (image,) = panel_row[-1].images
        label = f"{MEASURES[quantity].heading}\nmean ± standard deviation"
        figure.colorbar(image, ax=list(panel_row), label=label)
    return figure


def _colours(
    plot: Plot, quantity: str, rows: Sequence[object], columns: Sequence[object]
) -> tuple[matplotlib.colors.Normalize, int]:
    """The scale of colours and the decimals that all variants share."""
    grids = [_cells(plot, runs, quantity, rows, columns) for runs in plot.variants.values()]
    means = np.ma.masked_invalid([mean for mean, _ in grids])
    norm = matplotlib.colors.Normalize(means.min(), means.max())
    return norm, measures.decimals(quantity, means.compressed().tolist())


def _points(
    panel: Axes, plot: Plot, group: Sequence[Result], quantity: str, ink: dict[str, str]
) -> None:
    """A value's points with their spread, joined, and the deck's in grey where comparable."""
    name = setting_text(setting_value(group[0], plot.spec.by))
    rows = [row for row in plot.groups(group, "row").values() if len(final_values(row, quantity))]
    along = [_along(row[0], plot.spec.across) for row in rows]
    finals = [final_values(row, quantity) for row in rows]
    sds = [values.std(ddof=1) if len(values) > 1 else 0 for values in finals]
    style = {**ink, "markersize": 5, "linewidth": 0.8}
    panel.errorbar(along, [values.mean() for values in finals], sds, label=name, capsize=3, **style)
    decks = [plot.deck(row, quantity) for row in rows]
    if any(deck is not None for deck in decks):
        heights = [np.nan if deck is None else deck for deck in decks]
        style |= {"color": DECK_COLOUR, "linestyle": ":"}
        panel.plot(along, heights, label=f"{name}, deck", **style)


def _number_axes(panel: Axes, log: bool) -> None:
    """Linear axes from zero or logarithmic ones, with numbers written out."""
    if log:
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    else:
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(lambda number, _: f"{number:,.10g}")
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _reach(finals: np.ndarray) -> float:
    """How far the interval of a row's mean reaches on each side; 0 of one run, which has none."""
    return statistics.half_width(finals.std(ddof=1), len(finals)) if len(finals) > 1 else 0.0


def _cells(
    plot: Plot,
    results: Sequence[Result],
    quantity: str,
    rows: Sequence[object],
    columns: Sequence[object],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (rows, columns); nan where there is none."""
    mean, sd = np.full((2, len(rows), len(columns)), np.nan)
    for value, row in plot.groups(results, plot.spec.by).items():
        for other, group in plot.groups(row, plot.spec.across).items():
            finals = final_values(group, quantity)
            cell = rows.index(value), columns.index(other)
            mean[cell] = finals.mean() if len(finals) else np.nan
            sd[cell] = finals.std(ddof=1) if len(finals) > 1 else np.nan
    return mean, sd


def _along(result: Result, across: str) -> float:
    """Where a result lies; nan where it has no number, as all images are none of shots."""
    measured = across in MEASURES
    value = measures.final(result, across) if measured else setting_value(result, across)
    return np.nan if value is None else value


def _beside(along: Sequence[float], places: Sequence[float], steps: float) -> np.ndarray:
    """Where a line's points are drawn: moved along the axis by a number of steps."""
    numbers, share = np.asarray(along, float), steps * SIDESTEP
    if _spans_wide_range(places):
        return numbers * (max(places) / min(places)) ** share
    return numbers + share * (max(places) - min(places)) if len(places) else numbers


def _apart(places: Sequence[float]) -> list[float]:
    """Places along the axis with room for a number at each."""
    along = np.log(places) if _spans_wide_range(places) else np.asarray(places, float)
    named: list[int] = []
    for number, place in enumerate(along):
        if not named or place - along[named[-1]] >= (along[-1] - along[0]) / MOST_TICKS:
            named.append(number)
    return [places[number] for number in named]


def _spans_wide_range(places: Sequence[float]) -> bool:
    numbers = [place for place in places if not np.isnan(place)]
    return bool(numbers) and min(numbers) > 0 and max(numbers) > WIDE_RANGE * min(numbers)
