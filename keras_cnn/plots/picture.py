"""What all kinds of picture have in common: the runs shown, panels for variants, words and ink."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn.data import sources
from keras_cnn.recipe import measures, schema
from keras_cnn.recipe.measures import MEASURES
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results.store import Result

# Okabe and Ito's, told apart by colour-blind people too: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DECK_COLOUR = "#999999"
MARKERS = "os^Dv<P"


@dataclass(frozen=True)
class Picture:
    """What one picture shows.

    Attributes:
        plan: The recipe.
        figure: What to draw.
        results: The runs it is drawn from, at least one.
    """

    plan: Recipe
    figure: schema.Figure
    results: Sequence[Result]

    @property
    def variants(self) -> dict[str, list[Result]]:
        """The runs of each variant."""
        return _grouped(self.results, lambda result: result.place.variant)

    @property
    def comparable(self) -> bool:
        """Whether the deck's figures are of the same measurement."""
        return all(result.place.comparable for result in self.results)

    def by(self, results: Sequence[Result], setting: str) -> dict[object, list[Result]]:
        """Runs by what they have of a setting, in the recipe's order."""
        return _grouped(results, lambda result: setting_of(result, setting))

    def deck(self, group: Sequence[Result], quantity: str) -> float | None:
        """The deck's figure of a group's row, where it may stand beside ours."""
        row = next(row for row in self.plan.rows if str(row.row) == group[0].place.row)
        return getattr(row.deck, quantity, None) if self.comparable else None

    def label(self, setting: str) -> str:
        """What the table calls a setting."""
        headings = {name: heading for heading, name in self.plan.columns.items()}
        return headings.get(setting, setting.replace("_", " "))


def setting_of(result: Result, name: str) -> object:
    """A run's setting by name, None where its method has no such one; `row` is its row's name."""
    return (result.settings | {"row": result.place.row}).get(name)


def finals_of(group: Sequence[Result], quantity: str) -> np.ndarray:
    """A quantity after the last epoch (repeats,), of the runs that have it."""
    values = [measures.final(result, quantity) for result in group]
    return np.array([value for value in values if value is not None])


def new_panels(
    picture: Picture, rows: int, height: float = 3.0, width: float = 4.4, grid: bool = True
) -> tuple[Figure, np.ndarray]:
    """A titled figure of `rows` x variants panels; axes are shared along a row."""
    variants = picture.variants
    size = (max(6.4, 1.6 + width * len(variants)), 0.9 + height * rows)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(picture.figure.title or picture.plan.title)
    small_print = textwrap.fill(_small_print(picture), int(17 * size[0]))
    figure.supxlabel(small_print, fontsize=7, color="#555555", x=0.01, ha="left", parse_math=False)
    panels = figure.subplots(rows, len(variants), squeeze=False, sharex="row", sharey="row")
    for (variant, group), column in zip(variants.items(), panels.T, strict=True):
        column[0].set_title(f"{variant}, n = {_repeats(group)}", fontsize=10)
        for panel in column:
            panel.spines[["top", "right"]].set_visible(not grid)
            if grid:
                panel.grid(alpha=0.25)
                panel.set_axisbelow(True)
    return figure, panels


def name_outer(panels: np.ndarray) -> None:
    """Leaves the vertical axis, shared along a row, named at the left alone."""
    for panel in panels[:, 1:].flat:
        panel.set_ylabel("")
        panel.tick_params(labelleft=False)


def keep_to_range(panel_row: Sequence[Axes], quantity: str) -> None:
    """Shows of a spread what can be: nothing below zero, no percentage above 100.

    Call it once all is drawn.
    """
    highest = 100.0 if MEASURES[quantity].unit == "percent" else np.inf
    for panel in panel_row:
        low, high = panel.get_ylim()
        margin = 0.02 * min(high, highest)
        panel.set_ylim(max(low, -margin), min(high, highest + margin))


def as_text(value: object) -> str:
    """A setting's value as a label: 0.001, not 0.0010000."""
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    """How many repeats each row has: one number, or from which to which."""
    counts = [len(row) for row in _grouped(group, lambda result: result.place.row).values()]
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _small_print(picture: Picture) -> str:
    """The recipe, what was measured on if it is not what the deck did, whence the deck's bars."""
    parts = [picture.plan.title] if picture.figure.title else []
    if not picture.comparable:
        first = picture.results[0]
        data = sources.title(first.settings["data"])
        parts.append(f"Not the deck's measurement: profile {first.place.profile}, data {data}")
    shown = {picture.deck([r], name) for r in picture.results for name in picture.figure.shown}
    if picture.figure.kind in ("bars", "scatter") and shown - {None}:
        parts.append(f"Deck: {picture.plan.deck_figures}")
    return ". ".join(parts)
