"""Every kind of picture of finished runs, as matplotlib figures. Never imports keras.

Each kind of `recipe.FIGURE_KINDS` is the function of that name. Variants stand side by side and
share their axes, so that the eye compares; quantities stand below one another.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_cnn import measures, recipe
from keras_cnn.measures import MEASURES
from keras_cnn.recipe import Recipe
from keras_cnn.store import Result

# Okabe and Ito's, told apart by colour-blind people too: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SPLIT_COLOURS = {"train": COLOURS[0], "test": COLOURS[1]}
DECK_COLOUR = "#999999"
MARKERS = "os^Dv<P"
DASHES = ("-", "--", ":", "-.")
# From this ratio of largest to smallest on, a linear axis hides the small ones.
WIDE_RANGE = 30


@dataclass(frozen=True)
class Picture:
    """What one picture shows.

    Attributes:
        plan: The recipe.
        figure: What to draw.
        results: The runs it is drawn from, at least one.
    """

    plan: Recipe
    figure: recipe.Figure
    results: Sequence[Result]

    @property
    def variants(self) -> dict[str, list[Result]]:
        """The runs of each variant."""
        return _grouped(self.results, lambda result: result.run["variant"])

    @property
    def comparable(self) -> bool:
        """Whether the deck's figures are of the same measurement."""
        return all(result.run["comparable"] for result in self.results)

    def by(self, results: Sequence[Result], setting: str) -> dict[object, list[Result]]:
        """Runs by what they have of a setting, in the recipe's order."""
        return _grouped(results, lambda result: setting_of(result, setting))

    def deck(self, group: Sequence[Result], quantity: str) -> float | None:
        """The slide's figure of a group's row, where it may stand beside ours."""
        row = next(row for row in self.plan.rows if str(row.row) == group[0].run["row"])
        return getattr(row.deck, quantity, None) if self.comparable else None

    def label(self, setting: str) -> str:
        """What the table calls a setting."""
        headings = {name: heading for heading, name in self.plan.columns.items()}
        return headings.get(setting, setting.replace("_", " "))


def setting_of(result: Result, name: str) -> object:
    """A run's setting by name, None where its method has no such one; `row` is its row's name."""
    return (result.settings | {"row": result.run["row"]}).get(name)


def curves(picture: Picture) -> Figure:
    """Train and test, epoch by epoch: mean line, one sample standard deviation as a band."""
    return _by_family(picture, _mean_and_band)


def runs(picture: Picture) -> Figure:
    """Train and test, epoch by epoch: every run faint, the mean dashed."""
    return _by_family(picture, _every_run)


def lines(picture: Picture) -> Figure:
    """Mean by epoch, a line for each value of `by`; a panel a quantity.

    Above, the means alone, as slides show them; below, on the same axes, with bands of one sample
    standard deviation, where there are repeats.
    """
    setting, quantities = picture.figure.by, picture.figure.shown
    styles = _styles(list(picture.by(picture.results, setting)))
    has_bands = picture.figure.band and any(
        len(group) > 1
        for of_variant in picture.variants.values()
        for group in picture.by(of_variant, setting).values()
    )
    shown = [(quantity, band) for band in (False, True)[: 1 + has_bands] for quantity in quantities]
    figure, panels = _panels(picture, len(shown))
    for banded, plain in zip(panels[len(quantities) :, 0], panels[:, 0], strict=False):
        banded.sharey(plain)
    for column, of_variant in zip(panels.T, picture.variants.values(), strict=True):
        groups = picture.by(of_variant, setting)
        for panel, (quantity, band) in zip(column, shown, strict=True):
            for value, group in groups.items():
                _line(panel, group, quantity, styles[value], band, 0.13)
            spread = "mean ± standard deviation" if band else "mean"
            panel.set_ylabel(f"{MEASURES[quantity].heading}\n{spread}")
        _epochs_below(column)
    for panel_row, (quantity, _) in zip(panels, shown, strict=True):
        _keep_to_percent(panel_row, quantity)
    handles = [
        matplotlib.lines.Line2D([], [], **style, label=_text(value))
        for value, style in styles.items()
    ]
    title = picture.label(setting)
    figure.legend(handles=handles, title=title, loc="outside right upper", frameon=False)
    _name_outer(panels)
    return figure


