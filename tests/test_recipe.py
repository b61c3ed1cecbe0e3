from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from keras_cnn import recipe, resolve, strict_yaml
from keras_cnn.errors import UserError

RECIPE = """\
title: A recipe
columns: {rate: learning_rate}
settings:
  model: resnet18
  learning_rate: 1e-4
variants:
  as_run: {eval_mode_sticks: true}
  corrected: {}
profiles:
  deck: {}
  mini: {repeats: 2, settings: {epochs: 3, data: digits}}
rows:
  - row: 1
    deck: {train_accuracy: 90, test_accuracy: 40}
  - row: 2
    settings: {learning_rate: 0.5, epochs: 7}
"""


@pytest.fixture
def written(tmp_path):
    def write(text=RECIPE):
        path = tmp_path / "trial.yaml"
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def complaint(function, *arguments, **settings):
    with pytest.raises(UserError) as raised:
        function(*arguments, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_row_wins_over_the_recipe_the_profile_over_the_row_the_command_line_over_all(written):
    plan = recipe.read(written())
    first, _, second, *_ = resolve.runs(plan, "deck")
    assert (first.training.learning_rate, second.training.learning_rate) == (0.0001, 0.5)
    assert second.training.epochs == 7
    assert resolve.runs(plan, "mini", rows=["2"])[0].training.epochs == 3
    overridden = resolve.runs(plan, "mini", rows=["2"], overrides={"epochs": 5})
    assert overridden[0].training.epochs == 5


def test_runs_come_repeat_by_repeat_and_count_rows_variants_repeats(written):
    plan = recipe.read(written())
    runs = resolve.runs(plan, "mini")
    assert [(run.repeat, run.row, run.variant) for run in runs] == [
        (repeat, row, variant)
        for repeat in (0, 1)
        for row in ("1", "2")
        for variant in ("as_run", "corrected")
    ]
    assert len(resolve.runs(plan, "deck")) == 5 * 2 * 2
    assert [run.training.eval_mode_sticks for run in runs[:2]] == [True, False]


def test_shots_are_shared_over_repeats_only_when_not_redrawn(written):
    plan = recipe.read(written())
    shared = resolve.runs(plan, "deck", rows=["1"], overrides={"redraw_shots": False})
    redrawn = resolve.runs(plan, "deck", rows=["1"], overrides={"redraw_shots": True})
    assert {run.shots_seed for run in shared} == {213}
    assert sorted({run.shots_seed for run in redrawn}) == [213, 214, 215, 216, 217]
    assert sorted({run.training_seed for run in shared}) == [213, 214, 215, 216, 217]


def test_only_the_decks_own_settings_stand_beside_the_decks_numbers(written):
    plan = recipe.read(written())
    assert all(run.comparable for run in resolve.runs(plan, "deck"))
    assert not any(run.comparable for run in resolve.runs(plan, "mini"))
    assert not any(run.comparable for run in resolve.runs(plan, "deck", overrides={"data": "x"}))


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("columns:", "colums:", 2, "'columns'"),
        ("learning_rate: 1e-4", "learning_rat: 1e-4", 5, "'learning_rate'"),
        ("learning_rate: 1e-4", "learning_rate: fast", 5, "'fast'"),
        ("learning_rate: 1e-4", "learning_rate: -1", 5, "greater than 0"),
        ("learning_rate: 0.5, epochs: 7", "learning_rate: 0.5, epochs: 7.5", 16, "7.5"),
        ("  model: resnet18", "  model: resnet18\n  model: other", 5, "second time"),
        ("test_accuracy: 40", "test_acuracy: 40", 14, "'test_accuracy'"),
        ("repeats: 2", "repeat: 2", 11, "'repeats'"),
        ("row: 2", "row: 1", 15, "second time"),
        ("rate: learning_rate}", "rate: learning}", 2, "'learning_rate'"),
        ("eval_mode_sticks: true", "eval_mode_sticks: yes", 7, "'yes'"),
        ("title: A recipe", "title: [", 3, "expected"),
        ("  deck: {}\n", "", 1, "'deck'"),
    ],
)
def test_a_wrong_recipe_names_file_line_and_the_nearest_right_name(written, old, new, line, words):
    assert RECIPE.count(old) == 1
    text = complaint(recipe.read, written(RECIPE.replace(old, new)))
    assert words in text
    if old != "  deck: {}\n":
        assert f"trial.yaml:{line}:" in text


def test_wrong_names_on_the_command_line_give_the_nearest(written):
    plan = recipe.read(written())
    assert "'as_run'" in complaint(resolve.runs, plan, "mini", variant="as_runs")
    assert "'mini'" in complaint(resolve.runs, plan, "mino")
    assert "(1, 2)" in complaint(resolve.runs, plan, "mini", rows=["3"])
    assert "'epochs'" in complaint(resolve.runs, plan, "mini", overrides={"epoch": 1})
    assert "'fewshot_convnext'" in complaint(recipe.read, "fewshot_convnxt")


@pytest.mark.parametrize("name", recipe.names())
def test_every_recipe_of_the_package_reads_and_gives_runs(name):
    plan = recipe.read(name)
    for profile in plan.profiles:
        assert resolve.runs(plan, profile)


