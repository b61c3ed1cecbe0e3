"""Every kind of plot of finished runs, as matplotlib figures. Never imports keras.

Each kind of `schema.FIGURE_KINDS` is the function of that name. Variants stand side by side and
share their axes, so that the eye compares; quantities stand below one another.
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from keras_cnn.plots.across import heat_map, scatter, trend
from keras_cnn.plots.bar_chart import bars
from keras_cnn.plots.by_epoch import curves, lines, runs
from keras_cnn.plots.canvas import save
from keras_cnn.plots.confusions import confusion, confusion_matrix
from keras_cnn.plots.growth import growth
from keras_cnn.plots.intervals import interval
from keras_cnn.plots.plot import Plot
from keras_cnn.plots.rows import rows

KINDS: dict[str, Callable[[Plot], Figure]] = {
    kind.__name__: kind
    for kind in (curves, runs, lines, bars, scatter, trend, heat_map, interval, rows)
}

__all__ = ["KINDS", "Plot", "confusion", "confusion_matrix", "growth", "save"]