def bars(picture: Picture) -> Figure:
    """Mean after the last epoch by `by`, a standard deviation as an error bar, each run a dot.

    Numbers stand along the horizontal axis, names along the vertical one, where there is room.
    """
    setting = picture.figure.by
    values = list(picture.by(picture.results, setting))
    upright = all(_is_number(value) for value in values)
    names = [_text(value) for value in values]
    side = 3.2 if upright else 1.0 + 0.42 * len(values)
    figure, panels = _panels(picture, len(picture.figure.shown), height=side)
    for column, of_variant in zip(panels.T, picture.variants.values(), strict=True):
        groups = picture.by(of_variant, setting)
        for panel, quantity in zip(column, picture.figure.shown, strict=True):
            decks = {v: picture.deck(group, quantity) for v, group in groups.items()}
            has_deck = any(deck is not None for deck in decks.values())
            thickness = 0.4 if has_deck else 0.7
            shift = thickness / 2 if has_deck else 0
            for value, group in groups.items():
                at = values.index(value) - shift
                _bar(panel, at, _finals(group, quantity), thickness, upright, quantity)
                if decks[value] is not None:
                    draw = panel.bar if upright else panel.barh
                    draw(at + 2 * shift, decks[value], thickness, color=DECK_COLOUR, label="deck")
            _bar_axes(panel, picture.label(setting), names, MEASURES[quantity].heading, upright)
            if has_deck:
                panel.legend(*_once(panel), frameon=False, fontsize=8)
    for panel in panels.flat:  # once all are drawn: a limit set holds for those that share it
        panel.set_ylim(bottom=0) if upright else panel.set_xlim(left=0)
    _name_outer(panels)
    return figure


def scatter(picture: Picture) -> Figure:
    """A quantity against `across`, a point a row with its spread, a colour for each value of `by`.

    Where `across` spans a wide range, once more with logarithmic axes.
    """
    across, setting = picture.figure.across, picture.figure.by
    values = list(picture.by(picture.results, setting))
    along = [_along(result, across) for result in picture.results]
    is_wide = min(along) > 0 and max(along) > WIDE_RANGE * min(along)
    scales = ["linear", "log"] if is_wide else ["linear"]
    figure, panels = _panels(picture, len(picture.figure.shown) * len(scales))
    shown = [(quantity, scale) for quantity in picture.figure.shown for scale in scales]
    for column, of_variant in zip(panels.T, picture.variants.values(), strict=True):
        for panel, (quantity, _) in zip(column, shown, strict=True):
            for value, group in picture.by(of_variant, setting).items():
                style = values.index(value)
                _points(panel, picture, group, quantity, COLOURS[style % 7], MARKERS[style % 7])
            panel.set_xlabel(MEASURES[across].heading if across in MEASURES else across)
            panel.set_ylabel(MEASURES[quantity].heading)
    for panel_row, (_, scale) in zip(panels, shown, strict=True):
        for panel in panel_row:  # once all are drawn: a limit set holds for those that share it
            _number_axes(panel, scale)
    handles, names = panels[0, 0].get_legend_handles_labels()
    order = np.argsort(names)  # each value beside its deck
    handles, names = [handles[i] for i in order], [names[i] for i in order]
    figure.legend(handles, names, loc="outside right upper", frameon=False)
    _name_outer(panels)
    return figure


