from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from markdown_it import MarkdownIt
from method_runs import finished

from keras_cnn import recipe
from keras_cnn.recipe import resolve, schema
from keras_cnn.results import layout, table

TEST_ACCURACIES = {"as_run": [0.50, 0.62, 0.41], "corrected": [0.55, 0.55, 0.58]}
TRAIN_ACCURACIES = {"as_run": [0.99, 0.90, 1.00], "corrected": [0.97, 0.96, 0.95]}


def results(tmp_path, profile="deck", repeats=3):
    plan = recipe.read("fewshot_convnext")
    made = []
    for run in resolve.runs(plan, profile, rows=["4"], repeats=repeats):
        folder = tmp_path / f"4-{run.place.variant}-{run.place.repeat}-0"
        folder.mkdir(exist_ok=True)
        test = TEST_ACCURACIES[run.place.variant][run.place.repeat]
        train = TRAIN_ACCURACIES[run.place.variant][run.place.repeat]
        history = [{"epoch": 1, "train_accuracy": train, "test_accuracy": test}]
        figures = {"seconds": 100 + run.place.repeat, "parameters": 1149770, "test_loss": None}
        made.append(finished(run, folder, history, **figures))
    return plan, made


def test_best_is_the_run_with_the_best_test_accuracy_and_spread_is_the_samples(tmp_path):
    plan, made = results(tmp_path)
    as_run, corrected = table.build(plan, made, "a command").lines
    assert (as_run.variant, as_run.n) == ("as_run", 3)
    assert as_run.measures["test_accuracy"].best == pytest.approx(62)
    # of the same run, not the best train accuracy
    assert as_run.measures["train_accuracy"].best == pytest.approx(90)
    for line in (as_run, corrected):
        values = 100 * np.array(TEST_ACCURACIES[line.variant])
        test = line.measures["test_accuracy"]
        assert test.mean == pytest.approx(values.mean())
        assert test.sd == pytest.approx(np.sqrt(((values - values.mean()) ** 2).sum() / 2))
    assert [as_run.measures[f"{split}_accuracy"].deck for split in ("train", "test")] == [100, 63]


