from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from method_runs import finished

from keras_cnn import recipe
from keras_cnn.recipe import resolve
from keras_cnn.results import differences, grid, intervals, layout, table, terminal
from keras_cnn.results.store import Result

ACCURACIES = {"1": 0.5, "2": 0.8, "4": 0.8}
IMAGES = 400


def right(result):
    """Which images a run classifies right: those of row 1 are fewer."""
    place = result.place
    rng = np.random.default_rng([place.repeat, int(place.row), place.variant == "as_run"])
    chances = np.random.default_rng(0).permutation(IMAGES) < ACCURACIES[place.row] * IMAGES
    return rng.random(IMAGES) < 0.1 + 0.8 * chances


def answered(result):
    return intervals.Hits(np.arange(IMAGES), right(result))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A table of three rows, of which the first is worse."""
    monkeypatch.setattr(Result, "hits", property(answered))

    def make(repeats=5, rows=("1", "2", "4"), variant="both", **settings):
        plan = recipe.read("fewshot_convnext")
        runs = resolve.runs(plan, "mini", list(rows), variant, repeats, settings)
        results = []
        for run in runs:
            name = f"{run.place.row}-{run.place.variant}-{run.place.repeat}-0"
            result = finished(run, tmp_path / name, [{"epoch": 1}])
            accuracy = right(result).mean()
            result.metrics.update(test_accuracy=accuracy, test_accuracy_over_images=accuracy)
            results.append(result)
        return table.build(plan, results, "a command")

    return make


def test_lines_have_the_interval_of_their_runs(made):
    line = made().lines[0]
    runs = resolve.runs(recipe.read("fewshot_convnext"), "mini", ["1"], "as_run", 5)
    estimate = intervals.accuracy([intervals.Hits(np.arange(IMAGES), right(run)) for run in runs])
    low, high = (100 * end for end in intervals.accuracy_interval(estimate))
    found = line.on_new_images
    assert (found.low, found.high) == pytest.approx((low, high)) and found.images == IMAGES
    assert found.mean == pytest.approx(line.measures["test_accuracy"].mean)
    columns = {(c.group, c.heading): c.cells for c in layout.line_by_line(made())}
    assert columns[layout.ON_NEW_IMAGES, ""][0] == f"{low:.1f} to {high:.1f}"


def test_rows_are_compared_with_the_reference_and_variants_with_each_other(made):
    found = {(d.row, d.variant, d.than_row, d.than_variant): d for d in made().differences}
    assert list(found) == [
        ("1", "as_run", "4", "as_run"),
        ("2", "as_run", "4", "as_run"),
        ("1", "corrected", "4", "corrected"),
        ("2", "corrected", "4", "corrected"),
        *((row, "corrected", row, "as_run") for row in ("1", "2", "4")),
    ]
    assert [d.is_seen for d in found.values()] == [True, False, True, False, False, False, False]
    worse = found["1", "corrected", "4", "corrected"]
    assert worse.low < worse.points < worse.high < 0 and worse.p < 0.05
    same = found["2", "corrected", "4", "corrected"]
    assert same.low < 0 < same.high
    text = layout.markdown(made())
    assert "not seen at n = 5 with 400 images" in text and "## Differences" in text


def test_corrected_is_compared_with_as_run_also_where_the_first_row_has_no_other():
    hits = {0: intervals.Hits(np.arange(9), np.arange(9) < 6)}
    answers = differences.Answers(hits, "digits", drawn_once=False)
    names = [("1", "corrected"), ("2", "as_run"), ("2", "corrected")]
    found = differences.differences(dict.fromkeys(names, answers), ["as_run", "corrected"], "1")
    assert [(d.row, d.variant, d.than_row, d.than_variant) for d in found] == [
        ("2", "corrected", "1", "corrected"),
        ("2", "corrected", "2", "as_run"),
    ]


def test_one_run_has_wilsons_interval_and_sees_no_difference(made):
    one = made(repeats=1)
    assert "covers other test images alone." in one.caption
    assert not any(difference.is_seen for difference in one.differences)
    assert {difference.low for difference in one.differences} == {None}
    assert "not seen at n = 1" in layout.markdown(one)


def test_older_results_without_predictions_have_no_interval(made, monkeypatch):
    monkeypatch.setattr(Result, "hits", None)
    older = made()
    assert older.differences == [] and {line.on_new_images for line in older.lines} == {None}
    assert layout.ON_NEW_IMAGES not in layout.markdown(older)
    assert "interval" not in older.caption
    newer = property(lambda run: answered(run) if run.place.row == "4" else None)
    monkeypatch.setattr(Result, "hits", newer)
    mixed = made()
    assert [bool(line.on_new_images) for line in mixed.lines] == [False] * 4 + [True] * 2
    assert "There is none where an earlier version made a run" in mixed.caption
    assert [(one.row, one.than_variant) for one in mixed.differences] == [("4", "as_run")]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_the_terminals_table_fits_and_names_what_it_leaves_out(made, width):
    shown = made(rows=("2", "4"), shots=7)
    text = terminal.text(shown, width)
    assert max(map(grid.width, text.splitlines())) <= width
    assert "All rows: optimizer adam, learning rate 0.0001, n 5." in " ".join(text.split())
    head = next(line for line in text.splitlines() if line.startswith("row"))
    assert "schedule" in head and "optimizer" not in head
    assert ("Left to table.md: " in text) == (width == 80)
    assert "All are of n = 5 with 400 images" in " ".join(text.split())


def test_columns_without_a_number_are_left_out_and_named(made):
    shown = replace(made(), shown=["test_accuracy", "pair_accuracy", "calibration_error"])
    text = " ".join(terminal.text(shown, 120).split())
    assert "The deck's own figures" in text
    assert "Without a number: accuracy on test pairs, percent, mean; expected calibration" in text
    assert "\\" not in terminal.text(shown, 120) and "|" not in terminal.text(shown, 120)


def test_a_single_line_keeps_its_settings(made):
    text = terminal.text(made(rows=("4",), variant="corrected"), 120)
    assert "All rows" not in text and "adam" in text and "Differences" not in text