def trend(picture: Picture) -> Figure:
    """Mean after the last epoch against `across`, a line for each value of `by`.

    Error bars are 95 percent confidence intervals of the means by Student's t, where there are
    repeats; they may reach out of the panel. Numbers that span a wide range stand on a logarithmic
    axis.
    """
    setting, across = picture.figure.by, picture.figure.across
    values = list(picture.by(picture.results, setting))
    places = sorted({_along(result, across) for result in picture.results})
    figure, panels = _panels(picture, len(picture.figure.shown), height=4.2, width=5.6)
    for column, of_variant in zip(panels.T, picture.variants.values(), strict=True):
        for panel, quantity in zip(column, picture.figure.shown, strict=True):
            for value, group in picture.by(of_variant, setting).items():
                finals = {
                    _along(row[0], across): _finals(row, quantity)
                    for row in picture.by(group, "row").values()
                }
                along = sorted(place for place in finals if len(finals[place]))
                means = np.array([finals[place].mean() for place in along])
                reach = [_reach(finals[place]) for place in along]
                number = values.index(value)
                panel.errorbar(
                    along,
                    means,
                    reach,
                    marker=MARKERS[number % 7],
                    color=COLOURS[number % 7],
                    label=_text(value).replace("_", " "),
                    markersize=5,
                    linewidth=1.2,
                    capsize=3,
                )
            panel.set_ylabel(MEASURES[quantity].heading)
            if len(places) > 1 and min(places) > 0 and max(places) > WIDE_RANGE * min(places):
                panel.set_xscale("log")
            panel.set_xticks(places, [f"{place:g}" for place in places])
            panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        column[-1].set_xlabel(picture.label(across))
    for panel_row, quantity in zip(panels, picture.figure.shown, strict=True):
        _keep_to_percent(panel_row, quantity)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", frameon=False)
    _name_outer(panels)
    return figure


def heat_map(picture: Picture) -> Figure:
    """Mean and standard deviation after the last epoch, `by` downwards, `across` to the right."""
    rows = list(picture.by(picture.results, picture.figure.by))
    columns = list(picture.by(picture.results, picture.figure.across))
    size = {"height": 1.1 + 0.55 * len(rows), "width": max(3.2, 0.6 + 0.78 * len(columns))}
    figure, panels = _panels(picture, len(picture.figure.shown), grid=False, **size)
    for panel_row, quantity in zip(panels, picture.figure.shown, strict=True):
        grids = [_cells(picture, of_variant, quantity) for of_variant in picture.variants.values()]
        means = np.ma.masked_invalid([mean for mean, _ in grids])
        norm = matplotlib.colors.Normalize(means.min(), means.max())
        places = measures.decimals(quantity, means.compressed().tolist())
        for panel, (mean, sd) in zip(panel_row, grids, strict=True):
            image = panel.imshow(np.ma.masked_invalid(mean), norm=norm, cmap="cividis")
            image.axes.set_aspect("auto")
            for (row, column), value in np.ndenumerate(mean):
                if np.isfinite(value):
                    text = f"{value:,.{places}f}"
                    if np.isfinite(sd[row, column]):
                        text += f"\n± {sd[row, column]:,.{places}f}"
                    ink = "black" if norm(value) > 0.5 else "white"
                    panel.text(column, row, text, ha="center", va="center", color=ink, fontsize=7.5)
            panel.set_xticks(range(len(columns)), [_text(value) for value in columns])
            panel.set_yticks(range(len(rows)), [_text(value) for value in rows])
            panel.set_xlabel(picture.label(picture.figure.across))
            panel.set_ylabel(picture.label(picture.figure.by))
            panel.label_outer()
        figure.colorbar(image, ax=list(panel_row), label=MEASURES[quantity].heading)
    return figure


