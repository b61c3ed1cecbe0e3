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
    as_text,
    final_values,
    is_number,
    name_outer,
    new_panels,
)
from keras_cnn.recipe import measures
from keras_cnn.recipe.measures import MEASURES


def bars(plot: Plot) -> Figure:
    """Mean after the last epoch by `by`, a standard deviation as an error bar, each run a dot.

    Numbers stand along the horizontal axis, names along the vertical one, where there is room.
    """
    setting = plot.spec.by
    values = list(plot.groups(plot.results, setting))
    upright = all(is_number(value) for value in values)
    names = [as_text(value) for value in values]
    side = 3.2 if upright else 1.0 + 0.42 * len(values)
    figure, panels = new_panels(plot, len(plot.spec.shown), height=side)
    for column, variant_runs in zip(panels.T, plot.variants.values(), strict=True):
        groups = plot.groups(variant_runs, setting)
        for panel, quantity in zip(column, plot.spec.shown, strict=True):
            decks = {v: plot.deck(group, quantity) for v, group in groups.items()}
            has_deck = any(deck is not None for deck in decks.values())
            thickness = 0.4 if has_deck else 0.7
            shift = thickness / 2 if has_deck else 0
            for value, group in groups.items():
                at = values.index(value) - shift
                _bar(panel, at, final_values(group, quantity), thickness, upright, quantity)
                if decks[value] is not None:
                    draw = panel.bar if upright else panel.barh
                    draw(at + 2 * shift, decks[value], thickness, color=DECK_COLOUR, label="deck")
            _bar_axes(panel, plot.label(setting), names, MEASURES[quantity].heading, upright)
            if has_deck:
                panel.legend(*_once(panel), frameon=False, fontsize=8)
    for panel in panels.flat:  # once all are drawn: a limit set holds for those that share it
        panel.set_ylim(bottom=0) if upright else panel.set_xlim(left=0)
    name_outer(panels)
    return figure


def _bar(
    panel: Axes, at: float, finals: np.ndarray, thickness: float, upright: bool, quantity: str
) -> None:
    if not len(finals):
        return
    mean = finals.mean()
    sd = finals.std(ddof=1) if len(finals) > 1 else None
    error = {"capsize": 3, "ecolor": "black"}
    dots = (np.full(len(finals), at), finals)
    if upright:
        panel.bar(at, mean, thickness, yerr=sd, color=COLOURS[0], error_kw=error, label="here")
    else:
        panel.barh(at, mean, thickness, xerr=sd, color=COLOURS[0], error_kw=error, label="here")
    panel.plot(*(dots if upright else dots[::-1]), ".", color="black", alpha=0.5, markersize=4)
    text = f"{mean:,.{measures.decimals(quantity, [mean])}f}"
    end = max(finals.max(), mean + (sd or 0))
    spot, shift = ((at, end), (0, 2)) if upright else ((end, at), (4, 0))
    panel.annotate(
        text,
        spot,
        xytext=shift,
        textcoords="offset points",
        ha="center" if upright else "left",
        va="bottom" if upright else "center",
        fontsize=7.5,
    )


def _bar_axes(panel: Axes, setting: str, names: Sequence[str], heading: str, upright: bool) -> None:
    panel.grid(visible=False, axis="x" if upright else "y")
    panel.margins(**{"y" if upright else "x": 0.12})
    if upright:
        panel.set_xticks(range(len(names)), names)
        panel.set_xlabel(setting)
        panel.set_ylabel(heading)
    else:
        panel.set_yticks(range(len(names)), names)
        panel.set_ylim(len(names) - 0.5, -0.5)  # the first on top
        panel.set_xlabel(heading)


def _once(panel: Axes) -> tuple[list, list[str]]:
    """Handles and labels of a legend, each label once."""
    found = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    return list(found.values()), list(found)
