from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from keras_cnn import recipe
from keras_cnn.errors import UserError
from keras_cnn.recipe import resolve, schema, strict_yaml

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
        ("  as_run:", "  as/run:", 7, "pattern"),
        ("  as_run:", "  both:", 7, "'both'"),
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


FEW_SHOT = {"shots": 100, "test_shots": 100, "seed": 213, "schedule_factor": 0.5}
CONVNEXT = {**FEW_SHOT, "model": "convnext_tiny", "unfrozen_stages": 2, "batch_size": 16}
ROW_4 = {**CONVNEXT, "learning_rate": 1e-4, "schedule": "step", "schedule_epochs": 5}
WHOLE = {"shots": None, "test_shots": None, "batch_size": 64}
SGD = {**WHOLE, "optimizer": "sgd", "momentum": 0.9, "epochs": 30}
# The deck's tables, typed anew: what all rows share; the settings in which they differ; the rows,
# each of these settings and then the figures, several on a line where they are short. Figures are
# those the slides print, accuracies in train and test, or means of the published runs.
DECK = {
    "fewshot_resnet": (
        {**FEW_SHOT, "model": "resnet18", "batch_size": 16},
        "optimizer momentum l2 learning_rate unfrozen_stages head epochs",
        """
        adam  0    0 .010 2 dense  20   94 41
        adam  0    0 .001 2 dense  30  100 44
        adam  0    0 1e-4 2 dense  20  100 41
        sgd  .9 5e-4 .001 2 dense  20  100 43
        adam  0    0 .001 3 dense  20   93 43
        adam  0    0 .001 1 dense  20   94 36
        adam  0    0 .001 2 cosine 30   90 44
        """,
    ),
    "fewshot_convnext": (
        CONVNEXT,
        "optimizer momentum l2 learning_rate schedule schedule_epochs epochs",
        """
        adam  0    0 .001 constant  5 20   98 50
        adam  0    0 1e-4 constant  5 20  100 60
        adam  0    0 1e-5 constant  5 20  100 59
        adam  0    0 1e-4 step      5 20  100 63
        sgd  .9 5e-4 1e-4 constant  5 15  100 60
        sgd  .9 5e-4 1e-4 cosine   10 15   98 59
        """,
    ),
    "fewshot_methods": (
        {**FEW_SHOT, "optimizer": "adam", "learning_rate": 1e-4},
        "method model l2 schedule epochs batch_size",
        """
        prototypical convnext_tiny 1e-4 step     30 128   47 46
        siamese      siamese_cnn      0 constant 30  32   49 51
        maml         resnet18         0 constant 10 128  100 14
        """,
    ),
    "fewshot_regularization": (
        ROW_4,
        "dropout l2 epochs",
        """
        0 0    20 100 61  .25 0  20 100 60  .5 0   20 100 61  .75 0  10 100 59
        0 1e-5 10 100 60  0 1e-4 10 100 61  0 1e-3 10 100 60  0 1e-2 10 100 59
        0 1e-1 10  92 54  0 1    10  51 47
        """,
    ),
    "fewshot_16_images": ({**ROW_4, "shots": 16}, "epochs", "10 100.0 44.4"),
    "fewshot_augmentation": (
        {**ROW_4, "epochs": 10},
        "augment",
        "flip 100 61  rotation 100 55  jitter 100 59  mixed 100 54  cutmix 100 39  none null null",
    ),
    "fewshot_basic": (
        {**FEW_SHOT, "model": "fewshot_cnn", "dropout": 0.5, "optimizer": "adam", "epochs": 30},
        "learning_rate batch_size",
        ".001 16 100.0 33.2  1e-4 16 57.8 33.6  .01 16 8.2 10.0",
    ),
    "overfitting": (
        {**WHOLE, "model": "enhanced", "dropout": 0.5, "optimizer": "adam"},
        "hidden_units learning_rate epochs",
        "32 1e-4 30 96 66",
    ),
    "reliability": (
        {**WHOLE, "model": "baseline", "optimizer": "sgd", "momentum": 0},
        "hidden_units learning_rate epochs",
        "10 .01 15 49 46",
    ),
    "regularization": (
        {**SGD, "model": "baseline", "hidden_units": 15, "learning_rate": 0.01},
        "dropout l2",
        """
        .00 0 60.7 56.4  .00 1e-4 60.9 56.1  .00 1e-3 60.4 57.0  .00 .01 51.0 49.7  .00 .05 10 10
        .25 0 60.7 56.2  .25 1e-4 60.9 56.4  .25 1e-3 60.3 56.8  .25 .01 50.8 50.3  .25 .05 10 10
        .50 0 60.8 56.3  .50 1e-4 60.6 56.8  .50 1e-3 60.4 57.1  .50 .01 51.1 50.1  .5 .05 17.8 18.5
        .75 0 60.7 56.2  .75 1e-4 61.0 56.7  .75 1e-3 60.4 57.2  .75 .01 42.7 41.4  .75 .05 9.9 10
        """,
    ),
    "learning_rate_hidden_units": (
        {**SGD, "model": "baseline", "dropout": 0.75, "l2": 0.001},
        "learning_rate hidden_units",
        """
        .01  10 56.1 54.1  .01  20 63.3 58.9  .01  30 67.8 61.1  .01  40 71.0 62.6
        .01  50 73.8 62.7  .01  60 76.2 63.6  .01  70 78.1 63.5  .01  80 80.0 63.3
        .001 10 54.2 52.6  .001 20 60.2 57.2  .001 30 63.1 59.5  .001 40 64.9 60.7
        .001 50 66.5 61.8  .001 60 67.6 62.2  .001 70 68.8 62.4  .001 80 69.8 62.6
        1e-4 10 30.8 30.6  1e-4 20 39.8 39.4  1e-4 30 41.0 40.3  1e-4 40 42.5 42.0
        1e-4 50 43.2 42.2  1e-4 60 43.6 43.1  1e-4 70 44.1 43.4  1e-4 80 44.9 44.2
        """,
    ),
    "training_time": (
        {**SGD, "learning_rate": 0.01, "l2": 0.001},
        "model dropout hidden_units",
        """
        baseline .75 10 123.9  baseline .75  20 127.6  baseline .75 30 124.8  baseline .75 40 131.1
        baseline .75 50 151.7  baseline .75  60 153.5  baseline .75 70 216.8  baseline .75 80 205.8
        enhanced .5  10 141.1  enhanced .5   20 160.7  enhanced .5  30 155.9  enhanced .5  40 192.0
        enhanced .5  50 227.7  enhanced .5   60 257.0  enhanced .5  70 351.5  enhanced .5  80 356.8
        enhanced .5  90 445.0  enhanced .5  100 566.6
        """,
    ),
    "data_loader": (
        {**WHOLE, "model": "baseline", "hidden_units": 10, "epochs": 3},
        "feed workers pin_memory drop_last persistent_workers prefetch_batches",
        """
        files  0 false false false null  19.8
        files  2 false false false null  10.4
        files  2 true  false false null  10.5
        files  2 false true  false null  10.3
        files  6 false false false null   4.9
        files  6 true  false true  2      4.4
        memory 0 false false false null  null
        """,
    ),
}