def interval(picture: Picture) -> Figure:
    """What n runs buy: the mean of the first n runs with its 95 percent confidence interval.

    Below it, how far the interval reaches on each side: of the first n runs, and as expected of
    any n runs with the spread of them all. Student's t; the runs are taken as independent.
    """
    quantities = picture.figure.shown
    figure, panels = _panels(picture, 2 * len(quantities), height=2.8)
    for column, group in zip(panels.T, picture.variants.values(), strict=True):
        for upper, lower, quantity in zip(column[::2], column[1::2], quantities, strict=True):
            finals = _finals(group, quantity)
            if not len(finals):
                continue
            style = {"color": "#555555", "linestyle": "--", "linewidth": 1}
            upper.axhline(finals.mean(), label=f"mean of all {len(finals)}", **style)
            upper.plot(np.arange(len(finals)) + 1, finals, "x", color="#555555", label="each run")
            counts = np.arange(2, len(finals) + 1)
            means = [finals[:n].mean() for n in counts]
            reach = [measures.half_width(finals[:n].std(ddof=1), n) for n in counts]
            expected = (
                [measures.half_width(finals.std(ddof=1), n) for n in counts] if len(counts) else []
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
    _name_outer(panels)
    return figure


KINDS: dict[str, Callable[[Picture], Figure]] = {
    kind.__name__: kind for kind in (curves, runs, lines, bars, scatter, trend, heat_map, interval)
}


def confusion(title: str, group: Sequence[Result]) -> Figure:
    """Confusion matrix summed over repeats: share of each true class, counts written in.

    Args:
        title: Of the picture.
        group: The repeats.
    """
    counts = np.sum([result.confusion for result in group], axis=0)
    repeats = f"{title}, sum of {len(group)} repeats" if len(group) > 1 else title
    return confusion_matrix(repeats, counts, group[0].class_names)


def confusion_matrix(title: str, counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """One confusion matrix.

    Args:
        title: Of the picture.
        counts: (classes, classes) integers, true class by row.
        class_names: In the order of the labels.
    """
    classes = len(class_names)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(4.5, 0.55 * classes + 1.5)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=panel, fraction=0.046, label="share of the true class")
    if classes <= 20:
        for true in range(classes):
            for predicted in range(classes):
                if counts[true, predicted]:
                    colour = "white" if share[true, predicted] > 0.5 else "black"
                    text = str(counts[true, predicted])
                    panel.text(
                        predicted, true, text, ha="center", va="center", color=colour, fontsize=8
                    )
    panel.set_xticks(range(classes), class_names, rotation=45, ha="right")
    panel.set_yticks(range(classes), class_names)
    panel.set_xlabel("predicted class")
    panel.set_ylabel("true class")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    panel.set_title(f"{title}\naccuracy {accuracy:.1%} of {counts.sum()} images", fontsize=10)
    return figure


def _panels(
    picture: Picture, rows: int, height: float = 3.0, width: float = 4.4, grid: bool = True
) -> tuple[Figure, np.ndarray]:
    """A titled figure of `rows` x variants panels; axes are shared along a row."""
    variants = picture.variants
    size = (max(6.4, 1.6 + width * len(variants)), 0.9 + height * rows)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(picture.figure.title or picture.plan.title)
    small_print = textwrap.fill(_small_print(picture), int(17 * size[0]))
    figure.supxlabel(small_print, fontsize=7, color="#555555", x=0.01, ha="left")
    panels = figure.subplots(rows, len(variants), squeeze=False, sharex="row", sharey="row")
    for (variant, group), column in zip(variants.items(), panels.T, strict=True):
        column[0].set_title(f"{variant}, n = {_repeats(group)}", fontsize=10)
        for panel in column:
            panel.spines[["top", "right"]].set_visible(not grid)
            if grid:
                panel.grid(alpha=0.25)
                panel.set_axisbelow(True)
    return figure, panels


def _small_print(picture: Picture) -> str:
    """The recipe, what was measured on if it is not what the deck did, whence the deck's bars."""
    parts = [picture.plan.title] if picture.figure.title else []
    if not picture.comparable:
        run = picture.results[0].run
        name = run["data"]["data"]
        parts.append(
            f"Not the deck's measurement: profile {run['profile']}, data {Path(name).name or name}"
        )
    shown = {picture.deck([r], name) for r in picture.results for name in picture.figure.shown}
    if picture.figure.kind in ("bars", "scatter") and shown - {None}:
        parts.append(f"Deck: {picture.plan.deck_figures}")
    return ". ".join(parts)


def _repeats(group: Sequence[Result]) -> str:
    """How many repeats each row has: one number, or from which to which."""
    counts = [len(row) for row in _grouped(group, lambda result: result.run["row"]).values()]
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _by_family(
    picture: Picture, draw: Callable[[Axes, Sequence[Result], str, str], None]
) -> Figure:
    """A panel each for accuracies and losses, train and test in their colours."""
    families: dict[str, list[str]] = {}
    for quantity in picture.figure.shown:
        families.setdefault(quantity.split("_", 1)[1], []).append(quantity)
    figure, panels = _panels(picture, len(families))
    for column, group in zip(panels.T, picture.variants.values(), strict=True):
        for panel, quantities in zip(column, families.values(), strict=True):
            for quantity in quantities:
                draw(panel, group, quantity, SPLIT_COLOURS[quantity.split("_", 1)[0]])
            panel.set_ylabel(MEASURES[quantities[0]].heading.split(" ", 1)[1])
        _epochs_below(column)
    for panel_row, quantities in zip(panels, families.values(), strict=True):
        _keep_to_percent(panel_row, quantities[0])
    for panel in panels[:, 0]:
        panel.legend(frameon=False, fontsize=8)
    _name_outer(panels)
    return figure


def _mean_and_band(panel: Axes, group: Sequence[Result], quantity: str, colour: str) -> None:
    _line(panel, group, quantity, {"color": colour}, band=True, strength=0.25)


def _every_run(panel: Axes, group: Sequence[Result], quantity: str, colour: str) -> None:
    epochs, values = _history(group, quantity)
    marker = "o" if len(epochs) == 1 else None
    panel.plot(epochs, values.T, color=colour, alpha=0.3, linewidth=0.8, marker=marker)
    label = f"{quantity.split('_', 1)[0]}, mean"
    mean = {"linestyle": "--", "linewidth": 2, "label": label, "marker": marker}
    panel.plot(epochs, values.mean(axis=0), color=colour, **mean)


def _line(
    panel: Axes,
    group: Sequence[Result],
    quantity: str,
    style: dict[str, str],
    band: bool,
    strength: float,
) -> None:
    """Mean over repeats, and one sample standard deviation on each side of it."""
    epochs, values = _history(group, quantity)
    mean = values.mean(axis=0)  # (repeats, epochs) -> (epochs,)
    marker = "o" if len(epochs) == 1 else None
    label = quantity.split("_", 1)[0]
    panel.plot(epochs, mean, **style, label=label, marker=marker, linewidth=1.5)
    if band and len(group) > 1:
        sd = values.std(axis=0, ddof=1)
        ends = mean - sd, mean + sd
        panel.fill_between(epochs, *ends, color=style["color"], alpha=strength, linewidth=0)


def _history(group: Sequence[Result], quantity: str) -> tuple[list[float], np.ndarray]:
    """Epochs, and a quantity (repeats, epochs)."""
    epochs = [record["epoch"] for record in group[0].history]
    return epochs, np.array([measures.by_epoch(result, quantity) for result in group])


def _finals(group: Sequence[Result], quantity: str) -> np.ndarray:
    """A quantity after the last epoch (repeats,), of the runs that have it."""
    values = [measures.final(result, quantity) for result in group]
    return np.array([value for value in values if value is not None])


def _name_outer(panels: np.ndarray) -> None:
    """Leaves the vertical axis, shared along a row, named at the left alone."""
    for panel in panels[:, 1:].flat:
        panel.set_ylabel("")
        panel.tick_params(labelleft=False)


def _number_axes(panel: Axes, scale: str) -> None:
    """Linear axes from zero or logarithmic ones, with numbers written out."""
    panel.set_xscale(scale)
    panel.set_yscale(scale)
    if scale == "linear":
        panel.set_xlim(left=0)
        panel.set_ylim(bottom=0)
        panel.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
    else:
        panel.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(lambda number, _: f"{number:,.10g}")
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def _keep_to_percent(panel_row: Sequence[Axes], quantity: str) -> None:
    """Shows of a spread what lies between 0 and 100 percent; call it once all is drawn."""
    for panel in panel_row if MEASURES[quantity].unit == "percent" else ():
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, -2), min(high, 102))


