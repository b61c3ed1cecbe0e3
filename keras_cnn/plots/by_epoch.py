"""Quantities epoch by epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn.plots.plot import (
    COLOURS,
    Plot,
    draw_panels,
    is_number,
    keep_to_range,
    legend_beside,
)
from keras_cnn.recipe import measures
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.results.layout import setting_text
from keras_cnn.results.store import Result

SPLIT_COLOURS = {"train": COLOURS[0], "test": COLOURS[1]}
DASHES = ("-", "--", ":", "-.")
# How opaque a band is: fainter where those of many lines may lie over one another.
BAND, BAND_OF_MANY = 0.25, 0.13


def curves(plot: Plot) -> Figure:
    """Train and test, epoch by epoch: mean line, one sample standard deviation as a band."""
    return _by_family(plot, _mean_and_band, "mean ± standard deviation")


def runs(plot: Plot) -> Figure:
    """Train and test, epoch by epoch: every run faint, the mean dashed."""
    return _by_family(plot, _every_run)


def lines(plot: Plot) -> Figure:
    """Mean by epoch, a line for each value of `by`; a panel a quantity.

    Above, the means alone, as slides show them; below, on the same axes, with bands of one sample
    standard deviation, where there are repeats.
    """
    setting, quantities = plot.spec.by, plot.spec.shown
    styles = line_styles(plot.values)
    has_bands = plot.spec.band and any(
        len(group) > 1
        for variant_runs in plot.variants.values()
        for group in plot.groups(variant_runs, setting).values()
    )
    shown = [(quantity, band) for band in (False, True)[: 1 + has_bands] for quantity in quantities]

    def draw(panel: Axes, variant_runs: Sequence[Result], item: tuple[str, bool]) -> None:
        quantity, band = item
        for value, group in plot.groups(variant_runs, setting).items():
            _line(panel, group, quantity, styles[value], band, BAND_OF_MANY)
        spread = "mean ± standard deviation" if band else "mean"
        panel.set_ylabel(f"{MEASURES[quantity].heading}\n{spread}")

    figure, panels = draw_panels(plot, shown, draw)
    for banded, plain in zip(panels[len(quantities) :, 0], panels[:, 0], strict=False):
        banded.sharey(plain)
    _number_epochs(panels)
    keep_to_range(panels, [quantity for quantity, _ in shown])
    handles = [matplotlib.lines.Line2D([], [], **style) for style in styles.values()]
    legend_beside(figure, handles, [setting_text(value) for value in styles], plot.label(setting))
    return figure


def _by_family(
    plot: Plot, draw: Callable[[Axes, Sequence[Result], str, str], None], spread: str = ""
) -> Figure:
    """A panel each for accuracies and losses, train and test in their colours."""
    if all(len(group) == 1 for group in plot.variants.values()):
        spread = ""
    families: dict[str, list[str]] = {}
    for quantity in plot.spec.shown:
        families.setdefault(quantity.split("_", 1)[1], []).append(quantity)

    def draw_family(panel: Axes, group: Sequence[Result], quantities: Sequence[str]) -> None:
        for quantity in quantities:
            draw(panel, group, quantity, SPLIT_COLOURS[quantity.split("_", 1)[0]])
        heading = MEASURES[quantities[0]].heading.split(" ", 1)[1]
        panel.set_ylabel("\n".join(filter(None, (heading, spread))))

    figure, panels = draw_panels(plot, list(families.values()), draw_family)
    _number_epochs(panels)
    keep_to_range(panels, [quantities[0] for quantities in families.values()])
    for panel in panels[:, 0]:
        panel.legend(frameon=False, fontsize=8)
    return figure


def _mean_and_band(panel: Axes, group: Sequence[Result], quantity: str, colour: str) -> None:
    _line(panel, group, quantity, {"color": colour}, band=True, opacity=BAND)


def _every_run(panel: Axes, group: Sequence[Result], quantity: str, colour: str) -> None:
    epochs, values = _history(group, quantity)
    marker = "o" if len(epochs) == 1 else None
    panel.plot(epochs, values.T, color=colour, alpha=0.3, linewidth=0.8, marker=marker)
    label = f"{quantity.split('_', 1)[0]}, mean"
    mean = {"linestyle": "--", "linewidth": 2, "label": label, "marker": marker}
    panel.plot(epochs, values.mean(axis=0).filled(np.nan), color=colour, **mean)


def _line(
    panel: Axes,
    group: Sequence[Result],
    quantity: str,
    style: dict[str, str],
    band: bool,
    opacity: float,
) -> None:
    """Mean over repeats, and one sample standard deviation on each side of it."""
    epochs, values = _history(group, quantity)
    mean = values.mean(axis=0).filled(np.nan)  # (repeats, epochs) -> (epochs,)
    marker = "o" if len(epochs) == 1 else None
    label = quantity.split("_", 1)[0]
    panel.plot(epochs, mean, **style, label=label, marker=marker, linewidth=1.5)
    if band and len(group) > 1:
        sd = values.std(axis=0, ddof=1).filled(np.nan)
        ends = mean - sd, mean + sd
        panel.fill_between(epochs, *ends, color=style["color"], alpha=opacity, linewidth=0)


def _history(group: Sequence[Result], quantity: str) -> tuple[list[float], np.ma.MaskedArray]:
    """Epochs, and a quantity (repeats, epochs), masked where a repeat had fewer."""
    longest = max((result.history for result in group), key=len)
    values = np.ma.masked_all((len(group), len(longest)))
    for number, result in enumerate(group):
        values[number, : len(result.history)] = measures.by_epoch(result, quantity)
    return [record["epoch"] for record in longest], values


def _number_epochs(panels: np.ndarray) -> None:
    for panel in panels[-1]:
        panel.set_xlabel("epoch")
    for panel in panels.flat:
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def line_styles(values: Sequence[object]) -> dict[object, dict[str, str]]:
    """Lines that can be told apart: ordered colours for numbers, colours and dashes for names."""
    if all(is_number(value) for value in values) and len(values) > 2:
        shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(values)))
        ranks = {value: rank for rank, value in enumerate(sorted(values))}
        return {
            value: {"color": matplotlib.colors.to_hex(shades[ranks[value]]), "linestyle": "-"}
            for value in values
        }
    return {
        value: {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}
        for index, value in enumerate(values)
    }