def test_markdown_has_the_decks_numbers_beside_ours_only_for_the_same_measurement(tmp_path):
    plan, made = results(tmp_path)
    text = layout.markdown(table.build(plan, made, "a command"))
    line = next(line for line in text.splitlines() if "as_run" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == [
        "4", "adam", "0.0001", "step", "as_run", "3", "90.0", "96.3 ± 5.5", "100",
        "62.0", "51.0 ± 10.5", "63",
    ]  # fmt: skip
    assert "not comparable" not in text and "`a command`" in text

    plan, made = results(tmp_path, profile="mini")
    text = layout.markdown(table.build(plan, made, "a command"))
    line = next(line for line in text.splitlines() if "as_run" in line)
    assert len(line.strip("|").split("|")) == 10 and "63" not in line
    assert "not comparable" in text
    assert "clothing" in text and "convnext_atto from bundled weights" in text and "mini" in text


def test_the_caption_covers_all_that_the_runs_differ_in(tmp_path):
    plan, made = results(tmp_path)
    made[0].metrics["train_images"] = 10
    made[1].spec["images"]["image_size"] = 64
    made[2].environment["versions"]["keras"] = "4"
    caption = table.build(plan, made, "a command").caption
    assert (
        "10 to 1,000 training and 800 test images of 2 classes, 32 to 64 pixels, 1 epoch; "
        in caption
    )
    assert "(keras 3, 4)" in caption


def test_seconds_of_different_machines_are_told_from_one_another(tmp_path):
    plan, made = results(tmp_path)
    timed = plan.model_copy(update={"measures": ["test_accuracy", "seconds"]})
    for result in made:
        result.environment["host"] = "node-1"
        result.spec["threads"] = 1
    assert "different machines" not in table.build(timed, made, "").caption
    made[0].environment["host"] = "node-2"
    assert "different machines" in table.build(timed, made, "").caption
    assert "different machines" not in table.build(plan, made, "").caption, "no seconds are shown"
    made[0].environment["host"] = "node-1"
    made[0].spec["threads"] = 2
    caption = table.build(timed, made, "").caption
    assert "different machines" in caption and "threads 2): rows 4" in caption


def test_chance_is_that_of_the_classes_at_hand(tmp_path):
    plan = recipe.read("fewshot_methods")
    made = [
        replace(
            finished(run, tmp_path / f"{run.place.row}-{run.place.variant}", [{}]),
            class_names=[f"class {n}" for n in range(count)],
        )
        for count in (2, 21)
        for run in resolve.runs(plan, "mini", ["maml", "nearest_mean"], "corrected", 1)
    ]
    of_two, of_many = (table.build(plan, group, "") for group in (made[:2], made[2:]))
    assert "800 test images of 2 classes, " in of_two.caption
    assert "of 21 classes (row maml: in tasks of 5, chance 20.0), " in of_many.caption
    for name in recipe.names():
        read = recipe.read(name)
        words = " ".join([read.title, read.note, *(figure.title for figure in read.figures)])
        assert not re.search(r"\b(two|five|ten|\d+) classes\b", words), name


def test_a_users_own_images_have_no_figures_of_the_slide_beside_them(tmp_path):
    plan, made = results(tmp_path)
    for number, result in enumerate(made):
        result.spec["images"]["data"] = str(tmp_path / "digits")  # a folder, not the source
        place = result.place.model_copy(update={"comparable": False})
        made[number] = replace(result, place=place)
    text = layout.markdown(table.build(plan, made, "a command"))
    assert "data digits" in text
    assert "slide" not in text and "deck's" not in text and "| 63" not in text


def test_one_repeat_has_no_spread(tmp_path):
    plan, made = results(tmp_path, repeats=1)
    built = table.build(plan, made, "a command")
    assert built.lines[0].measures["test_accuracy"].sd is None
    assert "±" not in next(x for x in layout.markdown(built).splitlines() if "corrected" in x)


def test_csv_and_json_hold_the_figures_in_full(tmp_path):
    plan, made = results(tmp_path)
    built = table.build(plan, made, "a command")
    rows = list(csv.DictReader(io.StringIO(layout.comma_separated(built))))
    content = json.loads(table.as_json(built))
    assert len(rows) == len(content["lines"]) == 2
    for row, line in zip(rows, content["lines"], strict=True):
        for name in ("test_accuracy", "seconds"):
            for kind in ("mean", "sd"):
                assert float(row[f"{name}_{kind}"]) == line["measures"][name][kind]
        assert row["test_loss_mean"] == ""  # these results have none
        assert row["learning rate"] == "0.0001"
    assert content["lines"][0]["runs"] == [f"4-as_run-{n}-0" for n in range(3)]
    assert content["lines"][0]["measures"]["seconds"]["mean"] == 101


def test_the_recipe_decides_which_measures_a_reader_sees(tmp_path):
    plan, made = results(tmp_path)
    shown = ["seconds", "parameters", "processor_use", "test_loss"]
    deck = schema.Deck(seconds=123.9)
    rows = [row.model_copy(update={"deck": deck}) for row in plan.rows]
    plan = plan.model_copy(
        update={"measures": shown, "rows": rows, "note": "A note.", "deck_figures": "guessed"}
    )
    text = layout.markdown(table.build(plan, made, "a command"))
    heading, _, line, *_ = (line for line in text.splitlines() if line.startswith("|"))
    cells = [[cell.strip() for cell in text.strip("|").split("|")][6:] for text in (heading, line)]
    assert cells[0] == [
        "seconds of training, mean", "seconds of training, deck", "parameters",
        "processor use, cores, mean", "test loss, mean",
    ]  # fmt: skip
    # parameters are the same in every run; these results know of no processor use
    assert cells[1] == ["101.0 ± 1.0", "123.9", "1,149,770", "-", "-"]
    assert "A note." in text and "The deck's figures: guessed." in text


def test_the_decks_figures_stand_under_one_another_with_the_same_decimals():
    column = [table.Statistic(deck=deck) for deck in (56.4, 57.0, None, 100)]
    assert layout.deck_texts(column) == ["56.4", "57.0", "-", "100.0"]
    assert layout.deck_texts(column[1:]) == ["57", "-", "100"]  # as few as the slide has


def test_small_figures_keep_three_digits(tmp_path):
    plan, made = results(tmp_path)
    for result in made:
        result.metrics["seconds"] /= 1000
    plan = plan.model_copy(update={"measures": ["seconds"]})
    text = layout.markdown(table.build(plan, made, "a command"))
    assert "| 0.101 ± 0.001 " in text


def test_a_diverged_run_is_told_and_in_no_figure(tmp_path):
    plan, made = results(tmp_path)
    as_run, corrected = (
        [one for one in made if one.place.variant == variant] for variant in TEST_ACCURACIES
    )
    as_run[1].history[0]["train_loss"] = float("nan")  # the best of the three
    for result in corrected:
        result.metrics.update(diverged_at_epoch=2, test_accuracy=None)
    built = table.build(plan, made, "a command")
    accuracy = built.lines[0].measures["test_accuracy"]
    assert (built.lines[0].n, built.lines[0].diverged) == (2, [1])
    assert accuracy.best == pytest.approx(50) and accuracy.mean == pytest.approx((50 + 41) / 2)
    assert (built.lines[1].n, built.lines[1].diverged) == (0, [2, 2, 2])
    text = layout.markdown(built)
    shown = [line.strip("|").split("|")[5:] for line in text.splitlines() if "_run" in line]
    cells = [[cell.strip() for cell in line] for line in shown if line]
    assert cells[0] == ["2, 1 diverged", "99.0", "99.5 ± 0.7", "100", "50.0", "45.5 ± 6.4", "63"]
    corrected = next(line for line in text.splitlines() if "| corrected" in line)
    assert "| 0, 3 diverged | -  " in corrected
    assert "in no figure: " in text and "row 4 as_run repeat 2 at epoch 1" in text
    content = json.loads(table.as_json(built), parse_constant=pytest.fail)
    assert content["lines"][1]["measures"]["test_accuracy"]["mean"] is None
    rows = list(csv.DictReader(io.StringIO(layout.comma_separated(built))))
    assert [row["diverged"] for row in rows] == ["1", "3"]


HOSTILE = "=1+1|<b>*x*</b> `$a$`\n\x1b[31m[y](z)"


def test_runs_that_learnt_nothing_are_counted(tmp_path):
    plan, made = results(tmp_path)
    assert "one class" not in table.build(plan, made, "").caption
    first = made[0]
    constant = replace(first, confusion=[[0, 10], [0, 10]])  # whatever an image shows
    caption = table.build(plan, [constant, *made[1:]], "").caption
    assert "one class for every test image: 1 of 3 (row 4 as_run)." in caption


def test_words_of_users_are_neither_markup_nor_formulas(tmp_path):
    plan, made = results(tmp_path)
    for result in made:
        result.spec["training"]["optimizer"] = HOSTILE
        result.spec["images"]["data"] = str(tmp_path / HOSTILE)
    plan = plan.model_copy(
        update={"title": HOSTILE, "note": HOSTILE, "columns": {"@x": "optimizer"}}
    )
    built = table.build(plan, made, HOSTILE)
    text = layout.markdown(built)
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    tags = set(re.findall(r"<(\w+)", html))
    assert tags == {"h1", "p", "table", "thead", "tbody", "tr", "th", "td", "code"}
    assert html.count("<td>") == 2 * html.count("<th>") and "\x1b" not in text
    cells = [
        cell for line in csv.reader(io.StringIO(layout.comma_separated(built))) for cell in line
    ]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert not any("\x1b" in cell for cell in cells)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "[" * 100_000, '{"lines": [{"runs": [".."]}]}', '{"lines": [{"runs": ["/x"]}]}'],
)
def test_a_damaged_table_is_no_table(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ValueError):
        table.read(tmp_path / "table.json")
