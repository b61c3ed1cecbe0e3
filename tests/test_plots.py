from __future__ import annotations

import dataclasses
import json
import os
import shutil

import matplotlib.colors
import numpy as np
import pytest
from matplotlib import font_manager
from method_runs import finished
from PIL import Image
from scipy import stats

from keras_cnn import plots, recipe, statistics
from keras_cnn.errors import UserError
from keras_cnn.plots import Plot, by_epoch, canvas, draw
from keras_cnn.recipe import resolve, schema
from keras_cnn.recipe.schema import FIGURE_KINDS
from keras_cnn.results import intervals, stamps
from keras_cnn.results.store import Result

RECIPE = """\
title: A recipe
measures: [test_accuracy, seconds]
columns: {penalty: l2}
settings: {model: baseline, weights: random, epochs: 3}
variants:
  as_run: {methods: {supervised: {method: supervised_as_run}}}
  corrected: {}
profiles:
  deck: {}
  mini: {settings: {data: digits}}
figures:
  - name: by_penalty
    kind: lines
    where: {dropout: 0}
    by: l2
    quantities: [test_accuracy, test_loss]
  - name: grid
    kind: heat_map
    by: dropout
    across: l2
rows:
  - row: 1
    settings: {dropout: 0.0, l2: 0.0}
    deck: {seconds: 70}
  - row: 2
    settings: {dropout: 0.0, l2: 0.1}
    deck: {seconds: 80}
  - row: 3
    settings: {dropout: 0.5, l2: 0.0}
  - row: 4
    settings: {dropout: 0.5, l2: 0.1}
"""
TREND_OF_MODELS = "    kind: trend\n    by: dropout\n    across: model\n    where: {l2: 0.0}"
N = 4


@pytest.fixture
def made(tmp_path):
    """The recipe, and results of it with other figures in every run and epoch."""

    def make(profile="deck", text=RECIPE, repeats=N):
        path = tmp_path / "trial.yaml"
        path.write_text(text)
        plan = recipe.read(str(path))
        random = np.random.default_rng(0)
        results = []
        for run in resolve.runs(plan, profile, repeats=repeats):
            folder = tmp_path / f"{run.place.row}-{run.place.variant}-{run.place.repeat}-0"
            folder.mkdir(exist_ok=True)
            names = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
            history = [
                {"epoch": epoch, **dict(zip(names, random.random(4).tolist(), strict=True))}
                for epoch in (1, 2, 3)
            ]
            row, repeat = int(run.place.row.rpartition("_")[2]), run.place.repeat
            figures = {"seconds": 60 + 10 * row + repeat, "parameters": 10**row}
            results.append(finished(run, folder, history, **figures))
        return plan, results

    return make


def drawn(plan, results, **settings):
    figure = schema.Figure(name="trial", **settings)
    return plots.KINDS[figure.kind](Plot(plan, figure, results))


def axes_of(kind):
    """What a kind of figure must be told."""
    return {name: {"by": "dropout", "across": "l2"}[name] for name in FIGURE_KINDS[kind].settings}


def of(results, row, variant):
    return [r for r in results if (r.place.row, r.place.variant) == (row, variant)]


def as_run(results, **settings):
    """The runs as the deck's code did them, with some settings."""
    runs = (result for result in results if result.place.variant == "as_run")
    return [run for run in runs if settings.items() <= run.settings.items()]


def series(group, quantity):
    """(repeats, epochs)"""
    return np.array([[record[quantity] for record in result.history] for result in group])


def ends(container):
    """Lower and upper end of each error bar that is drawn."""
    segments = container[2][0].get_segments()
    return np.array([[segment[0], segment[-1]] for segment in segments if len(segment)])


def test_every_kind_of_recipes_is_drawn_by_the_function_of_its_name():
    assert plots.KINDS.keys() == FIGURE_KINDS.keys()


def test_curves_have_a_band_of_one_sample_standard_deviation(made):
    plan, results = made()
    group = of(results, "1", "as_run")
    panel = drawn(plan, group, kind="curves").axes[0]
    line = next(line for line in panel.lines if line.get_label() == "test")
    values = 100 * series(group, "test_accuracy")
    assert line.get_ydata() == pytest.approx(values.mean(axis=0))
    band = panel.collections[1].get_paths()[0].vertices
    at_end = band[band[:, 0] == 3][:, 1]
    assert at_end.max() == pytest.approx(values[:, -1].mean() + values[:, -1].std(ddof=1))
    assert at_end.min() == pytest.approx(values[:, -1].mean() - values[:, -1].std(ddof=1))