def test_the_decks_figures_and_epochs_are_in_the_recipes():
    # deck.md's tables, typed anew: train / test accuracy, epochs
    figures = {
        "fewshot_resnet": [
            (94, 41, 20), (100, 44, 30), (100, 41, 20), (100, 43, 20), (93, 43, 20), (94, 36, 20),
            (90, 44, 30),
        ],
        "fewshot_convnext": [
            (98, 50, 20), (100, 60, 20), (100, 59, 20), (100, 63, 20), (100, 60, 15), (98, 59, 15),
        ],
    }  # fmt: skip
    for name, rows in figures.items():
        plan = recipe.read(name)
        runs = resolve.runs(plan, "deck", repeats=1, variant="as_run")
        found = [
            (row.deck.train_accuracy, row.deck.test_accuracy, run.training.epochs)
            for row, run in zip(plan.rows, runs, strict=True)
        ]
        assert found == rows
        assert {(run.data.shots, run.data.test_shots, run.data.seed) for run in runs} == {
            (100, 100, 213)
        }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001), ("1e5", 1e5), (".5", 0.5), ("3", 3), ("-3", -3), ("true", True),
        ("no", "no"), ("on", "on"), ("null", None), ("12:30", "12:30"), ("0x1F", "0x1F"),
        ("cinic10", "cinic10"), ("1_000", "1_000"), ("[1, 2.5]", [1, 2.5]),
    ],
)  # fmt: skip
def test_scalars_are_yaml_1_2(text, value):
    read = strict_yaml.scalar(text)
    assert read == value and type(read) is type(value)


def test_yaml_builds_no_objects(tmp_path):
    marker = tmp_path / "executed"
    text = f"!!python/object/apply:os.mkdir ['{marker}']"
    with pytest.raises(UserError):
        strict_yaml.scalar(text)
    path = tmp_path / "evil.yaml"
    path.write_text(f"title: {text}\n")
    assert "evil.yaml:1:" in complaint(strict_yaml.read, path)
    assert not marker.exists()


def test_reading_recipes_imports_no_framework():
    code = (
        "import sys; from keras_cnn import recipe, resolve, engine, table; "
        "resolve.runs(recipe.read('fewshot_convnext'), 'mini'); "
        "print({'keras', 'torch', 'tensorflow', 'jax', 'sklearn'} & set(sys.modules))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert printed.strip() == "set()"


METHODS_RECIPE = """\
title: Several methods
columns: {method: method}
settings: {model: convnext_tiny, weights: random, batch_size: 8, epochs: 2}
variants:
  as_run: {labels_inverted: true, eval_mode_sticks: true}
  corrected: {}
profiles:
  deck: {}
  mini:
    networks: {convnext_tiny: {model: convnext_atto, weights: bundled}}
    settings: {epochs: 1}
rows:
  - row: tuned
  - row: pairs
    settings: {method: siamese, model: siamese_cnn, margin: 0.5}
  - row: probe
    settings: {method: linear_probe}
    variants: [corrected]
"""


def test_a_row_takes_of_the_shared_settings_those_of_its_method(written):
    plan = recipe.read(written(METHODS_RECIPE))
    runs = {(run.row, run.variant): run for run in resolve.runs(plan, "deck", repeats=1)}
    assert list(runs) == [
        ("tuned", "as_run"),
        ("tuned", "corrected"),
        ("pairs", "as_run"),
        ("pairs", "corrected"),
        ("probe", "corrected"),
    ]
    assert runs["tuned", "as_run"].training.eval_mode_sticks
    pairs = runs["pairs", "as_run"].training
    assert pairs.labels_inverted and (pairs.margin, pairs.batch_size, pairs.epochs) == (0.5, 8, 2)
    assert runs["probe", "corrected"].training.epochs == 1
    for run in runs.values():  # what a process of its own is told comes back the same
        assert resolve.Run.model_validate(run.model_dump()) == run


def test_networks_of_a_profile_stand_in_by_name_and_the_command_line_wins(written):
    plan = recipe.read(written(METHODS_RECIPE))

    def models(profile, **overrides):
        runs = resolve.runs(plan, profile, repeats=1, variant="corrected", overrides=overrides)
        return [(run.model.model, run.model.weights) for run in runs]

    atto, siamese = ("convnext_atto", "bundled"), ("siamese_cnn", "random")
    assert models("deck") == [("convnext_tiny", "random"), siamese, ("convnext_tiny", "random")]
    assert models("mini") == [atto, siamese, atto]
    assert [name for name, _ in models("mini", model="baseline")] == ["baseline"] * 3
    assert {weights for _, weights in models("mini", weights="random")} == {"random"}


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("margin: 0.5", "margi: 0.5", 15, "'margin'"),
        ("margin: 0.5", "eval_mode_sticks: true", 15, "'eval_mode_sticks'"),  # another method's
        ("method: siamese", "method: siamees", 15, "'siamese'"),
        ("variants: [corrected]", "variants: [correct]", 18, "'corrected'"),
        ("labels_inverted: true", "labels_invertd: true", 5, "no setting 'labels_invertd'"),
    ],
)
def test_a_row_names_its_own_methods_settings_only(written, old, new, line, words):
    assert METHODS_RECIPE.count(old) == 1
    text = complaint(recipe.read, written(METHODS_RECIPE.replace(old, new)))
    assert f"trial.yaml:{line}: " in text and words in text


def test_the_command_line_is_refused_what_no_run_has(written):
    plan = recipe.read(written(METHODS_RECIPE))
    assert resolve.runs(plan, "deck", overrides={"margin": 2.0})  # the pairs have one
    text = complaint(resolve.runs, plan, "deck", rows=["tuned"], overrides={"margin": 2.0})
    assert "supervised has no 'margin'" in text
    text = complaint(resolve.runs, plan, "deck", rows=["probe"], variant="as_run")
    assert "is run as_run" in text