def _epochs_below(column: Sequence[Axes]) -> None:
    column[-1].set_xlabel("epoch")
    for panel in column:
        panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


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


def _points(
    panel: Axes,
    picture: Picture,
    group: Sequence[Result],
    quantity: str,
    colour: str,
    marker: str,
) -> None:
    """A value's points with their spread, joined, and the deck's in grey where comparable."""
    name = _text(setting_of(group[0], picture.figure.by))
    rows = [row for row in picture.by(group, "row").values() if len(_finals(row, quantity))]
    along = [_along(row[0], picture.figure.across) for row in rows]
    finals = [_finals(row, quantity) for row in rows]
    means = [of_row.mean() for of_row in finals]
    sds = [of_row.std(ddof=1) if len(of_row) > 1 else 0 for of_row in finals]
    style = {"marker": marker, "markersize": 5, "linewidth": 0.8, "capsize": 3}
    panel.errorbar(along, means, sds, color=colour, label=name, **style)
    decks = [picture.deck(row, quantity) for row in rows]
    if any(deck is not None for deck in decks):
        heights = [np.nan if deck is None else deck for deck in decks]
        style = {"marker": marker, "markersize": 5, "linewidth": 0.8, "linestyle": ":"}
        panel.plot(along, heights, color=DECK_COLOUR, label=f"{name}, deck", **style)


