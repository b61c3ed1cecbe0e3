"""What repeating a run buys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn.plots.plot import COLOURS, Plot, draw_panels, final_values, keep_to_range
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.results.store import Result
from keras_cnn.statistics import half_width


def interval(plot: Plot) -> Figure:
    """What n runs buy: the mean of the first n runs with its 95 percent confidence interval.

    Below it, how far the interval reaches on each side: of the first n runs, and as expected of
    any n runs with the spread of them all. Student's t; the runs are taken as independent. The
    interval of two runs stands below as a number.
    """
    shown = [(quantity, kind) for quantity in plot.spec.shown for kind in (_means, _reaches)]

    def draw(panel: Axes, runs: Sequence[Result], item: tuple) -> None:
        quantity, kind = item
        finals = final_values(runs, quantity)
        if len(finals):
            counts = np.arange(2, len(finals) + 1)
            reach = [half_width(finals[:n].std(ddof=1), n) for n in counts]
            kind(panel, finals, counts, reach, quantity)
            panel.legend(frameon=False, fontsize=8)
            panel.set_xlim(0.5, len(finals) + 0.5)
            panel.xaxis.get_major_locator().set_params(integer=True)

    figure, panels = draw_panels(plot, shown, draw, height=2.8)
    keep_to_range(panels[::2], plot.spec.shown)
    for panel in panels[-1]:
        panel.set_xlabel("runs")
    return figure


def _means(
    panel: Axes, finals: np.ndarray, counts: np.ndarray, reach: Sequence[float], quantity: str
) -> None:
    grey, means = "#555555", [finals[:n].mean() for n in counts]
    label = f"mean of all {len(finals)}"
    panel.axhline(finals.mean(), color=grey, linestyle="--", linewidth=1, label=label)
    panel.plot(np.arange(len(finals)) + 1, finals, "x", color=grey, label="each run")
    drawn = _drawn(reach)
    style = {"fmt": "o", "capsize": 4, "color": COLOURS[0]}
    panel.errorbar(counts, means, drawn, label="mean of first n", **style)
    ends = [mean + sign * half for mean, half in zip(means, drawn, strict=True) for sign in (-1, 1)]
    inside = [end for end in [*finals, *ends] if np.isfinite(end)] or [0]
    margin = 0.08 * (max(inside) - min(inside)) or 1
    panel.set_ylim(min(inside) - margin, max(inside) + margin)
    panel.set_ylabel(f"{MEASURES[quantity].heading}\nmean, 95 percent interval")


def _drawn(reach: Sequence[float]) -> list[float]:
    """That of two runs is not drawn beside others: it is so wide that it hides them."""
    return [np.nan, *reach[1:]] if len(reach) > 1 else list(reach)


def _reaches(
    panel: Axes, finals: np.ndarray, counts: np.ndarray, reach: Sequence[float], quantity: str
) -> None:
    panel.plot(counts, _drawn(reach), "o", color=COLOURS[0], label="of the first n runs")
    expected = _drawn([half_width(finals.std(ddof=1), n) for n in counts])
    label = f"expected, spread of all {len(finals)}"
    panel.plot(counts, expected, color=COLOURS[1], label=label)
    percent = MEASURES[quantity].unit == "percent"
    unit = "percentage points" if percent else MEASURES[quantity].heading
    panel.set_ylabel(f"half width of the interval,\n{unit}")
    panel.set_ylim(bottom=0)
    if len(reach) > 1:
        place = {"transform": panel.get_xaxis_transform(), "ha": "center", "fontsize": 8}
        panel.text(2, 0.05, f"of 2 runs:\n{reach[0]:.1f}", **place)
