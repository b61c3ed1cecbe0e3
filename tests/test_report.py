from __future__ import annotations

import base64
import html.parser
import itertools
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
from markdown_it import MarkdownIt
from method_runs import finished, write

from keras_cnn import files, recipe, report
from keras_cnn.__main__ import main
from keras_cnn.deck import slides
from keras_cnn.plots import draw
from keras_cnn.recipe import reader, resolve
from keras_cnn.report import html as to_html
from keras_cnn.report import markdown, published, sections, sentences
from keras_cnn.results import collect, compare, store, table
from keras_cnn.results.grid import Column

HEAD = """\
title: A recipe
columns: {penalty: l2}
settings: {model: baseline, weights: random, epochs: 3}
variants:
  as_run: {methods: {supervised: {method: supervised_as_run}}}
  corrected: {}
profiles:
  deck: {}
  mini: {settings: {data: digits}}
"""
GRID = (
    HEAD
    + """\
slides: [11, 12]
figures:
  - {name: grid, title: A grid, kind: heat_map, by: dropout, across: l2, where: {epochs: 3}}
rows:
  - {row: 1, settings: {dropout: 0.0, l2: 0.0}, deck: {train_accuracy: 71, test_accuracy: 61.5}}
  - {row: 2, settings: {dropout: 0.5, l2: 0.0}, deck: {train_accuracy: 72, test_accuracy: 62}}
  - {row: 3, settings: {dropout: 0.0, l2: 0.1}}
  - {row: 4, settings: {dropout: 0.5, l2: 0.1}}
  - {row: 5, settings: {dropout: 0.9, l2: 0.1, epochs: 9}}
"""
)
CURVES = (
    HEAD
    + """\
slides: [17, 18, 23]
rows:
  - {row: 1, settings: {l2: 0.0}, deck: {train_accuracy: 98, test_accuracy: 50}}
  - {row: 4, settings: {l2: 0.1}, deck: {train_accuracy: 100, test_accuracy: 63}}
"""
)
METHODS = """\
title: Methods
slides: [19]
measures: [test_accuracy, test_accuracy_over_images, pair_accuracy, weights_moved]
columns: {method: method, distance: distance}
settings: {model: baseline, weights: random}
variants:
  as_run: {methods: {prototypical: {method: prototypical_split_batches}}}
  corrected: {}
profiles:
  deck: {}
rows:
  - {row: prototypical, settings: {method: prototypical}, deck: {test_accuracy: 46}}
  - {row: siamese, settings: {method: siamese}, deck: {test_accuracy: 51}}
  - {row: maml, settings: {method: maml}, deck: {test_accuracy: 14}}
  - {row: simple, settings: {method: nearest_mean}, variants: [corrected]}
"""
AUGMENTATION = (
    HEAD
    + """\
slides: [22]
rows:
  - {row: 1, settings: {augment: flip}, deck: {test_accuracy: 61}}
  - {row: 2, settings: {augment: cutmix}, deck: {test_accuracy: 39}}
  - {row: 3, settings: {augment: none}}
"""
)
BEYOND = HEAD + "rows: [{row: 1}]\n"
RECIPES = {
    "regularization": GRID,
    "fewshot_convnext": CURVES,
    "fewshot_methods": METHODS,
    "fewshot_augmentation": AUGMENTATION,
    "fewshot_shots": BEYOND,
}
HOSTILE = 'a_b_ <i>|c| `d` & "e" *f* $g$ &lt;'
REPEATS = 3


NETWORKS = {}
network = sections._network
recipe_plots = draw.recipe_plots


