"""Quantities after the last epoch, a bar for each value of a setting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn.plots.plot import (
    COLOURS,
    DECK_COLOUR,
    LINE_INCHES,
    Plot,
    draw_panels,
    final_values,
    is_number,
    ticks,
)
from keras_cnn.recipe import measures
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.results.store import Result

HIGHEST = 12.0  # inches of a panel
WIDTH = 4.0  # of one with upright bars
LEGEND = "mean ± standard deviation; dots are runs"


def bars(plot: Plot) -> Figure:
    """Mean after the last epoch by `by`, a standard deviation as an error bar, each run a dot.

    Numbers stand along the horizontal axis, names along the vertical one, where there is room.
    """
    values = plot.values
    upright = all(is_number(value) for value in values)
    height = 3.2 if upright else min(1.0 + 0.42 * len(values), HIGHEST)
    has_room = len(values) * LINE_INCHES < height

    def draw(panel: Axes, runs: Sequence[Result], quantity: str) -> None:
        groups = plot.groups(runs, plot.spec.by)
        decks = {value: plot.deck(group, quantity) for value, group in groups.items()}
        has_deck = any(deck is not None for deck in decks.values())
        thickness, shift = (0.4, 0.2) if has_deck else (0.7, 0)
        for value, group in groups.items():
            at, finals = values.index(value) - shift, final_values(group, quantity)
            if len(finals):
                end = _bar(panel, at, finals, thickness, upright)
                if has_room:
                    places = measures.decimals(quantity, [finals.mean()])
                    _write_number(panel, at, end, f"{finals.mean():,.{places}f}", upright)
            if decks[value] is not None:
                deck_bar = panel.bar if upright else panel.barh
                deck_bar(at + 2 * shift, decks[value], thickness, color=DECK_COLOUR, label="deck")
        spread = [LEGEND] if any(len(group) > 1 for group in groups.values()) else []
        heading = "\n".join([MEASURES[quantity].heading, *spread])
        _name_axes(panel, plot.label(plot.spec.by), heading, upright)
        if has_room:
            for value in [value for value in values if value not in groups]:
                _write_number(panel, values.index(value), 0, "not run", upright)
        if upright:
            _name_bars(panel, values)
        else:
            panel.set_yticks(*ticks(values, inches=height))
            panel.set_ylim(len(values) - 0.5, -0.5)  # the first on top
        if has_deck:
            handles, names = panel.get_legend_handles_labels()
            once = dict(zip(names, handles, strict=True))
            panel.legend(once.values(), once, frameon=False, fontsize=8)

    figure, panels = draw_panels(plot, plot.spec.shown, draw, height)
    for panel in panels.flat:
        panel.set_ylim(bottom=0) if upright else panel.set_xlim(left=0)
    return figure


def _bar(panel: Axes, at: float, finals: np.ndarray, thickness: float, upright: bool) -> float:
    """Draws a bar with its spread and its runs; gives where all that ends."""
    mean = finals.mean()
    sd = finals.std(ddof=1) if len(finals) > 1 else None
    style = {"color": COLOURS[0], "error_kw": {"capsize": 3, "ecolor": "black"}, "label": "here"}
    dots = {"marker": "o", "linestyle": "", "color": "black", "markersize": 3.5, "mec": "white"}
    places = np.full(len(finals), at)
    if upright:
        panel.bar(at, mean, thickness, yerr=sd, **style)
        panel.plot(places, finals, **dots)
    else:
        panel.barh(at, mean, thickness, xerr=sd, **style)
        panel.plot(finals, places, **dots)
    return max(finals.max(), mean + (sd or 0))


def _name_bars(panel: Axes, values: Sequence[object]) -> None:
    """Each bar's name below it, turned where they would touch one another."""
    places, names = ticks(values, inches=WIDTH, letters=True)
    if len(names) == len(values):
        panel.set_xticks(places, names)
    else:
        panel.set_xticks(*ticks(values, inches=WIDTH), rotation=45, ha="right")


def _write_number(panel: Axes, at: float, end: float, text: str, upright: bool) -> None:
    style = {"textcoords": "offset points", "fontsize": 7.5}
    if upright:
        panel.annotate(text, (at, end), xytext=(0, 2), ha="center", va="bottom", **style)
    else:
        panel.annotate(text, (end, at), xytext=(4, 0), ha="left", va="center", **style)


def _name_axes(panel: Axes, setting: str, heading: str, upright: bool) -> None:
    panel.grid(visible=False, axis="x" if upright else "y")
    panel.margins(**{"y" if upright else "x": 0.12})
    panel.set_xlabel(setting if upright else heading)
    if upright:
        panel.set_ylabel(heading)