@pytest.mark.parametrize("name", DECK)
def test_the_decks_settings_and_figures_are_in_the_recipes(name):
    shared, differing, table = DECK[name]
    plan = recipe.read(name)
    decks = {str(row.row): row.deck for row in plan.rows}
    shown = {field for deck in decks.values() for field in deck.model_dump(exclude_none=True)}
    columns = [*differing.split(), *sorted(shown, reverse=True)]  # train before test
    found = []
    for run in resolve.runs(plan, "deck", repeats=1, variant="as_run"):
        groups = (run.data, run.model, run.feeding, run.training, decks[run.row])
        values = {field: value for group in groups for field, value in group}
        assert values | shared == values
        found.append([values[column] for column in columns])
    cells = [strict_yaml.scalar(word) for word in table.split()]
    width = len(columns)
    assert found == [cells[at : at + width] for at in range(0, len(cells), width)]


# What the deck's notebooks did, each setting as run and corrected, typed from the list of defects.
STICKS = {"eval_mode_sticks": (True, False), "average_over": ("batches", "images")}
REDRAWN = {"redraw_shots": (False, True)}
FINE_TUNED = {
    **STICKS,
    **REDRAWN,
    "dropout_position": ("after_logits", "before_dense"),
    "frozen_statistics_move": (True, False),
}
AS_RUN_AND_CORRECTED = {
    "overfitting": {"1": STICKS},
    "regularization": {str(row): STICKS for row in range(1, 21)},
    "learning_rate_hidden_units": {str(row): STICKS for row in range(1, 25)},
    "fewshot_basic": {str(row): STICKS | REDRAWN for row in range(1, 4)},
    "fewshot_resnet": {str(row): FINE_TUNED for row in range(1, 8)},
    "fewshot_convnext": {str(row): FINE_TUNED for row in range(1, 7)},
    "fewshot_16_images": {"1": FINE_TUNED},
    "fewshot_regularization": {str(row): FINE_TUNED for row in range(1, 11)},
    "fewshot_augmentation": {
        str(row): FINE_TUNED | {"augment_share": (1.0, 0.5), "augment_once": (True, False)}
        for row in range(1, 7)
    },
    "fewshot_methods": {
        "prototypical": {
            **REDRAWN,
            "episodes": ("split_batches", "disjoint"),
            "distance": ("euclidean", "squared_euclidean"),
            "normalised": (True, False),
        },
        "siamese": {
            **REDRAWN,
            "labels_inverted": (True, False),
            "pairs": ("random", "balanced"),
            "threshold": ("half_margin", "fitted"),
            "test_on": ("pairs", "classes"),
        },
        "maml": {
            **REDRAWN,
            "detached_copy": (True, False),
        },
    },
}