def _reach(finals: np.ndarray) -> float:
    """How far the interval of a row's mean reaches on each side; 0 of one run, which has none."""
    return measures.half_width(finals.std(ddof=1), len(finals)) if len(finals) > 1 else 0.0


def _along(result: Result, across: str) -> float:
    if across not in MEASURES:
        return setting_of(result, across)
    value = measures.final(result, across)
    return np.nan if value is None else value


def _cells(
    picture: Picture, results: Sequence[Result], quantity: str
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (by, across); nan where there is none."""
    rows = list(picture.by(picture.results, picture.figure.by))
    columns = list(picture.by(picture.results, picture.figure.across))
    mean, sd = np.full((2, len(rows), len(columns)), np.nan)
    for value, of_row in picture.by(results, picture.figure.by).items():
        for other, group in picture.by(of_row, picture.figure.across).items():
            finals = _finals(group, quantity)
            at = rows.index(value), columns.index(other)
            mean[at] = finals.mean() if len(finals) else np.nan
            sd[at] = finals.std(ddof=1) if len(finals) > 1 else np.nan
    return mean, sd


def _zoom(panel: Axes, finals: np.ndarray, means: Sequence[float], reach: Sequence[float]) -> None:
    """Shows the intervals of three runs and more whole; that of two may reach out of the panel."""
    ends = [mean + sign * half for mean, half in zip(means, reach, strict=True) for sign in (-1, 1)]
    inside = [end for end in [*finals, *(ends[2:] or ends)] if np.isfinite(end)] or [0]
    low, high = min(inside), max(inside)
    margin = 0.08 * (high - low) or 1
    panel.set_ylim(low - margin, high + margin)


def _once(panel: Axes) -> tuple[list, list[str]]:
    """Handles and labels of a legend, each label once."""
    found = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    return list(found.values()), list(found)


def _styles(values: Sequence[object]) -> dict[object, dict[str, str]]:
    """Lines that can be told apart: ordered colours for numbers, colours and dashes for names."""
    if all(_is_number(value) for value in values) and len(values) > 2:
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


def _grouped(
    results: Sequence[Result], key: Callable[[Result], object]
) -> dict[object, list[Result]]:
    groups: dict[object, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return groups


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