def network_once(of):
    """The blocks of a network's summary, counted once for all tests: that takes a while."""
    if of.model not in NETWORKS:
        NETWORKS[of.model] = network(of)
    return NETWORKS[of.model]


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Where results go; the package has the recipes above and no others."""
    monkeypatch.setattr(sections, "_network", network_once)
    monkeypatch.setattr(draw, "recipe_plots", lambda plan, results, folder: [])
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for name, text in RECIPES.items():
        (recipes / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(reader, "folder", lambda: recipes)
    monkeypatch.setattr(files, "sync", lambda path: None)  # for speed
    monkeypatch.setattr(published, "FOLDER", tmp_path / "published")
    return tmp_path / "out"


@pytest.fixture
def drawn(out, monkeypatch):
    """Pictures are drawn, too; most tests do without, for speed."""
    monkeypatch.setattr(draw, "recipe_plots", recipe_plots)


def made(out, name, profile="deck", data=None, more=None, seed=0, rows=None, repeats=REPEATS):
    """Writes finished runs with random figures and their table, as a `recipe` command would."""
    plan = recipe.read(name)
    random = np.random.default_rng(seed)
    results = []
    overrides = {"data": data} if data else {}
    for run in resolve.runs(plan, profile, rows=rows, repeats=repeats, overrides=overrides):
        folder = out / plan.name / f"{run.place.row}-{run.place.variant}-{run.place.repeat}-{seed}"
        history = [
            dict(zip(store.HISTORY_COLUMNS, [epoch, 0.1, *random.random(4), 1.5], strict=True))
            for epoch in (1, 2, 3)
        ]
        measured = {"test_accuracy_over_images": random.random(), **(more(run) if more else {})}
        results.append(write(finished(run, folder, history, **measured), run))
    text = table.as_json(table.build(plan, results, f"a command for {name}"))
    files.write_text(out / plan.name / "table.json", text)
    return results


def finals(results, row, variant, measure="test_accuracy"):
    """In percent, (repeats,)"""
    of = [r for r in results if (r.place.row, r.place.variant) == (row, variant)]
    return 100 * np.array([r.metrics[measure] for r in of])


def found(out, name):
    return collect.collect(recipe.read(name), out)


def page(out):
    return report.page([found(out, name) for name in recipe.names()], out, out)


def section(text, anchor):
    """The page from a heading to the next of its level."""
    lines = text.splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if f'<a id="{anchor}"' in line)
    level = lines[start].index(" ")
    ends = [i for i, line in enumerate(lines) if re.match(rf"#{{1,{level}}} ", line) and i > start]
    return "".join(lines[start : min(ends, default=len(lines))])


def plain(text):
    """What a reader sees of a piece of Markdown."""
    rendered = MarkdownIt("commonmark", {"html": True}).renderInline(text.removeprefix("> "))
    return "".join(Reader(rendered).text).strip()


def words(text):
    """All running text and code."""
    parts = text.split("\n\n")
    return " ".join(plain(part) for part in parts if not part.startswith(("#", "|", "!", "**")))


def tables(text):
    """Each table as a dict of its columns, by group and heading."""
    found = []
    for part in text.split("\n\n"):
        if part.startswith("|"):
            rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in part.strip().splitlines()]
            head, _, *cells = ([plain(cell.strip(" ")) for cell in row] for row in rows)
            names = [tuple(heading.rpartition(": ")[::2]) for heading in head]
            columns = map(list, zip(*cells, strict=True))
            found.append(dict(zip(names, columns, strict=True)))
    return found


def headings(text):
    """Anchors and titles."""
    return re.findall(r'^#+ <a id="(.*?)".*?></a>(.*)$', text, re.MULTILINE)


def shown_pictures(text):
    """The pictures' texts and paths."""
    return re.findall(r"^!\[(.*)\]\((.*)\)$", text, re.MULTILINE)