def test_a_wide_spread_is_shown_where_a_figure_can_lie(made):
    plan, results = made()
    group = of(results, "1", "as_run")
    for number, result in enumerate(group):
        for record in result.history:  # one run of four far off
            record.update(test_loss=9.0 if number == 0 else 0.1, test_accuracy=float(number > 0))
    accuracies, losses, *_ = drawn(plan, group, kind="curves").axes
    assert accuracies.collections[1].get_paths()[0].vertices[:, 1].max() > 110
    assert losses.collections[1].get_paths()[0].vertices[:, 1].min() < -1
    assert accuracies.get_ylim()[1] <= 102
    assert -0.2 < losses.get_ylim()[0] <= 0 and losses.get_ylim()[1] > 6


@pytest.mark.parametrize("kind", ["curves", "runs", "lines"])
def test_repeats_of_different_length_are_drawn_as_far_as_they_go(made, kind):
    """As of `pretrain` with a number of minutes: each plans its epochs by its own speed."""
    plan, results = made()
    group = of(results, "1", "as_run")
    del group[0].history[2:]
    by = {"by": "row"} if kind == "lines" else {}
    panel = drawn(plan, group, kind=kind, quantities=["test_loss"], **by).axes[0]
    mean = panel.lines[-1].get_ydata()
    shown = series(group[1:], "test_loss")
    assert len(mean) == 3 and mean[2] == pytest.approx(shown[:, 2].mean())
    assert mean[0] == pytest.approx(np.mean([r.history[0]["test_loss"] for r in group]))


def test_runs_shows_each_run_and_the_mean_of_the_quantities_asked_for(made):
    plan, results = made()
    group = of(results, "1", "as_run")
    (panel,) = drawn(plan, group, kind="runs", quantities=["test_loss"]).axes
    values = series(group, "test_loss")
    *each, mean = panel.lines
    assert np.array([line.get_ydata() for line in each]) == pytest.approx(values)
    assert mean.get_ydata() == pytest.approx(values.mean(axis=0))
    assert mean.get_linestyle() == "--"
    families = drawn(plan, group, kind="runs").axes
    assert [panel.get_ylabel() for panel in families] == ["accuracy, percent", "loss"]


def test_variants_stand_side_by_side_on_shared_axes(made):
    plan, results = made()
    rows = [r for r in results if r.place.row == "1"][:-1]  # one repeat of corrected is missing
    upper_left, upper_right, *_ = drawn(plan, rows, kind="curves").axes
    assert upper_left.get_title() == "as_run, n = 4"
    assert upper_right.get_title() == "corrected, n = 3"
    assert upper_left.get_shared_y_axes().joined(upper_left, upper_right)
    assert upper_left.get_ylim() == upper_right.get_ylim()


@pytest.mark.parametrize("band", [True, False])
def test_lines_are_means_told_apart_by_a_setting(made, band):
    plan, results = made()
    settings = {"by": "l2", "quantities": ["test_loss", "test_accuracy"], "band": band}
    figure = drawn(plan, as_run(results, dropout=0), kind="lines", **settings)
    # The slide's means alone above, the same with bands below.
    above, below = figure.axes[:2], figure.axes[2:]
    for _, accuracy in [above, below][: 1 + band]:
        for line, row in zip(accuracy.lines, ("1", "2"), strict=True):
            values = 100 * series(of(results, row, "as_run"), "test_accuracy")
            assert line.get_ydata() == pytest.approx(values.mean(axis=0))
    assert [len(panel.collections) for panel in above] == [0, 0]
    assert [len(panel.collections) for panel in below] == ([2, 2] if band else [])
    if band:
        assert [panel.get_ylim() for panel in above] == [panel.get_ylim() for panel in below]
        values = 100 * series(of(results, "2", "as_run"), "test_accuracy")
        edges = below[1].collections[1].get_paths()[0].vertices
        at_end = edges[edges[:, 0] == 3][:, 1]
        ends = values[:, -1].mean() + np.array([-1, 1]) * values[:, -1].std(ddof=1)
        assert [at_end.min(), at_end.max()] == pytest.approx(ends)
    (legend,) = figure.legends
    assert legend.get_title().get_text() == "penalty"  # as the table's column is called
    assert [text.get_text() for text in legend.get_texts()] == ["0", "0.1"]


