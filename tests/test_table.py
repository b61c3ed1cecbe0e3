from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest

from keras_cnn import plots, recipe, table
from keras_cnn.store import Result

TEST_ACCURACIES = {"as_run": [0.50, 0.62, 0.41], "corrected": [0.55, 0.55, 0.58]}
TRAIN_ACCURACIES = {"as_run": [0.99, 0.90, 1.00], "corrected": [0.97, 0.96, 0.95]}


def results(tmp_path, profile="deck", repeats=3):
    plan = recipe.read("fewshot_convnext")
    made = []
    for run in recipe.runs(plan, profile, rows=["4"], repeats=repeats):
        folder = tmp_path / f"4-{run.variant}-{run.repeat}-0"
        folder.mkdir(exist_ok=True)
        test = TEST_ACCURACIES[run.variant][run.repeat]
        train = TRAIN_ACCURACIES[run.variant][run.repeat]
        history = [
            {
                "epoch": epoch,
                "train_loss": 2 / epoch,
                "test_loss": 2.2 / epoch + 0.1 * run.repeat,
                "train_accuracy": train * epoch / 3,
                "test_accuracy": test * epoch / 3,
            }
            for epoch in (1, 2, 3)
        ]
        metrics = {
            "train_accuracy": train,
            "test_accuracy": test,
            "train_images": 1000,
            "test_images": 1000,
        }
        where = {
            "backend": "torch",
            "versions": {"keras": "3"},
            "device": "cpu",
            "processor": "a processor",
        }
        confusion = [[9, 1], [2, 8]]
        made.append(
            Result(folder, run.model_dump(), where, history, metrics, ["cat", "dog"], confusion)
        )
    return plan, made


def test_best_is_the_run_with_the_best_test_accuracy_and_spread_is_the_samples(tmp_path):
    plan, made = results(tmp_path)
    as_run, corrected = table.build(plan, made, "a command").lines
    assert (as_run.variant, as_run.n) == ("as_run", 3)
    assert as_run.best_test == pytest.approx(62)
    assert as_run.best_train == pytest.approx(90)  # of the same run, not the best train accuracy
    for line in (as_run, corrected):
        values = 100 * np.array(TEST_ACCURACIES[line.variant])
        assert line.mean_test == pytest.approx(values.mean())
        assert line.sd_test == pytest.approx(np.sqrt(((values - values.mean()) ** 2).sum() / 2))
    assert (as_run.deck_train, as_run.deck_test) == (100, 63)


def test_markdown_has_the_decks_numbers_beside_ours_only_for_the_same_measurement(tmp_path):
    plan, made = results(tmp_path)
    text = table.markdown(table.build(plan, made, "a command"))
    line = next(line for line in text.splitlines() if "as_run" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "4", "adam", "0.0001", "step", "as_run", "3", "90.0", "62.0", "96.3 ± 5.5", "51.0 ± 10.5",
        "100", "63",
    ]  # fmt: skip
    assert "not comparable" not in text and "`a command`" in text

    plan, made = results(tmp_path, profile="mini")
    text = table.markdown(table.build(plan, made, "a command"))
    line = next(line for line in text.splitlines() if "as_run" in line)
    assert len(line.strip("|").split("|")) == 10 and "63" not in line
    assert "not comparable" in text
    assert "digits" in text and "convnext_atto from random weights" in text and "mini" in text


def test_one_repeat_has_no_spread(tmp_path):
    plan, made = results(tmp_path, repeats=1)
    built = table.build(plan, made, "a command")
    assert built.lines[0].sd_test is None
    assert "±" not in next(x for x in table.markdown(built).splitlines() if "corrected" in x)


def test_csv_and_json_hold_the_figures_in_full(tmp_path):
    plan, made = results(tmp_path)
    built = table.build(plan, made, "a command")
    rows = list(csv.DictReader(io.StringIO(table.comma_separated(built))))
    content = json.loads(table.as_json(built))
    assert len(rows) == len(content["lines"]) == 2
    for row, line in zip(rows, content["lines"], strict=True):
        assert float(row["sd_test"]) == line["sd_test"]
        assert row["learning rate"] == "0.0001"
    assert content["lines"][0]["runs"] == [f"4-as_run-{n}-0" for n in range(3)]


def test_pictures_are_drawn_once_and_again_when_a_run_changed(tmp_path):
    plan, made = results(tmp_path)
    pictures = plots.draw(plan.title, made, tmp_path)
    assert {picture.name for picture in pictures} == {
        "row-4-curves.png",
        "row-4-as_run-confusion.png",
        "row-4-corrected-confusion.png",
    }
    before = {picture: picture.stat().st_mtime_ns for picture in pictures}
    plots.draw(plan.title, made, tmp_path)
    assert before == {picture: picture.stat().st_mtime_ns for picture in pictures}
    shutil.rmtree(made[0].folder)  # an as_run run made anew
    made[0].folder.mkdir()
    plots.draw(plan.title, made, tmp_path)
    changed = {p.name for p in pictures if p.stat().st_mtime_ns != before[p]}
    assert changed == {"row-4-curves.png", "row-4-as_run-confusion.png"}


def test_the_band_is_one_sample_standard_deviation(tmp_path):
    _, made = results(tmp_path)
    group = [result for result in made if result.run["variant"] == "as_run"]
    figure = plots.curves("title", {"as_run": group})
    accuracy = figure.axes[0]
    line = next(line for line in accuracy.lines if line.get_label() == "test")
    values = 100 * np.array(TEST_ACCURACIES["as_run"])
    assert line.get_ydata()[-1] == pytest.approx(values.mean())
    band = accuracy.collections[1].get_paths()[0].vertices
    at_end = band[band[:, 0] == 3][:, 1]
    assert at_end.max() == pytest.approx(values.mean() + values.std(ddof=1))
    assert at_end.min() == pytest.approx(values.mean() - values.std(ddof=1))
