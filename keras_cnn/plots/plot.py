"""What all kinds of plot have in common: the runs shown, panels for variants, text, colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from keras_cnn.data import sources
from keras_cnn.plots.canvas import LETTER_INCHES, LINE_INCHES, short, wrapped
from keras_cnn.recipe import measures, schema
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results import caption
from keras_cnn.results.grid import width
from keras_cnn.results.layout import setting_text
from keras_cnn.results.store import Result

# Okabe and Ito's, told apart by colour-blind people too: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DECK_COLOUR = "#999999"
MARKERS = "os^Dv<P"
MOST_INCHES = 40.0  # of a side of a picture
MOST_IN_LEGEND = 30
OF_THE_LOOP = {"train_accuracy", "test_accuracy", "train_loss", "test_loss"}
OF_TWO = "(two runs hardly tell their spread: wide)"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Plot:
    """One plot: what to draw, and from which runs.

    Attributes:
        recipe: The recipe.
        spec: What to draw, as the recipe says it.
        results: The runs it is drawn from, at least one.
    """

    recipe: Recipe
    spec: schema.Figure
    results: Sequence[Result]

    @property
    def variants(self) -> dict[str, list[Result]]:
        """The runs of each variant."""
        return _grouped(self.results, lambda result: result.place.variant)

    @property
    def values(self) -> list[object]:
        """The values of `by`, in the recipe's order."""
        return list(self.groups(self.results, self.spec.by))

    @property
    def comparable(self) -> bool:
        """Whether the deck's numbers are of the same measurement."""
        return all(result.place.comparable for result in self.results)

    def groups(self, results: Sequence[Result], name: str) -> dict[object, list[Result]]:
        """Runs by their value of a setting, in the recipe's order."""
        return _grouped(results, lambda result: setting_value(result, name))

    def deck(self, group: Sequence[Result], quantity: str) -> float | None:
        """The deck's number for a group's row, where it is comparable."""
        row = next(row for row in self.recipe.rows if str(row.row) == group[0].place.row)
        return getattr(row.deck, quantity, None) if self.comparable else None

    def label(self, name: str) -> str:
        """What the table calls a setting."""
        headings = {shown: heading for heading, shown in self.recipe.columns.items()}
        return headings.get(name, name.replace("_", " "))


def setting_value(result: Result, name: str) -> object:
    """A run's setting by name, `row` being its row's name; None where its method has it not."""
    value = (result.settings | {"row": result.place.row}).get(name)
    return str(value) if isinstance(value, list | dict) else value  # as those of a method's own


def final_values(group: Sequence[Result], quantity: str) -> np.ndarray:
    """A quantity after the last epoch (repeats,), of the runs that have it."""
    values = [measures.final(result, quantity) for result in group]
    return np.array([value for value in values if value is not None])


def draw_panels(
    plot: Plot,
    items: Sequence[Item],
    draw: Callable[[Axes, list[Result], Item], None],
    height: float = 3.0,
    side: float = 4.4,
    grid: bool = True,
    together: bool = False,
) -> tuple[Figure, np.ndarray]:
    """A titled figure with a row of panels for each item, a panel for each variant.

    Args:
        plot: What is drawn.
        items: What the rows of panels show, each on axes of its own, shared along the row.
        draw: Draws an item of a variant's runs. Limits are set once all are drawn: they hold for
            the whole row.
        height: Of a panel, in inches.
        side: Its width, in inches.
        grid: Draw grid lines in place of a frame.
        together: All variants in one panel.

    Returns:
        The figure, and its panels (items, variants).
    """
    variants = {"": list(plot.results)} if together else plot.variants
    wanted = max(6.4, 1.6 + side * len(variants)), 0.9 + height * len(items)
    size = min(wanted[0], MOST_INCHES), min(wanted[1], MOST_INCHES)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(wrapped(plot.spec.title or plot.recipe.title, size[0], points=12))
    small_print = wrapped(_small_print(plot), size[0], points=7)
    figure.supxlabel(small_print, fontsize=7, color="#555555", x=0.01, ha="left")
    panels = figure.subplots(len(items), len(variants), squeeze=False, sharex="row", sharey="row")
    for (variant, group), column in zip(variants.items(), panels.T, strict=True):
        heading = ", ".join(filter(None, (short(variant), _repeats(group))))
        column[0].set_title(heading, fontsize=10)
        for panel, item in zip(column, items, strict=True):
            panel.spines[["top", "right"]].set_visible(not grid)
            if grid:
                panel.grid(alpha=0.25)
                panel.set_axisbelow(True)
            draw(panel, group, item)
    for panel in panels[:, 1:].flat:  # the vertical axis is named at the left alone
        panel.set_ylabel("")
        panel.tick_params(labelleft=False)
    return figure, panels