def test_bars_have_the_runs_spread_and_the_decks_figures_only_for_the_same_measurement(made):
    plan, results = made()
    settings = {"kind": "bars", "by": "l2", "quantities": ["seconds"]}
    (panel,) = drawn(plan, as_run(results, dropout=0), **settings).axes
    heights = {bar.get_height() for bar in panel.patches}
    assert heights == {71.5, 81.5, 70, 80}  # ours: 60 + 10 row + 0, 1, 2, 3
    sd = np.std([0, 1, 2, 3], ddof=1)
    errors = [c.errorbar for c in panel.containers if getattr(c, "errorbar", None)]
    assert [ends(error)[0, :, 1].tolist() for error in errors] == [
        pytest.approx([71.5 - sd, 71.5 + sd]),
        pytest.approx([81.5 - sd, 81.5 + sd]),
    ]
    assert panel.get_ylim()[0] == 0
    plan, results = made("mini")
    figure = drawn(plan, as_run(results, dropout=0), **settings)
    assert {bar.get_height() for bar in figure.axes[0].patches} == {71.5, 81.5}
    assert "digits" in figure.get_supxlabel() and "mini" in figure.get_supxlabel()


def test_bars_of_names_lie_so_that_the_names_can_be_read(made):
    plan, results = made("mini")
    settings = {"kind": "bars", "by": "row", "quantities": ["seconds"]}
    (panel,) = drawn(plan, as_run(results), **settings).axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["1", "2", "3", "4"]
    assert [bar.get_width() for bar in panel.patches] == [71.5, 81.5, 91.5, 101.5]


def test_scatter_has_a_point_a_row_and_logarithmic_axes_for_a_wide_range(made):
    plan, results = made("mini")
    group = as_run(results)
    settings = {"kind": "scatter", "by": "dropout", "across": "parameters"}
    linear, log = drawn(plan, group, quantities=["seconds"], **settings).axes
    assert (linear.get_xscale(), log.get_xscale()) == ("linear", "log")
    for panel in (linear, log):
        first, second = (container[0].get_xydata().tolist() for container in panel.containers)
        assert first == [[10, 71.5], [100, 81.5]]
        assert second == [[1000, 91.5], [10000, 101.5]]
    sd = np.std([0, 1, 2, 3], ddof=1)
    assert ends(linear.containers[0])[0, :, 1] == pytest.approx([71.5 - sd, 71.5 + sd])
    narrow = [r for r in group if r.place.row in ("1", "2")]
    assert len(drawn(plan, narrow, quantities=["seconds"], **settings).axes) == 1
    settings |= {"by": "dropout", "across": "l2"}
    # Logarithmic axes have no place for an l2 of 0.
    assert len(drawn(plan, group, quantities=["seconds"], **settings).axes) == 1


@pytest.mark.parametrize("kind", ["curves", "runs"])
def test_one_epoch_is_a_dot_at_one_tick(made, kind):
    plan, results = made()
    for result in results:
        del result.history[1:]
    figure = drawn(plan, of(results, "1", "as_run"), kind=kind)
    figure.draw_without_rendering()
    for panel in figure.axes:
        low, high = panel.get_xlim()
        assert [tick for tick in panel.get_xticks() if low <= tick <= high] == [1]
        assert all(line.get_marker() == "o" for line in panel.lines)


def test_lines_of_one_run_each_are_not_drawn_a_second_time_without_bands(made):
    plan, results = made()
    once = [r for r in results if r.place.repeat == 0 and r.settings["dropout"] == 0]
    assert len(drawn(plan, once, kind="lines", by="l2").axes) == 2  # a variant each


@pytest.mark.filterwarnings("error")
def test_rows_have_the_interval_on_new_images_within_0_and_100_percent(made, monkeypatch):
    text = RECIPE.replace("columns: {penalty: l2}", "columns: {network: model, penalty: l2}")
    plan, results = made(text=text)
    rng = np.random.default_rng(0)
    answers = {}
    for result in results:
        right = rng.random(50) < 0.98
        answers[result.folder] = intervals.Hits(np.arange(50), right)
        result.metrics["test_accuracy_over_images"] = right.mean()
    monkeypatch.setattr(Result, "hits", property(lambda result: answers[result.folder]))
    figure = drawn(plan, results, kind="rows")
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == [
        "1: 0", "2: 0.1", "3: 0", "4: 0.1",
    ]  # fmt: skip
    low, high = panel.get_xlim()
    assert 0 <= low < 90 and high == 100
    bars = {bar.get_label(): bar for bar in panel.containers[:2]}
    for variant in ("as_run", "corrected"):
        hits = [answers[result.folder] for result in of(results, "1", variant)]
        interval = intervals.accuracy_interval(intervals.accuracy(hits))
        ((left, right),) = ends(bars[variant.replace("_", " ")])[:, :, 0]
        assert (left, right) == pytest.approx(100 * np.array(interval))


