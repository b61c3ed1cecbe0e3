"""Quantities after the last epoch, a bar for each value of a setting."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn.plots.plot import (
    COLOURS,
    DECK_COLOUR,
    Plot,
    draw_panels,
    final_values,
    is_number,
)
from keras_cnn.recipe import measures
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.results.store import Result
from keras_cnn.results.table import setting_text


def bars(plot: Plot) -> Figure:
    """Mean after the last epoch by `by`, a standard deviation as an error bar, each run a dot.

    Numbers stand along the horizontal axis, names along the vertical one, where there is room.
    """
    values = plot.values
    upright = all(is_number(value) for value in values)

    def draw(panel: Axes, runs: Sequence[Result], quantity: str) -> None:
        groups = plot.groups(runs, plot.spec.by)
        decks = {value: plot.deck(group, quantity) for value, group in groups.items()}
        has_deck = any(deck is not None for deck in decks.values())
        thickness, shift = (0.4, 0.2) if has_deck else (0.7, 0)
        for value, group in groups.items():
            at = values.index(value) - shift
            _bar(panel, at, final_values(group, quantity), thickness, upright, quantity)
            if decks[value] is not None:
                deck_bar = panel.bar if upright else panel.barh
                deck_bar(at + 2 * shift, decks[value], thickness, color=DECK_COLOUR, label="deck")
        _axes(panel, plot.label(plot.spec.by), values, MEASURES[quantity].heading, upright)
        if has_deck:
            handles, names = panel.get_legend_handles_labels()
            once = dict(zip(names, handles, strict=True))
            panel.legend(once.values(), once, frameon=False, fontsize=8)

    height = 3.2 if upright else 1.0 + 0.42 * len(values)
    figure, panels = draw_panels(plot, plot.spec.shown, draw, height)
    for panel in panels.flat:
        panel.set_ylim(bottom=0) if upright else panel.set_xlim(left=0)
    return figure


def _bar(
    panel: Axes, at: float, finals: np.ndarray, thickness: float, upright: bool, quantity: str
) -> None:
    if not len(finals):
        return
    mean = finals.mean()
    sd = finals.std(ddof=1) if len(finals) > 1 else None
    end = max(finals.max(), mean + (sd or 0))
    style = {"color": COLOURS[0], "error_kw": {"capsize": 3, "ecolor": "black"}, "label": "here"}
    dots = {"marker": ".", "linestyle": "", "color": "black", "alpha": 0.5, "markersize": 4}
    text = {"textcoords": "offset points", "fontsize": 7.5}
    number = f"{mean:,.{measures.decimals(quantity, [mean])}f}"
    if upright:
        panel.bar(at, mean, thickness, yerr=sd, **style)
        panel.plot(np.full(len(finals), at), finals, **dots)
        panel.annotate(number, (at, end), xytext=(0, 2), ha="center", va="bottom", **text)
    else:
        panel.barh(at, mean, thickness, xerr=sd, **style)
        panel.plot(finals, np.full(len(finals), at), **dots)
        panel.annotate(number, (end, at), xytext=(4, 0), ha="left", va="center", **text)


def _axes(panel: Axes, setting: str, values: Sequence[object], heading: str, upright: bool) -> None:
    panel.grid(visible=False, axis="x" if upright else "y")
    panel.margins(**{"y" if upright else "x": 0.12})
    names = [setting_text(value) for value in values]
    if upright:
        panel.set_xticks(range(len(names)), names)
        panel.set_xlabel(setting)
        panel.set_ylabel(heading)
    else:
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        panel.set_xlabel(heading)