def keep_to_range(panels: np.ndarray, quantities: Sequence[str]) -> None:
    """Shows of a spread what can be: nothing below zero, no percentage above 100.

    Args:
        panels: (quantities, variants), all drawn.
        quantities: What each row of them shows.
    """
    for panel_row, quantity in zip(panels, quantities, strict=True):
        highest = 100.0 if MEASURES[quantity].unit == "percent" else np.inf
        low, high = panel_row[0].get_ylim()  # shared
        margin = 0.02 * min(high, highest)
        panel_row[0].set_ylim(max(low, -margin), min(high, highest + margin))


def legend_beside(figure: Figure, handles: Sequence, names: Sequence[str], title: str = "") -> None:
    """One legend for all panels, at their right; of many lines it names the first."""
    shown = [*zip(handles, map(short, names), strict=True)][:MOST_IN_LEGEND]
    if len(names) > MOST_IN_LEGEND:
        shown.append((Line2D([], [], linestyle=""), f"and {len(names) - MOST_IN_LEGEND} more"))
    style = {"loc": "outside right center", "frameon": False}  # clear of the title
    figure.legend(*zip(*shown, strict=True), title=short(title) or None, **style)


def ticks(
    values: Sequence[object], inches: float, letters: bool = False
) -> tuple[range, list[str]]:
    """Places and names of values along an axis, of many every second or third.

    Args:
        values: Settings, or other words.
        inches: How long the axis is.
        letters: The names stand beside one another, not above one another.
    """
    names = [short(setting_text(value)) for value in values]
    needed = LETTER_INCHES * (2 + max(map(width, names))) if letters else LINE_INCHES
    places = range(0, len(values), math.ceil(len(values) * needed / inches))
    return places, [names[place] for place in places]


def colour_and_marker(index: int) -> dict[str, str]:
    """The colour and the marker of a line of points, by its number."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def is_number(value: object) -> bool:
    """Whether a setting's value has a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _grouped(
    results: Sequence[Result], key: Callable[[Result], object]
) -> dict[object, list[Result]]:
    groups: dict[object, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def _repeats(group: Sequence[Result]) -> str:
    """`n = 3`, or `n = 2 to 3, 1 diverged`: how many repeats of each row did not."""
    rows = _grouped(group, lambda result: (result.place.row, result.place.variant)).values()
    counts = [sum(not result.diverged_at for result in row) for row in rows]
    low, high, diverged = min(counts), max(counts), len(group) - sum(counts)
    text = f"n = {low}" if low == high else f"n = {low} to {high}"
    return f"{text}, {diverged} diverged" if diverged else text


def has_two_runs(results: Sequence[Result]) -> bool:
    """Whether an interval would be of two runs of a row and variant."""
    finished = [result for result in results if not result.diverged_at]
    rows = _grouped(finished, lambda result: (result.place.row, result.place.variant))
    return any(len(row) == 2 for row in rows.values())


def _small_print(plot: Plot) -> str:
    """The recipe; profile and data if they are not the deck's; what the quantities are of."""
    parts = [plot.recipe.title] if plot.spec.title else []
    if not plot.comparable:
        run = plot.results[0]
        data = sources.title(run.settings["data"])
        parts.append(f"Not the deck's measurement: profile {run.place.profile}, data {data}")
    constant = sum(result.names_one_class for result in plot.results)
    if constant:
        parts.append(f"{constant} of {len(plot.results)} runs name one class for every test image")
    lengths = {len(r.history) for r in plot.results if not r.diverged_at}
    if not schema.FIGURE_KINDS[plot.spec.kind].by_epoch and len(lengths) > 1:
        parts.append(f"After {min(lengths)} to {max(lengths)} epochs")
    if not OF_THE_LOOP.isdisjoint(plot.spec.shown):
        parts += [note.rstrip(".") for note in caption.of_methods(plot.recipe, plot.results)]
    shown = {plot.deck([r], name) for r in plot.results for name in plot.spec.shown}
    if schema.FIGURE_KINDS[plot.spec.kind].shows_deck and shown - {None}:
        parts.append(f"Deck: {plot.recipe.deck_figures}")
    return ". ".join(parts)