def test_a_row_in_which_one_repeat_alone_has_the_figure_is_a_point_without_spread(made):
    plan, results = made("mini")
    group = of(results, "1", "as_run")
    for result in group[1:]:
        del result.metrics["seconds"]
    settings = {"by": "dropout", "across": "parameters", "quantities": ["seconds"]}
    panel = drawn(plan, group, kind="scatter", **settings).axes[0]
    assert ends(panel.containers[0])[0, :, 1].tolist() == [70, 70]


def test_heat_map_writes_mean_and_spread_where_they_belong(made):
    plan, results = made()
    missing = [r for r in results if r.place.row != "4"]
    figure = drawn(plan, missing, kind="heat_map", by="dropout", across="l2")
    means = []
    for panel, variant in zip(figure.axes[:2], ("as_run", "corrected"), strict=True):
        cells = {text.get_position(): text.get_text() for text in panel.texts}
        expected = {}
        for row, at in (("1", (0, 0)), ("2", (1, 0)), ("3", (0, 1))):
            values = 100 * series(of(results, row, variant), "test_accuracy")[:, -1]
            means.append(values.mean())
            expected[at] = f"{values.mean():.1f}\n± {values.std(ddof=1):.1f}"
        assert cells == expected
        assert [text.get_text() for text in panel.get_xticklabels()] == ["0", "0.1"]
        assert panel.get_xlabel() == "penalty"
    # The same colour is the same figure in both.
    assert [panel.images[0].get_clim() for panel in figure.axes[:2]] == [
        pytest.approx((min(means), max(means)))
    ] * 2


def test_interval_is_students(made):
    # Quantiles at 0.975 from printed tables of Student's t with 1, 2, 3 and 9 degrees of freedom.
    for n, quantile in ((2, 12.706), (3, 4.303), (4, 3.182), (10, 2.262)):
        assert statistics.half_width(2.0, n) == pytest.approx(quantile * 2 / np.sqrt(n), rel=2e-4)
    plan, results = made()
    group = of(results, "1", "as_run")
    upper, lower = drawn(plan, group, kind="interval").axes
    finals = 100 * series(group, "test_accuracy")[:, -1]
    (bars,) = upper.containers
    reach = [
        t * finals[:n].std(ddof=1) / np.sqrt(n) for n, t in ((2, 12.7062), (3, 4.3027), (4, 3.1824))
    ]
    means = [finals[:n].mean() for n in (2, 3, 4)]
    assert bars[0].get_ydata() == pytest.approx(means)
    for n, (low, high) in enumerate(ends(bars)[:, :, 1], start=1):
        assert (low, high) == pytest.approx((means[n] - reach[n], means[n] + reach[n]), rel=1e-3)
    assert lower.lines[0].get_ydata() == pytest.approx([np.nan, *reach[1:]], rel=1e-3, nan_ok=True)
    assert f"{reach[0]:.1f}" in lower.texts[0].get_text()  # of two runs: it would hide the others
    # With the spread of all four, four runs buy what they bought.
    assert lower.lines[1].get_ydata()[-1] == pytest.approx(reach[-1], rel=1e-3)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["interval", "bars", "scatter", "heat_map"])
def test_results_that_lack_the_figure_leave_an_empty_panel(made, kind, tmp_path):
    plan, results = made()
    group = as_run(results) if kind == "heat_map" else of(results, "1", "as_run")
    figure = drawn(plan, group, kind=kind, quantities=["processor_use"], **axes_of(kind))
    figure.savefig(tmp_path / "picture.png")
    panel = figure.axes[0]
    assert not any(len(line.get_xdata()) for line in panel.lines) and not panel.texts


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", FIGURE_KINDS)
def test_a_run_that_diverged_is_drawn_by_epoch_and_in_no_figure_after_the_last(
    made, kind, tmp_path
):
    plan, results = made()
    kind_of, axes = FIGURE_KINDS[kind], axes_of(kind)
    (diverged, *others) = of(results, "1", "as_run")
    diverged.history[2].update(test_loss=float("nan"))
    for group, title in (([diverged], "as_run, n = 0, 1 diverged"), (others, "as_run, n = 3")):
        figure = drawn(plan, group, kind=kind, quantities=["test_accuracy"], **axes)
        figure.savefig(tmp_path / "picture.png")
        panel = figure.axes[0]
        assert panel.get_title() == (title if kind != "rows" else title.partition(", ")[2])
        drawn_at = [line.get_ydata() for line in panel.lines]
        drawn_at += [[bar.get_height() for bar in panel.patches]]
        drawn_at += [image.get_array().compressed() for image in panel.images]
        has_ink = np.isfinite(np.concatenate([*drawn_at, [np.nan]]).astype(float)).any()
        assert has_ink == (kind_of.by_epoch or group == others)


