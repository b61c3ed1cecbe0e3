"""Measurements over the size of the work, both in logarithms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from keras_cnn.plots.canvas import wrapped
from keras_cnn.plots.plot import colour_and_marker


def growth(
    title: str,
    size_name: str,
    sizes: Sequence[int],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    slopes: Mapping[str, float],
) -> Figure:
    """A panel for each unit, a line for each measurement.

    Args:
        title: The plot's title.
        size_name: What the sizes are of.
        sizes: Along the horizontal axis.
        panels: By unit, measurements by name, one for each size.
        slopes: By a measurement's name, its slope in log-log, for the legend.
    """
    width = 5.2 * len(panels)
    figure = Figure(figsize=(width, 5.2), layout="constrained")
    figure.suptitle(wrapped(title, width, points=12))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (unit, lines) in zip(axes, panels.items(), strict=True):
        for index, (name, values) in enumerate(lines.items()):
            label = f"{name}: slope {slopes[name]:.2f}"
            panel.plot(sizes, values, label=label, **colour_and_marker(index))
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(lambda number, _: f"{number:,.10g}")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_minor_locator(NullLocator())
        panel.set_xlabel(size_name)
        panel.set_ylabel(unit)
        panel.grid(alpha=0.25)
        panel.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.15))
    return figure