class Reader(html.parser.HTMLParser):
    """Refuses tags that are not closed in turn; collects what a browser would load or show."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    def all(self, name):
        return [(tag, attrs[name]) for tag, attrs in self.attributes if name in attrs]


# What is computed


def test_best_of_n_is_held_against_the_mean_of_the_same_runs(out):
    results = made(out, "fewshot_convnext")
    excess = compare.best_minus_mean(found(out, "fewshot_convnext"))
    wanted = {}
    for row in ("1", "4"):
        values = finals(results, row, "as_run")
        wanted[row] = values.max() - values.mean()
    assert excess == pytest.approx(wanted)
    text = sentences.best_of_n(found(out, "fewshot_convnext"))
    assert f"best of {REPEATS} stands {np.mean(list(wanted.values())):.1f} points" in text
    assert f"{max(wanted.values()):.1f} in row {max(wanted, key=wanted.get)}" in text


def test_one_repeat_has_no_best_of_n_and_no_standard_error(out):
    made(out, "fewshot_convnext", repeats=1)
    of = found(out, "fewshot_convnext")
    assert sentences.best_of_n(of) is None
    assert compare.variant_difference(of, "test_accuracy").standard_error is None
    assert "standard error" not in sentences.as_run_and_corrected(of)


def test_repeats_that_share_one_draw_of_images_give_no_standard_error(out):
    for result in made(out, "fewshot_augmentation"):
        drawn_anew = result.place.repeat if result.place.variant != "as_run" else 0
        spec = result.spec | {"images": result.spec["images"] | {"shots": 5}}
        spec["shots_seed"] = 213 + drawn_anew
        content = {"place": result.place.model_dump(), "spec": spec}
        store.write_json(result.folder / "run.json", content)
    of = compare.variant_difference(found(out, "fewshot_augmentation"), "test_accuracy")
    assert of.one_draw and of.standard_error is None
    text = sentences.as_run_and_corrected(found(out, "fewshot_augmentation"))
    assert "all repeats share one draw" in text


def test_corrected_is_held_against_as_run_row_by_row(out):
    results = made(out, "fewshot_convnext")
    of = compare.variant_difference(found(out, "fewshot_convnext"), "test_accuracy")
    pairs = [[finals(results, row, variant) for variant in ("as_run", "corrected")] for row in "14"]
    each = {row: b.mean() - a.mean() for row, (a, b) in zip("14", pairs, strict=True)}
    assert of.by_row == pytest.approx(each)
    assert of.mean == pytest.approx(np.mean(list(each.values())))
    # Rows of a repeat share their images: what varies is the repeat's mean over rows.
    of_repeats = np.mean([after - before for before, after in pairs], axis=0)  # (repeats,)
    assert of.standard_error == pytest.approx(of_repeats.std(ddof=1) / np.sqrt(REPEATS))
    text = sentences.as_run_and_corrected(found(out, "fewshot_convnext"))
    assert f"{of.mean:+.1f} points, standard error {of.standard_error:.1f}" in text
    low = min(each, key=each.get)
    assert f"from {each[low]:+.1f} (row {low})" in text
    train = [np.mean([finals(results, row, "as_run", "train_accuracy") for row in "14"])]
    assert f"Train accuracy {train[0]:.1f} as run" in text


def test_a_diverged_repeat_is_in_no_difference_and_no_standard_error(out):
    def diverged(run):
        is_one = (run.place.variant, run.place.repeat) == ("corrected", 1)
        return {"diverged_at_epoch": 2} if is_one else {}

    results = made(out, "fewshot_convnext", more=diverged)
    of = compare.variant_difference(found(out, "fewshot_convnext"), "test_accuracy")
    rest = [repeat for repeat in range(REPEATS) if repeat != 1]
    before, after = (
        np.array([finals(results, row, variant) for row in "14"])  # (rows, repeats)
        for variant in ("as_run", "corrected")
    )
    assert of.mean == pytest.approx(after[:, rest].mean() - before.mean())
    of_repeats = (after - before)[:, rest].mean(axis=0)
    assert of.standard_error == pytest.approx(of_repeats.std(ddof=1) / np.sqrt(len(rest)))


def learnt(run):
    return {"train_accuracy": 0.8 + 0.01 * run.place.repeat}


def apart(out, setting, measure, variant):
    return compare.setting_effect(found(out, "regularization"), setting, measure, variant)


def told(out, setting):
    return sentences.SENTENCES[setting](found(out, "regularization"))


def test_rows_are_compared_where_they_differ_in_one_setting_alone(out):
    results = made(out, "regularization", more=learnt)
    for variant in ("as_run", "corrected"):
        of = apart(out, "dropout", "test_accuracy", variant)
        values = {row: finals(results, row, variant) for row in "1234"}  # 5 has other epochs
        differences = [values["1"] - values["2"], values["3"] - values["4"]]  # (repeats,) each
        ranges = [abs(one.mean()) for one in differences]
        errors = [one.std(ddof=1) / np.sqrt(REPEATS) for one in differences]
        assert (of.sets, of.rows, of.left_out) == (2, 4, 0)
        assert of.range == pytest.approx(np.median(ranges))
        # a normal figure around 0 lies sqrt(2 / pi) of its standard error from there on average
        assert of.by_chance == pytest.approx(np.median(errors) * np.sqrt(2 / np.pi), rel=1e-4)
        text = f"test accuracy {variant.replace('_', ' ')} {np.mean(ranges):.1f} points apart "
        text += f"(4 rows in 2 sets, by chance alone {of.by_chance:.1f})"
        assert text in told(out, "dropout") and "Left out" not in told(out, "dropout")
    of = apart(out, "l2", "test_accuracy", "corrected")
    means = {row: one.mean() for row, one in values.items()}
    assert of.range == pytest.approx(
        np.mean([abs(means["1"] - means["3"]), abs(means["2"] - means["4"])])
    )
    assert apart(out, "l3", "test_accuracy", "as_run") is None


SIX = HEAD + "slides: [11, 12]\nrows:\n"
SIX += "".join(f"  - {{row: {n}, settings: {{dropout: 0.{n}}}}}\n" for n in range(1, 7))


def test_what_rows_of_a_repeat_share_is_no_difference_by_chance(out):
    (reader.folder() / "regularization.yaml").write_text(SIX)
    random = np.random.default_rng(4)
    accuracies = 0.6 + 0.002 * random.standard_normal((6, 5))  # (rows, repeats)
    accuracies += 0.02 * random.standard_normal(5)  # the repeat's draw of images, for all its rows

    def more(run):
        return learnt(run) | {"test_accuracy": accuracies[int(run.place.row) - 1, run.place.repeat]}

    made(out, "regularization", more=more, repeats=5)
    of = apart(out, "dropout", "test_accuracy", "as_run")
    # Two ways without replication: what neither row nor repeat explains, over its freedom.
    percent = 100 * accuracies
    rest = percent - percent.mean(1, keepdims=True) - percent.mean(0) + percent.mean()
    error = np.sqrt((rest**2).sum() / (5 * 4) / 5)
    normal = random.standard_normal((200_000, 6))
    assert of.by_chance == pytest.approx(error * np.ptp(normal, axis=1).mean(), rel=0.01)
    assert 0.15 < of.by_chance < 0.35  # 0.2 points a row and no draw make 0.23
    assert of.range == pytest.approx(np.ptp(percent.mean(1)))


def test_rows_of_unlike_repeats_are_taken_as_independent(out):
    results = made(out, "regularization", more=learnt)
    kept = []
    for result in results:
        of = result.place.row, result.place.variant, result.place.repeat
        if of in {("1", "as_run", 0), ("3", "as_run", 1)}:
            shutil.rmtree(result.folder)
        else:
            kept.append(result)
    of = apart(out, "dropout", "test_accuracy", "as_run")
    squares = {row: finals(kept, row, "as_run") for row in "1234"}
    squares = {row: values.var(ddof=1) / len(values) for row, values in squares.items()}
    errors = [np.sqrt((squares[a] + squares[b]) / 2) for a, b in ("12", "34")]
    # two normal figures lie 2 / sqrt(pi) of their standard error apart on average
    assert of.by_chance == pytest.approx(np.median(errors) * 2 / np.sqrt(np.pi), rel=1e-4)


@pytest.mark.parametrize(
    ("text", "failing", "counts", "compared"),
    [
        (GRID, "34", (1, 2, 2), ["12"]),  # L2 0.1
        (GRID, "4", (1, 2, 2), ["12"]),  # which leaves 3 alone
        (SIX, "2", (1, 5, 1), ["13456"]),
    ],
)
def test_a_row_that_does_not_learn_is_left_out_unless_that_is_the_settings_effect(
    out, text, failing, counts, compared
):
    (reader.folder() / "regularization.yaml").write_text(text)

    def more(run):
        fails = run.place.row in failing
        return {"train_accuracy": (0.5 if fails else 0.9) + 0.01 * run.place.repeat}  # of 2 classes

    results = made(out, "regularization", more=more)
    for measure in ("train_accuracy", "test_accuracy"):
        means = {
            row: finals(results, row, "as_run", measure).mean() for row in {*"1234", *compared[0]}
        }
        of = apart(out, "dropout", measure, "as_run")
        assert (of.sets, of.rows, of.left_out) == counts
        ranges = [np.ptp([means[row] for row in rows]) for rows in compared]
        assert of.range == pytest.approx(np.median(ranges))
    if text == GRID:
        of = apart(out, "l2", "test_accuracy", "as_run")
        assert (of.sets, of.rows, of.left_out) == (2, 4, 0)
        ranges = [abs(means["1"] - means["3"]), abs(means["2"] - means["4"])]
        assert of.range == pytest.approx(np.median(ranges))


def test_each_comparison_says_how_many_rows_it_is_of(out):
    def more(run):
        fails = run.place.variant == "corrected" and run.place.row in ("3", "4")
        return {"train_accuracy": 0.5 if fails else 0.9}  # of two classes

    made(out, "regularization", more=more)
    text = told(out, "dropout")
    for split in ("train", "test"):
        as_run, corrected = re.findall(rf"{split} accuracy [^(]*\(([^)]*)\)", text)
        assert as_run.startswith("4 rows in 2 sets, by chance")
        assert corrected.startswith("2 rows in 1 set, 2 left out, by chance")
    assert "Left out are rows that did not learn (one and a half times" in text
    assert "40.0 points apart (4 rows in 2 sets, " in told(out, "l2")


def test_what_was_measured_is_never_called_not_measured(out):
    assert told(out, "dropout") is None
    made(out, "regularization", rows=["1", "4"], more=learnt)
    assert told(out, "dropout") == "no two of the rows at hand differ in dropout alone."
    made(out, "regularization", more=lambda run: {"train_accuracy": 0.5}, seed=1)
    assert "test accuracy as run cannot be compared (4 rows left out); " in told(out, "dropout")
    made(out, "regularization", more=lambda run: {"test_accuracy": float("nan")}, seed=2)
    assert "test accuracy as run cannot be compared (4 rows left out); " in told(out, "l2")
    assert "Left out are rows without a figure" in told(out, "l2")
    assert "Not measured here yet" not in words(section(page(out), "defect-4"))


def test_methods_are_told_by_their_own_measures(out):
    def more(run):
        moved = {"as_run": 0.0, "corrected": 2.0 + run.place.repeat}[run.place.variant]
        pair = (
            {"pair_accuracy": 0.5 + 0.01 * run.place.repeat} if run.place.row == "siamese" else {}
        )
        return pair | ({"weights_moved": moved} if run.place.row == "maml" else {})

    results = made(out, "fewshot_methods", more=more)
    of = found(out, "fewshot_methods")
    siamese = sentences.SENTENCES["siamese"](of)
    assert siamese.count(f"(n = {REPEATS}): accuracy on test pairs 51.0 ± 1.0") == 2
    assert "Chance of 2 classes is 50.0 percent" in siamese and "maml" not in siamese
    maml = sentences.SENTENCES["maml"](of)
    moved = "distance the weights moved"
    assert re.search(
        rf"as run \(n = 3\): {moved} 0\.?0* ± 0.*corrected.*{moved} 3\.\d* ± 1\.", maml
    )
    values = finals(results, "prototypical", "as_run")
    text = f"test accuracy {values.mean():.1f} ± {values.std(ddof=1):.1f}"
    assert text in sentences.SENTENCES["prototypical"](of)


def test_augmentations_are_held_against_the_row_without(out):
    results = made(out, "fewshot_augmentation")
    text = sentences.SENTENCES["augmentation"](found(out, "fewshot_augmentation"))
    for variant in ("as_run", "corrected"):
        flip, cutmix, none = (finals(results, row, variant).mean() for row in "123")
        each = f"flip {flip - none:+.1f}, cutmix {cutmix - none:+.1f} points against {none:.1f}"
        assert f"{variant.replace('_', ' ')} {each} with none" in text
    made(out, "fewshot_augmentation", seed=1, rows=["1", "2"])  # then there is nothing to hold to
    assert sentences.SENTENCES["augmentation"](found(out, "fewshot_augmentation")) is None


def test_a_diverged_row_is_left_out_of_effects(out):
    results = made(out, "fewshot_convnext")
    path = results[0].folder / "metrics.json"
    metrics = json.loads(path.read_text()) | {"test_accuracy": float("nan")}
    store.write_json(path, metrics)
    path.with_name("checksums.json").unlink()  # as in older results
    of = found(out, "fewshot_convnext")
    assert set(compare.best_minus_mean(of)) == set(
        compare.variant_difference(of, "test_accuracy").by_row
    )
    assert set(compare.best_minus_mean(of)) == {"4"}


# What the page shows


def test_slides_stand_in_order_and_defects_after_them(out):
    anchors = [anchor for anchor, _ in headings(page(out))]
    titles = [title for _, title in headings(page(out)) if title.startswith("Slide")]
    shown = []
    for title in titles:
        numbers = [int(number) for number in re.findall(r"\d+", title.split(":")[0])]
        shown += range(numbers[0], numbers[-1] + 1)
    assert shown == list(range(2, 24))
    defects = [anchor for anchor in anchors if anchor.startswith("defect-")]
    assert defects == [f"defect-{number}" for number in range(1, 9)]


def test_without_results_each_slide_and_defect_names_the_command(out):
    blocks = page(out)
    for anchor, name in (
        ("slide-11", "regularization"),
        ("slide-17", "fewshot_convnext"),
        ("slide-23", "fewshot_convnext"),
        ("recipe-fewshot_shots", "fewshot_shots"),
        ("defect-1", "fewshot_convnext"),
        ("defect-2", "regularization"),
        ("defect-7", "fewshot_methods"),
    ):
        text = words(section(blocks, anchor))
        assert "Not measured here yet" in text, anchor
        assert f"python -m keras_cnn recipe {name} --out={out}" in text, anchor
        assert "Measured," not in text
    (deck_table,) = tables(section(blocks, "slide-17"))
    assert deck_table["", "row"] == ["1", "4"] and deck_table["", "penalty"] == ["0", "0.1"]
    assert deck_table["", "test accuracy, percent"] == ["50", "63"]


def test_published_tables_and_pictures_stand_in_until_there_are_results(out):
    folder = published.FOLDER / "fewshot_convnext_clothing"
    folder.mkdir(parents=True)
    (folder / "table.md").write_text(
        "# Title\n\nMeasured elsewhere.\n\n| row | x |\n|---|---|\n| 4 | 65 |\n\n"
        "## Differences\n\nPaired.\n\n| row | y |\n|---|---|\n| 4 | +2 |\n\n"
        "The deck's own figures, of another measurement.\n\n| row | z |\n|---|---|\n| 4 | 63 |\n"
    )
    (folder / "row-4-curves.png").write_bytes(b"")
    there = section(page(out), "slide-17")
    assert "Published with the package" in there and "Measured elsewhere." in there
    _, shown, differences, of_deck = tables(there)  # the deck's own above
    assert of_deck["", "z"] == ["63"] and "clothing): the deck's own figures**" in there
    assert (shown["", "x"], differences["", "y"]) == (["65"], ["+2"])
    assert "clothing): differences**" in there
    assert shown_pictures(there)[0][1].endswith("fewshot_convnext_clothing/row-4-curves.png")
    made(out, "fewshot_convnext", rows=["4"])
    assert "Published" not in page(out)


def test_recipes_of_the_users_own_stand_beyond_the_slides(out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(
        "title: Mine\ncolumns: {}\nsettings: {model: baseline, weights: random, data: digits}\n"
        "rows: [{row: 7}]\n"
    )
    results = made(out, "mine.yaml", profile="own")
    text = table.build(recipe.read("mine.yaml"), results, "python -m keras_cnn recipe mine.yaml")
    files.write_text(out / "mine" / "table.json", table.as_json(text))
    for name, command in (("gone", "… recipe gone.yaml"), ("cut", "… recipe"), ("odd", "'")):
        (out / name).mkdir()
        text = json.dumps({"lines": [], "command": command})
        (out / name / "table.json").write_text(text)
    report.report(out, out)
    assert "1 of 6 recipes have results" in capsys.readouterr().out
    (shown,) = tables(section((out / "report.md").read_text(), "recipe-mine"))
    assert shown["", "row"] == ["7"]


def test_the_page_begins_with_whose_order_holds_and_what_defects_cost(out):
    third = "  - {row: 5, settings: {l2: 0.2}, deck: {test_accuracy: 40}}\n"
    (reader.folder() / "fewshot_convnext.yaml").write_text(CURVES + third)
    assert "In short" not in page(out)
    results = made(out, "fewshot_convnext")
    text = section(page(out), "summary")
    (order,) = tables(text)
    means = {row: finals(results, row, "corrected").mean() for row in ("1", "4", "5")}
    ranked = sorted(means, key=means.get, reverse=True)
    assert order["", "the deck's best"] == ["row 4 (63)"]
    assert order["", "best here"][0].startswith(f"row {ranked[0]} ({means[ranked[0]]:.1f}")
    place = ("1st", "2nd", "3rd")[ranked.index("4")]
    assert order["", "here"] == [f"{place} of 3 ({means['4']:.1f})"]
    # Spearman's, from its definition: 1 - 6 times the sum of d² by n (n² - 1).
    deck = ["4", "1", "5"]
    squares = sum((deck.index(row) - ranked.index(row)) ** 2 for row in deck)
    assert order["", "rank correlation"] == [f"{1 - 6 * squares / 24:.2f}"]
    assert "as run, the best of 3 stands" in words(text)


def test_the_decks_figures_stand_beside_ours_where_both_are_of_one_measurement(out):
    results = made(out, "fewshot_convnext", rows=["4"])
    part = section(page(out), "slide-17")
    (shown,) = tables(part)
    test = "test accuracy, percent"
    assert shown["", "row"] == ["1", "4"] and shown["", "n"] == ["0", str(REPEATS)]
    assert shown[test, "deck"] == ["50", "63"]
    for variant, heading in (("as_run", "as run"), ("corrected", "corrected")):
        values = finals(results, "4", variant)
        assert shown[test, heading] == ["-", f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"]
    assert shown[test, "as run, best"] == ["-", f"{finals(results, '4', 'as_run').max():.1f}"]
    text = words(part)
    assert "Rows not measured here yet (1): " in text and " --rows=all" in text
    assert "cinic10" in text and "baseline from random weights" in text and "torch" in text
    assert "a command for fewshot_convnext" in text


def test_figures_of_other_data_have_a_table_of_their_own(out):
    made(out, "fewshot_convnext", profile="mini")
    presented, ours = tables(section(page(out), "slide-17"))
    assert presented["", "test accuracy, percent"] == ["50", "63"]
    assert not [heading for heading in ours if "deck" in heading]
    text = words(section(page(out), "defect-1"))
    assert "fewshot_convnext (profile mini, data digits; not the deck's measurement)" in text


def test_only_runs_of_the_last_command_are_averaged(out):
    made(out, "fewshot_convnext", seed=1, data="another folder")
    results = made(out, "fewshot_convnext", seed=2)
    (shown,) = tables(section(page(out), "slide-17"))
    assert shown["", "n"] == [str(REPEATS)] * 2
    values = finals(results, "1", "as_run")
    assert shown["test accuracy, percent", "as run"][0].startswith(f"{values.mean():.1f} ±")


def test_settings_in_which_variants_differ_are_both_shown(out):
    made(out, "fewshot_methods")
    (shown,) = tables(section(page(out), "slide-19"))
    assert shown["", "distance"] == ["euclidean / squared_euclidean", "-", "-", "-"]
    assert shown["", "n"] == ["3", "3", "3", "0 / 3"]
    assert not [heading for group, heading in shown if "pairs" in group]  # nobody measured it


def test_damaged_and_missing_runs_are_one_line_each_and_the_rest_counts(out, capsys):
    results = made(out, "fewshot_convnext")
    shutil.rmtree(results[0].folder)
    (results[1].folder / "metrics.json").write_text("{")
    of = found(out, "fewshot_convnext")
    assert len(of.results) == len(results) - 2 and len(of.problems) == 2
    assert of.problems[0].endswith("gone") and "damaged" in of.problems[1]
    text = words(section(page(out), "slide-17"))
    assert all(f"Left out: {problem}." in text for problem in of.problems)
    report.report(out, out)
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"lines": 3, "command": ""}', None])
def test_a_damaged_table_is_one_line(out, content):
    made(out, "fewshot_convnext")
    path = out / "fewshot_convnext" / "table.json"
    path.unlink() if content is None else path.write_text(content)
    of = found(out, "fewshot_convnext")
    assert of.table is None and len(of.problems) == 1 and "table.json" in of.problems[0]
    text = words(section(page(out), "slide-17"))
    assert of.problems[0] in text and "Not measured here yet" in text


def test_runs_of_rows_the_recipe_has_no_longer_are_left_out(out):
    made(out, "fewshot_convnext")
    path = reader.folder() / "fewshot_convnext.yaml"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))  # without row 4
    of = found(out, "fewshot_convnext")
    assert {line.row for line in of.lines} == {"1"}
    assert len(of.problems) == 2 * REPEATS


def test_each_slide_has_its_own_pictures(out, drawn):
    made(out, "fewshot_convnext")
    made(out, "regularization")
    blocks = page(out)
    for anchor, names in (
        ("slide-11", {"grid.png", "rows.png"}),
        ("slide-17", {"rows.png"}),
        ("slide-18", {"row-4-curves.png"}),
        ("slide-23", {"row-4-as_run-confusion.png", "row-4-corrected-confusion.png"}),
    ):
        part = section(blocks, anchor)
        paths = [(out / path).resolve() for _, path in shown_pictures(part)]
        assert {path.name for path in paths} == names
        assert all(path.is_file() for path in paths)
    texts = [text for text, _ in shown_pictures(section(blocks, "slide-23"))]
    assert texts[0] == "Row 4, as run: confusion matrix (fewshot_convnext)"
    assert "A grid" in shown_pictures(section(blocks, "slide-11"))[0][0]
    link = markdown.link("the table of fewshot_convnext", "slide-17")
    assert link == "[the table of fewshot_convnext](#slide-17)"
    assert link in section(blocks, "slide-18")


def test_the_summaries_are_the_decks(out):
    part = section(page(out), "slide-3")
    totals = [one for one in tables(part) if ("", "deck") in one]
    assert len(totals) == 2
    for one in totals:
        assert one["", "here"] == one["", "deck"]
    assert totals[0]["", "here"][:2] == ["49,130", "969.15 M"]


def test_every_name_in_the_slides_file_is_known():
    words_ = slides.read()
    for defect in words_.defects:
        assert defect.measured and set(defect.measured.values()) <= sentences.SENTENCES.keys()
    numbers = [number for slide in words_.slides for number in slide.slides]
    assert numbers == list(range(2, 24))


def of_slides():
    """The recipes that some slide shows."""
    return [plan for plan in map(recipe.read, recipe.names()) if plan.slides]


def test_the_slides_of_evaluation_mode_that_sticks_are_those_of_the_recipes():
    sticks, bears_on = set(), set()
    for plan in of_slides():
        runs = [
            run
            for run in resolve.runs(plan, "deck", repeats=1)
            if run.place.variant == "as_run"
            and getattr(run.spec.training, "eval_mode_sticks", False)
        ]
        sticks.update(plan.slides if runs else ())
        networks = [run.spec.network for run in runs]
        changed = [n for n in networks if n.dropout or n.model in ("enhanced", "resnet18")]
        bears_on.update(plan.slides if changed else ())
    defect = next(defect for defect in slides.read().defects if defect.number == 2)
    assert defect.slides == sorted(bears_on)
    said = re.search(r"Slides ([\d, and]+) have the same loop", defect.text)
    # slide 10's network has neither dropout nor BatchNorm, so its recipe need not set it
    assert list(map(int, re.findall(r"\d+", said[1]))) == sorted(sticks - bears_on | {10})


def test_the_slides_of_weight_decay_are_those_of_the_recipes():
    decayed = set()
    for plan in of_slides():
        runs = resolve.runs(plan, "deck", repeats=1)
        if any(getattr(run.spec.training, "l2", 0) for run in runs):
            decayed.update(plan.slides)
    defect = next(defect for defect in slides.read().defects if defect.number == 4)
    assert defect.slides == sorted(decayed - {18, 23})  # of ConvNeXt's row 4, which has none


def test_the_figures_of_defect_2_are_the_notebooks():
    plan = recipe.read("regularization")
    assert "notebooks" in plan.deck_figures
    runs = resolve.runs(plan, "deck", repeats=1, variant="as_run")
    mild = {run.place.row for run in runs if run.spec.training.l2 == 0.0001}
    accuracies = [row.deck.train_accuracy for row in plan.rows if str(row.row) in mild]
    defect = next(defect for defect in slides.read().defects if defect.number == 2)
    low, high = min(accuracies), max(accuracies)
    wanted = f"the notebooks of slides 11 and 12 give train accuracies from {low} to {high}"
    assert wanted in defect.deck and len(accuracies) == 4


# How it is written


def test_the_html_page_is_whole_and_needs_nothing_else(out, drawn, tmp_path):
    made(out, "fewshot_convnext")
    made(out, "regularization", profile="mini")
    report.report(out, tmp_path / "site")
    text = (tmp_path / "site" / "report.html").read_text(encoding="utf-8")
    reader = Reader(text)
    assert ("html", "en") in reader.all("lang")
    assert "script" not in reader.tags and "link" not in reader.tags and "iframe" not in reader.tags
    assert "@import" not in text and "url(" not in text
    sources = [source for _, source in reader.all("src")]
    assert len(sources) == 6  # two of which compare rows
    pictures = {path.read_bytes() for path in out.glob("*/*.png")}
    for source in sources:
        kind, content = source.split(",")
        assert kind == "data:image/png;base64" and base64.b64decode(content) in pictures
    ids = Counter(value for _, value in reader.all("id"))
    assert max(ids.values()) == 1
    links = [value for _, value in reader.all("href")]
    assert links and all(value.startswith("#") and value[1:] in ids for value in links)
    images = [attrs for tag, attrs in reader.attributes if tag == "img"]
    assert all(attrs["alt"].strip() and int(attrs["width"]) > 0 for attrs in images)
    levels = [int(tag[1]) for tag in reader.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    contents = [attrs["href"] for tag, attrs in reader.attributes if attrs.get("href")]
    assert {f"#slide-{n}" for n in (2, 3, 5, 17, 23)} <= set(contents)


def test_names_are_escaped_in_html_and_in_markdown(out, tmp_path):
    made(out, "fewshot_convnext", data=HOSTILE)
    report.report(out, out)
    reader = Reader((out / "report.html").read_text(encoding="utf-8"))
    assert "i" not in reader.tags and f"data {HOSTILE}, " in "".join(reader.text)
    text = (out / "report.md").read_text(encoding="utf-8")
    escaped = markdown.escape(HOSTILE)
    assert escaped == r'a_b\_ \<i\>\|c\| \`d\` & "e" \*f\* \$g\$ \&lt;' and escaped in text
    assert "<i" not in text.replace(r"\<i", "")


def test_markdown_reads_back_as_what_was_meant(tmp_path):
    (tmp_path / "a b").mkdir()
    assert markdown.prose("a_ `b_` c") == "a\\_ `b_` c" and markdown.prose("`b`") == "`b`"
    parts = [
        markdown.heading(2, "A_part_ *here*", "part"),
        markdown.escape("x_y <b> [z] 1*2*3 ") + markdown.code("a | `b` ``c``"),
        markdown.link("to", "part"),
        markdown.missing(f"missing {markdown.code('make it')}"),
        markdown.problem("a *file*: gone"),
        markdown.table(
            "A table", [Column("row", ["a|b"]), Column("deck", ["1"], "test, percent", True)]
        ),
        markdown.picture(tmp_path / "a b" / "c.png", "What [it] shows", tmp_path / "site"),
    ]
    assert "\n\n".join(parts).splitlines() == [
        '## <a id="part"></a>A_part\\_ \\*here\\*', "",
        "x_y \\<b\\> \\[z\\] 1\\*2\\*3 ``` a | `b` ``c`` ```", "",
        "[to](#part)", "",
        "> missing `make it`", "",
        "> **Left out:** a \\*file\\*: gone.", "",
        "**A table**", "",
        "| row  | test, percent: deck |",
        "|------|--------------------:|",
        "| a\\|b | 1                   |", "",
        "![What \\[it\\] shows](../a%20b/c.png)",
    ]  # fmt: skip


def test_html_tables_have_headings_over_headings(tmp_path):
    columns = [
        Column("row", ["<1>"]),
        Column("deck", ["2"], "test", True),
        Column("as run", ["3"], "test", True),
    ]
    text = f"# T & t\n\n{markdown.table('A <table>', columns)}"
    reader = Reader(to_html.render(text, tmp_path))
    assert reader.all("colspan") == [("th", "2")] and reader.all("rowspan") == [("th", "2")]
    assert [tag for tag in reader.tags if tag in ("th", "td")] == ["th"] * 5 + ["td"] * 2
    assert "<1>" in reader.text and "A <table>" in reader.text and "T & t" in reader.text
    assert [attrs.get("class") for tag, attrs in reader.attributes if tag == "td"] == ["number"] * 2


def test_spaces_that_indent_a_cell_stay(tmp_path):
    indented = "\N{NO-BREAK SPACE}" * 3 + "layer"
    text = f"# T\n\n{markdown.table('A', [Column('layer', [indented])])}"
    assert indented in Reader(to_html.render(text, tmp_path)).text


def test_the_command_writes_both_forms_and_says_where(out, drawn, tmp_path, capsys):
    made(out, "fewshot_convnext")
    assert main(["report", f"--out={out}", f"--to={tmp_path / 'site'}"]) == 0
    said = capsys.readouterr().out
    assert "1 of 5 recipes have results" in said
    for ending in ("md", "html"):
        assert (tmp_path / "site" / f"report.{ending}").is_file()
        assert str(tmp_path / "site" / f"report.{ending}") in said
    # pictures are named as seen from the page
    text = (tmp_path / "site" / "report.md").read_text()
    paths = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert len(paths) == 4
    for path in paths:
        assert (tmp_path / "site" / path).resolve().is_file()
    assert main(["report", f"--out={out}"]) == 0 and (out / "report.html").is_file()


def test_a_folder_that_cannot_be_written_is_one_line(out, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["report", f"--out={out}", f"--to={tmp_path / 'file'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_page_says_how_to_make_it_again_in_the_same_place(out, tmp_path):
    out.mkdir()
    other = tmp_path / "other"
    for to, words_ in ((out, f"--out={out}`"), (other, f"--out={out} --to={other}`")):
        report.report(out, to)
        assert (to / "report.md").read_text().rstrip().endswith(words_)


def test_the_same_results_give_the_same_page(out):
    made(out, "fewshot_convnext")
    report.report(out, out)
    first = [(out / f"report.{ending}").read_bytes() for ending in ("md", "html")]
    report.report(out, out)
    assert [(out / f"report.{ending}").read_bytes() for ending in ("md", "html")] == first