@pytest.mark.parametrize("name", recipe.names())
def test_the_variants_differ_in_the_defects_and_in_nothing_else(name):
    variants = {}
    for run in resolve.runs(recipe.read(name), "deck", repeats=1):
        variants.setdefault(run.row, {})[run.variant] = run.settings
    found = {
        row: {
            key: (value, of["corrected"][key])
            for key, value in of["as_run"].items()
            if value != of["corrected"][key]
        }
        for row, of in variants.items()
        if len(of) == 2
    }
    assert found == AS_RUN_AND_CORRECTED.get(name, {})


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("training_time", {"eval_mode_sticks": True, "average_over": "batches"}),
        ("data_loader", {"average_over": "batches"}),
        ("reliability", {"average_over": "batches"}),
    ],
)
def test_what_has_no_corrected_variant_is_run_as_the_deck_did(name, settings):
    for run in resolve.runs(recipe.read(name), "deck", repeats=1):
        assert run.variant == "as_run" and run.settings | settings == run.settings


def test_what_a_stand_in_needs_set_is_not_for_the_network_of_the_command_line():
    def maml(**overrides):
        plan = recipe.read("fewshot_methods")
        (run,) = resolve.runs(plan, "mini", ["maml"], "corrected", 1, overrides)
        return run.model.model, run.model.weights, run.training.inner_learning_rate

    assert maml() == ("fewshot_cnn", "random", 0.1)
    assert maml(model="resnet18", weights="bundled") == ("resnet18", "bundled", 0.01)
    assert maml(model="baseline") == ("baseline", "random", 0.01)


def test_the_three_methods_of_slide_19_have_their_own_settings_as_in_the_deck():
    wanted = {
        "prototypical": {"schedule_epochs": 5, "support_images": 100, "embedding": 128}
        | {"normalised": True, "distance": "euclidean", "episodes": "split_batches"},
        "siamese": {"image_size": 64, "embedding": 128, "margin": 1.0, "unfrozen_stages": None}
        | {"pairs": "random", "labels_inverted": True, "test_on": "pairs"},
        "maml": {"inner_steps": 5, "copy_learning_rate": 1e-3, "unfrozen_stages": None}
        | {"detached_copy": True, "weights": "pretrained"},
    }
    plan = recipe.read("fewshot_methods")
    for run in resolve.runs(plan, "deck", rows=list(wanted), repeats=1, variant="as_run"):
        groups = (run.data, run.model, run.training)
        values = {field: value for group in groups for field, value in group}
        assert {field: values[field] for field in wanted[run.row]} == wanted.pop(run.row)
    assert not wanted


def test_no_other_row_has_figures_of_the_deck():
    for name in recipe.names():
        plan = recipe.read(name)
        for row in plan.rows:
            typed = name in DECK and "as_run" in plan.variants_of(row)
            assert typed or row.deck == schema.Deck(), (name, row.row)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 0.0001), ("1e5", 1e5), (".5", 0.5), ("3", 3), ("-3", -3), ("010", 10), ("08", 8),
        ("true", True),
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
        "import sys; from keras_cnn import recipe; "
        "from keras_cnn.recipe import resolve; from keras_cnn.runs import engine; "
        "from keras_cnn.results import table; "
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