def test_names_keep_colours_apart_and_numbers_are_in_order():
    names = by_epoch.line_styles(["torch", "tensorflow", "jax"])
    assert len({style["color"] for style in names.values()}) == 3
    assert len({style["linestyle"] for style in names.values()}) == 3
    numbers = by_epoch.line_styles([0.01, 0.001, 0.1])
    light = {
        value: np.dot(matplotlib.colors.to_rgb(style["color"]), (0.299, 0.587, 0.114))
        for value, style in numbers.items()
    }
    assert light[0.001] < light[0.01] < light[0.1]  # readable in grey, too


def test_rows_that_are_timed_are_not_compared_by_accuracy(made, tmp_path):
    plan, results = made()
    timed = plan.model_copy(update={"measures": ["seconds", "test_accuracy"]})
    assert "rows.png" not in {path.name for path in draw.recipe_plots(timed, results, tmp_path)}


@pytest.mark.parametrize("names", ["1 2 3 4", "of_files_1 of_files_and_workers_2 tuned_3 memory_4"])
def test_what_rows_differ_in_is_told_within_the_picture(made, names):
    """Six settings: by their headings beside rows of numbers; not where names say it."""
    columns = ["dropout", "l2", "learning_rate", "batch_size", "augment_share", "stochastic_depth"]
    headings = ", ".join(f"a_heading_of_some_length_{n}: {name}" for n, name in enumerate(columns))
    text = RECIPE.replace("{penalty: l2}", f"{{{headings}}}")
    for number, name in enumerate(names.split(), start=1):
        values = f"learning_rate: 0.{number}, batch_size: {number}, stochastic_depth: 0.{number}"
        text = text.replace(
            f"row: {number}\n    settings: {{", f"row: {name}\n    settings: {{{values}, "
        )
    plan, results = made(text=text)
    figure = drawn(plan, results, kind="rows")
    figure.canvas.draw()
    (panel,) = figure.axes
    label = panel.get_ylabel()
    assert label.startswith("row: ") if names.startswith("1") else label == "row"
    box = panel.yaxis.label.get_window_extent()
    height = figure.get_window_extent().height
    assert box.height < 1.05 * panel.get_window_extent().height < height


def test_the_recipes_figures_are_drawn_once_and_again_when_a_run_or_the_recipe_changed(
    made, tmp_path
):
    plan, results = made()
    assert not stamps.are_current(plan, results, tmp_path)
    pictures = draw.recipe_plots(plan, results, tmp_path)
    assert [picture.name for picture in pictures] == ["by_penalty.png", "grid.png", "rows.png"]
    assert stamps.are_current(plan, results, tmp_path)
    assert not stamps.are_current(plan, results[1:], tmp_path)

    def times():
        return {picture.name: picture.stat().st_mtime_ns for picture in pictures}

    before = times()
    draw.recipe_plots(plan, results, tmp_path)
    assert times() == before
    folder = of(results, "3", "as_run")[0].folder  # in the grid alone
    shutil.rmtree(folder)
    folder.mkdir()
    assert not stamps.are_current(plan, results, tmp_path)
    draw.recipe_plots(plan, results, tmp_path)
    after = times()
    assert after["by_penalty.png"] == before["by_penalty.png"]
    assert after["grid.png"] != before["grid.png"]
    few = [schema.Figure(name="by_penalty", kind="lines", by="l2", where={"dropout": 0})]
    assert not stamps.are_current(plan.model_copy(update={"figures": few}), results, tmp_path)
    (tmp_path / "mine.png").write_bytes(b"")
    pictures = draw.recipe_plots(plan.model_copy(update={"figures": few}), results, tmp_path)
    assert times()["by_penalty.png"] != after["by_penalty.png"]
    # What the recipe no longer has is gone, and no other file.
    assert {path.name for path in tmp_path.glob("*.png")} == {*times(), "mine.png"}


