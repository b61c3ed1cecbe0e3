"""What repeating a run buys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn import statistics
from keras_cnn.plots.plot import COLOURS, Plot, final_values, name_outer, new_panels
from keras_cnn.recipe.measures import MEASURES


def interval(plot: Plot) -> Figure:
    """What n runs buy: the mean of the first n runs with its 95 percent confidence interval.

    Below it, how far the interval reaches on each side: of the first n runs, and as expected of
    any n runs with the spread of them all. Student's t; the runs are taken as independent.
    """
    quantities = plot.spec.shown
    figure, panels = new_panels(plot, 2 * len(quantities), height=2.8)
    for column, group in zip(panels.T, plot.variants.values(), strict=True):
        for upper, lower, quantity in zip(column[::2], column[1::2], quantities, strict=True):
            finals = final_values(group, quantity)
            if not len(finals):
                continue
            style = {"color": "#555555", "linestyle": "--", "linewidth": 1}
            upper.axhline(finals.mean(), label=f"mean of all {len(finals)}", **style)
            upper.plot(np.arange(len(finals)) + 1, finals, "x", color="#555555", label="each run")
            counts = np.arange(2, len(finals) + 1)
            means = [finals[:n].mean() for n in counts]
            reach = [statistics.half_width(finals[:n].std(ddof=1), n) for n in counts]
            expected = (
                [statistics.half_width(finals.std(ddof=1), n) for n in counts]
                if len(counts)
                else []
            )
            upper.errorbar(
                counts, means, reach, fmt="o", capsize=4, color=COLOURS[0], label="mean of first n"
            )
            lower.plot(counts, reach, "o", color=COLOURS[0], label="of the first n runs")
            label = f"expected, spread of all {len(finals)}"
            lower.plot(counts, expected, color=COLOURS[1], label=label)
            _zoom(upper, finals, means, reach)
            upper.set_ylabel(f"{MEASURES[quantity].heading}\nmean, 95 percent interval")
            unit = "percentage points" if MEASURES[quantity].unit == "percent" else None
            lower.set_ylabel(f"half width of the interval,\n{unit or MEASURES[quantity].heading}")
            lower.set_ylim(bottom=0)
            for panel in (upper, lower):
                panel.legend(frameon=False, fontsize=8)
                panel.set_xlim(0.5, len(finals) + 0.5)
                panel.xaxis.get_major_locator().set_params(integer=True)
        column[-1].set_xlabel("runs")
    name_outer(panels)
    return figure


def _zoom(panel: Axes, finals: np.ndarray, means: Sequence[float], reach: Sequence[float]) -> None:
    """Shows the intervals of three runs and more whole; that of two may reach out of the panel."""
    ends = [mean + sign * half for mean, half in zip(means, reach, strict=True) for sign in (-1, 1)]
    inside = [end for end in [*finals, *(ends[2:] or ends)] if np.isfinite(end)] or [0]
    low, high = min(inside), max(inside)
    margin = 0.08 * (high - low) or 1
    panel.set_ylim(low - margin, high + margin)