def test_figures_are_of_finished_runs_and_of_each_row_where_the_recipe_names_none(made, tmp_path):
    plan, results = made()
    row = of(results, "4", "as_run")
    assert [picture.name for picture in draw.recipe_plots(plan, row, tmp_path)] == ["grid.png"]
    plan = plan.model_copy(update={"figures": []})
    pictures = draw.recipe_plots(plan, row, tmp_path)
    assert [one.name for one in pictures] == ["row-4-curves.png", "row-4-as_run-confusion.png"]
    assert all(picture.is_file() for picture in pictures)


def test_pictures_say_what_their_figures_are_of(made):
    """Means over batches as run, other lengths, bars without a run, each variant's own colour."""
    plan, results = made()
    bars = drawn(plan, results, kind="bars", by="row")
    assert "As run, accuracy and loss are means over batches" in bars._supxlabel.get_text()
    corrected = of(results, "4", "corrected")
    alone = drawn(plan, corrected, kind="bars", by="row")
    assert "means over batches" not in alone._supxlabel.get_text()
    history = [*corrected[0].history, corrected[0].history[-1]]
    longer = dataclasses.replace(corrected[0], history=history)
    said = drawn(plan, [longer, *results[1:]], kind="bars", by="row")
    epochs = len(history)
    assert f"After {epochs - 1} to {epochs} epochs" in said._supxlabel.get_text()
    rows = {"kind": "rows", "quantities": ["test_accuracy"]}
    both = drawn(plan, results, **rows).axes[0]
    one = drawn(plan, corrected, **rows).axes[0]
    ink = {line.get_label(): line.get_children()[0].get_color() for line in both.containers}
    assert ink.keys() == {"as run", "corrected"}
    assert {c.get_label(): c.get_children()[0].get_color() for c in one.containers} == {
        "corrected": ink["corrected"]
    }


def test_a_confusion_matrix_is_of_bounded_size_and_names_what_there_is_room_for(tmp_path):
    for count in (3, 20, 150, 1000):
        names = [f"Chlorophyllum molybdites, the green-spored parasol, {n}" for n in range(count)]
        counts = 10 * np.eye(count, dtype=int)
        counts[2, 1] = 40
        figure = plots.confusion_matrix("A title of many words " * 20, counts, names)
        assert figure.get_size_inches().max() < 20
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert count / 20 <= len(labels) <= min(count, 80) and len({*labels}) == len(labels)
        assert max(map(len, labels)) <= canvas.LONGEST and "…" in labels[0]
        below = f"taken for {canvas.short(names[1])}: 40, 80% of its images"
        assert (below in figure.get_supxlabel()) == (count > len(labels))
    plots.save(lambda: figure, tmp_path / "many.png")
    assert max(Image.open(tmp_path / "many.png").size) < 2500


def test_a_summed_confusion_matrix_says_of_how_many_runs(made):
    _, results = made()
    group = of(results, "1", "as_run")
    title = plots.confusion("Row 1", group).get_suptitle()
    assert title == "Row 1\naccuracy 85.0%, sum of 4 runs on 20 images each"
    assert (
        plots.confusion("Row 1", group[:1]).get_suptitle().endswith("accuracy 85.0% of 20 images")
    )


@pytest.mark.parametrize("kind", FIGURE_KINDS)
def test_many_rows_of_long_names_make_no_larger_picture(made, kind):
    row = "  - {{row: a_name_of_many_letters_that_goes_on_{0}, settings: {{l2: {0}.0}}}}\n"
    rows = "".join(row.format(number) for number in range(120))
    plan, results = made(text=RECIPE[: RECIPE.index("figures:")] + "rows:\n" + rows, repeats=1)
    axes = {"by": "row", "across": "l2"}
    settings = {name: axes[name] for name in FIGURE_KINDS[kind].settings}
    figure = drawn(plan, results, kind=kind, **settings)
    assert figure.get_size_inches().max() < 30
    for axis in (axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        assert len(labels) <= 80 and max(map(len, labels), default=0) <= canvas.LONGEST
    for legend in figure.legends:
        assert len(legend.get_texts()) == 31 and legend.get_texts()[-1].get_text() == "and 90 more"


@pytest.mark.filterwarnings("error")
def test_characters_of_every_script_are_taken_from_a_font_that_has_them(tmp_path, capsys):
    def characters(family):
        font = font_manager.findfont(font_manager.FontProperties(family=[family]))
        return {*map(chr, font_manager.get_font(font).get_charmap())}

    elsewhere = sorted(characters("STIXGeneral") - characters("DejaVu Sans"))[-1]
    for name, lines in ((elsewhere, 0), ("\U000f1234 in no font", 1), ("\U000f1234 again", 0)):
        figure = plots.confusion_matrix(name, np.eye(2, dtype=int), ["a", name])
        plots.save(lambda figure=figure: figure, tmp_path / "x.png")
        assert capsys.readouterr().err.count("\n") == lines
        if name == elsewhere:
            families = figure.axes[0].get_yticklabels()[1].get_fontfamily()
            assert any(elsewhere in characters(family) for family in families)


@pytest.mark.filterwarnings("error")
def test_a_box_is_told_also_where_a_font_claims_the_character(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(canvas, "_own_characters", lambda: frozenset(map(chr, range(0x110000))))
    figure = plots.confusion_matrix("\U000f4321", np.eye(2, dtype=int), ["a", "b"])
    plots.save(lambda: figure, tmp_path / "x.png")
    (line,) = capsys.readouterr().err.splitlines()
    assert "no font here has \U000f4321: pictures show boxes" in line


def test_a_picture_that_is_damaged_or_leads_elsewhere_is_drawn_anew(made, tmp_path):
    plan, results = made()
    (picture,) = draw.recipe_plots(plan, of(results, "4", "as_run"), tmp_path)
    before = picture.read_bytes()
    for damage in (
        lambda: picture.write_bytes(before[:-1] + b"x"),
        lambda: (picture.unlink(), os.mkfifo(picture)),
        lambda: (picture.unlink(), picture.symlink_to("/dev/zero")),
    ):
        damage()
        assert not stamps.are_current(plan, of(results, "4", "as_run"), tmp_path)
        draw.recipe_plots(plan, of(results, "4", "as_run"), tmp_path)
        assert not picture.is_symlink() and picture.read_bytes() == before


def test_the_list_of_pictures_names_files_of_its_folder_alone(tmp_path):
    names = ["../a.png", "/etc/passwd", "a/b.png", "..", "a.png\n", "", "row-1-curves.png"]
    for content in ({name: [] for name in names}, [1], "[" * 100_000):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / stamps.STAMPS).write_text(text)
        wanted = ["row-1-curves.png"] if isinstance(content, dict) else []
        assert stamps.paths(tmp_path) == [tmp_path / name for name in [*wanted, stamps.STAMPS]]


def test_dollar_signs_are_drawn_as_they_are(made, tmp_path):
    """Two of them would be mathematics, and this one ends in an error."""
    hostile = "$1_$5"
    names, matrix = [hostile, "$10"], tmp_path / "matrix.svg"
    text = RECIPE.replace("{penalty: l2}", f'{{"{hostile}": l2}}').replace("A recipe", hostile)
    plan, results = made(text=text)
    figure = schema.Figure(name="trial", kind="lines", by="l2", title=hostile)
    draws = {
        matrix: lambda: plots.confusion_matrix(hostile, np.eye(2, dtype=int), names),
        tmp_path / "lines.svg": lambda: plots.KINDS["lines"](Plot(plan, figure, results)),
    }
    for path, draw_it in draws.items():
        plots.save(draw_it, path)
        assert path.read_text().count(f"<!-- {hostile}") >= 3  # title, heading, small print…
    assert f"<!-- {names[1]} -->" in matrix.read_text()


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("[test_accuracy, seconds]", "[secondss]", 2, "'seconds'"),
        ("    kind: lines", "    kind: line", 13, "'lines'"),
        ("    kind: lines", "    kynd: lines", 13, "'kind'"),
        ("    kind: lines", "    kind: lines\n    bands: false", 14, "'band'"),
        ("    where: {dropout: 0}", "    where: {dropuot: 0}", 14, "'dropout'"),
        ("    where: {dropout: 0}", "    where: {dropout: much}", 14, "'much'"),
        ("    where: {dropout: 0}", "    where: {dropout: 0.2}", 14, "no row has"),
        ("    where: {dropout: 0}", "    where: {row: 5}", 14, "no row has"),
        ("    where: {dropout: 0}\n", "", 12, "rows 1 and 3"),
        ("    by: l2", "    by: l22", 15, "'l2'"),
        ("    by: l2\n", "", 12, "needs 'by'"),
        ("    by: l2", "    by: l2\n    across: dropout", 16, "takes no 'across'"),
        ("    across: l2", "    across: parameters", 20, "'parameters'"),
        ("test_accuracy, test_loss]", "test_acuracy]", 16, "'test_accuracy'"),
        ("test_accuracy, test_loss]", "seconds]", 16, "'seconds'"),  # not by epoch
        ("name: grid", "name: by_penalty", 17, "second time"),
        ("name: grid", "name: a/b", 17, "pattern"),
        ("    kind: heat_map\n    by: dropout\n    across: l2", TREND_OF_MODELS, 20, "'baseline'"),
    ],
)
def test_a_wrong_figure_names_file_line_and_the_nearest_right_name(tmp_path, old, new, line, words):
    assert RECIPE.count(old) == 1
    path = tmp_path / "trial.yaml"
    path.write_text(RECIPE.replace(old, new))
    with pytest.raises(UserError) as raised:
        recipe.read(str(path))
    text = str(raised.value)
    assert f"trial.yaml:{line}:" in text and words in text and "\n" not in text


def test_a_figure_may_show_one_row(made):
    plan, _ = made(text=RECIPE.replace("where: {dropout: 0}", "where: {row: 2}"))
    settings = [{"row": str(row.row)} for row in plan.rows]
    matching = [row["row"] for row in settings if schema.matches(plan.figures[0].where, row)]
    assert matching == ["2"]


def test_trend_has_a_line_a_value_with_95_percent_intervals_and_may_be_logarithmic(made):
    settings = {"by": "dropout", "across": "learning_rate", "quantities": ["test_loss"]}
    text = RECIPE.replace("l2: 0.0}", "l2: 0.0, learning_rate: 0.001}").replace(
        "l2: 0.1}", "l2: 0.1, learning_rate: 0.5}"
    )
    plan, results = made(text=text)
    panel = drawn(plan, as_run(results), kind="trend", **settings).axes[0]
    assert panel.get_xscale() == "log"
    assert panel.get_xticks().tolist() == [0.001, 0.5]
    containers = panel.containers
    assert [container.get_label() for container in containers] == ["0", "0.5"]
    places = []
    for container, rows in zip(containers, (("1", "2"), ("3", "4")), strict=True):
        finals = [series(of(results, row, "as_run"), "test_loss")[:, -1] for row in rows]
        along, means = container[0].get_xydata().T
        np.testing.assert_allclose(means, [f.mean() for f in finals])
        places.append(along)
        reach = [stats.t.ppf(0.975, N - 1) * stats.sem(f) for f in finals]
        expected = [[f.mean() - r, f.mean() + r] for f, r in zip(finals, reach, strict=True)]
        np.testing.assert_allclose(ends(container)[:, :, 1], expected)
    left, right = np.log(places)  # beside one another, around the place of both
    np.testing.assert_allclose((left + right) / 2, np.log([0.001, 0.5]))
    np.testing.assert_allclose(right - left, np.log(0.5 / 0.001) / 100)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bars", {"by": "row"}),
        ("bars", {"by": "l2", "where": {"dropout": 0.0}}),
        ("scatter", {"by": "dropout", "across": "parameters"}),
        ("trend", {"by": "dropout", "across": "l2"}),
    ],
)
def test_a_variant_far_above_the_first_is_shown_whole(made, kind, settings):
    plan, results = made("mini")
    for result in results:
        result.metrics["seconds"] *= 50 if result.place.variant == "corrected" else 1
    group = [r for r in results if schema.matches(settings.get("where", {}), r.settings)]
    figure = drawn(plan, group, kind=kind, quantities=["seconds"], **settings)
    highest = max(result.metrics["seconds"] for result in group)
    ends_of = [(*panel.get_xlim(), *panel.get_ylim()) for panel in figure.axes]
    assert all(max(limits) >= 0.99 * highest for limits in ends_of)


@pytest.mark.parametrize("kind", ["trend", "scatter"])
def test_a_row_of_all_images_has_no_place_along_the_shots(made, kind, tmp_path):
    text = RECIPE.replace("l2: 0.0}", "l2: 0.0, shots: 5}").replace(
        "l2: 0.1}", "l2: 0.1, shots: null}"
    )
    plan, results = made(text=text)
    group = as_run(results)
    settings = {"by": "dropout", "across": "shots", "quantities": ["test_loss"]}
    figure = drawn(plan, group, kind=kind, **settings)
    figure.savefig(tmp_path / "picture.png")
    places = [container[0].get_xdata() for container in figure.axes[0].containers]
    assert {float(place) for of_value in places for place in of_value if place == place} == {5.0}
    everything = [result for result in group if result.settings["shots"] is None]
    drawn(plan, everything, kind=kind, **settings).savefig(tmp_path / "picture.png")
