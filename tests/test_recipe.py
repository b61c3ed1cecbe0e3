from __future__ import annotations

import sys
import textwrap

import pytest

from keras_cnn import recipe
from keras_cnn.errors import UserError
from keras_cnn.methods.settings import DEFAULT_SEED
from keras_cnn.recipe import resolve, schema, strict_yaml
from keras_cnn.recipe.spec import Run

RECIPE = """\
title: A recipe
columns: {rate: learning_rate}
settings:
  model: resnet18
  learning_rate: 1e-4
variants:
  as_run: {methods: {supervised: {method: supervised_as_run, eval_mode_sticks: true}}}
  corrected: {}
profiles:
  deck: {}
  mini: {repeats: 2, settings: {epochs: 3, data: digits}}
rows:
  - row: 1
    deck: {train_accuracy: 90, test_accuracy: 40}
  - row: 2
    settings: {learning_rate: 0.5, epochs: 7}
    profiles: {mini: {epochs: 4}}
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


def settings_of(plan, profile, row, **options):
    """All settings of a row's first run."""
    return resolve.runs(plan, profile, rows=[row], **options)[0].spec.settings


def test_the_last_word_is_the_rows_then_the_profiles_then_the_command_lines(written):
    plan = recipe.read(written())
    assert settings_of(plan, "deck", "1")["learning_rate"] == 0.0001
    assert settings_of(plan, "deck", "2")["learning_rate"] == 0.5
    assert settings_of(plan, "deck", "1")["epochs"] == 20  # the method's default
    assert settings_of(plan, "deck", "2")["epochs"] == 7
    assert settings_of(plan, "mini", "1")["epochs"] == 3
    assert settings_of(plan, "mini", "2")["epochs"] == 4
    assert settings_of(plan, "mini", "2", overrides={"epochs": 5})["epochs"] == 5


def test_runs_come_repeat_by_repeat_and_count_rows_variants_repeats(written):
    plan = recipe.read(written())
    runs = resolve.runs(plan, "mini")
    assert [(run.place.repeat, run.place.row, run.place.variant) for run in runs] == [
        (repeat, row, variant)
        for repeat in (0, 1)
        for row in ("1", "2")
        for variant in ("as_run", "corrected")
    ]
    assert len(resolve.runs(plan, "deck")) == 5 * 2 * 2
    assert [run.spec.method for run in runs[:2]] == ["supervised_as_run", "supervised"]
    assert runs[0].spec.training.eval_mode_sticks


@pytest.mark.parametrize("drawn", ["shots", "test_shots"])
def test_shots_are_shared_over_repeats_only_when_not_redrawn(written, drawn):
    plan = recipe.read(written())

    def seeds(**overrides):
        runs = resolve.runs(plan, "deck", ["1"], "corrected", overrides=overrides)
        return [(run.spec.seed, run.spec.shots_seed) for run in runs]

    repeats = [5, 6, 7, 8, 9]
    assert seeds(**{drawn: 10}, seed=5) == [(seed, seed) for seed in repeats]
    assert seeds(**{drawn: 10}, seed=5, redraw_shots=False) == [(seed, 5) for seed in repeats]
    assert seeds(seed=5) == [(seed, DEFAULT_SEED) for seed in repeats]  # nothing is drawn


def test_only_the_decks_own_settings_stand_beside_the_decks_numbers(written):
    plan = recipe.read(written())

    def comparable(profile, **options):
        return {run.place.comparable for run in resolve.runs(plan, profile, **options)}

    assert comparable("deck") == {True}
    assert comparable("deck", overrides={"data": "cinic10"}) == {True}  # as it is there
    assert comparable("deck", backend="jax") == {True}
    assert comparable("mini") == {False}
    assert comparable("deck", overrides={"data": "x"}) == {False}


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
        ("eval_mode_sticks: true", "eval_mode_stick: true", 7, "'eval_mode_sticks'"),
        ("supervised_as_run,", "supervised_as_ran,", 7, "'supervised_as_run'"),
        ("title: A recipe", "title: [", 3, "expected"),
        ("  as_run:", "  as/run:", 7, "pattern"),
        ("  as_run:", "  both:", 7, "'both'"),
        ("mini: {epochs: 4}", "mini: {epochs: 4, epoch: 4}", 17, "'epochs'"),
        ("mini: {epochs: 4}", "mini: {epochs: 4}, mino: {}", 17, "'mini'"),
        ("repeats: 2,", "repeats: 2, length: 0,", 11, "greater than 0"),
        ("repeats: 2,", "repeats: 2, rows: [1, 3],", 11, "no row '3'"),
        ("repeats: 2,", "repeats: 2, rows: [],", 11, "at least 1 item"),
        ("supervised: {m", "supervized: {m", 7, "'supervised'"),
        ("title: A recipe", "reference: 3\ntitle: A recipe", 1, "no row '3'"),
        ("title: A recipe", "method_notes: {mamml: x}\ntitle: A recipe", 1, "'maml'"),
    ],
)
def test_a_wrong_recipe_names_file_line_and_the_nearest_right_name(written, old, new, line, words):
    assert RECIPE.count(old) == 1
    text = complaint(recipe.read, written(RECIPE.replace(old, new)))
    assert words in text and f"trial.yaml:{line}:" in text


def test_a_recipe_of_slides_needs_their_own_measurement(written):
    path = written(RECIPE.replace("  deck: {}\n", ""))
    assert "deck" not in recipe.read(path).profiles
    path = written(RECIPE.replace("  deck: {}\n", "").replace("columns:", "slides: [1]\ncolumns:"))
    assert "profiles needs 'deck'" in complaint(recipe.read, path)


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
        prototypical_split_batches convnext_tiny 1e-4 step     30 128   47 46
        siamese_inverted           siamese_cnn      0 constant 30  32   49 51
        maml_detached              resnet18         0 constant 10 128  100 14
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
        values = run.spec.settings | decks[run.place.row].model_dump()
        assert values | shared == values
        found.append([values[column] for column in columns])
    cells = [strict_yaml.scalar(word) for word in table.split()]
    width = len(columns)
    assert found == [cells[at : at + width] for at in range(0, len(cells), width)]


# Rows and runs of every recipe of slides, repeats included, counted on the slides and from the list
# of what went wrong in them: what did is run as it was and corrected.
ROWS_AND_RUNS = {
    "backends": (3, 3 * 3),
    "data_loader": (7, 7 * 3),
    "fewshot_16_images": (1, 2 * 5),
    "fewshot_augmentation": (6, 6 * 2 * 5),
    "fewshot_basic": (3, 3 * 2 * 5),
    "fewshot_convnext": (6, 6 * 2 * 5),
    "fewshot_methods": (10, (3 * 2 + 7) * 5),
    "fewshot_regularization": (10, 10 * 2 * 5),
    "fewshot_resnet": (7, 7 * 2 * 5),
    "learning_rate_hidden_units": (24, 24 * 2 * 5),
    "overfitting": (1, 2 * 3),
    "regularization": (20, 20 * 2 * 5),
    "reliability": (1, 10),
    "training_time": (18, 18 * 3),
}


def test_recipes_of_slides_have_the_decks_rows_and_runs():
    plans = {name: recipe.read(name) for name in recipe.names()}
    assert {
        name: (len(plan.rows), len(resolve.runs(plan, "deck")))
        for name, plan in plans.items()
        if plan.slides
    } == ROWS_AND_RUNS


# What the deck's notebooks did, typed from the list of defects: the settings that are others than
# corrected, and those that no right method has (`ONLY`).
ONLY = "no such setting"
LOOP = {
    "method": ("supervised_as_run", "supervised"),
    "eval_mode_sticks": (True, ONLY),
    "frozen_statistics_move": (False, ONLY),
    "dropout_on_logits": (False, ONLY),
    "augment_once": (False, ONLY),
}
FINE_TUNED = {**LOOP, "frozen_statistics_move": (True, ONLY), "dropout_on_logits": (True, ONLY)}
# The draw of the shots is the same in each repeat: not of training's settings, see below.
AS_RUN_AND_CORRECTED = {
    "overfitting": {"1": LOOP},
    "regularization": {str(row): LOOP for row in range(1, 21)},
    "learning_rate_hidden_units": {str(row): LOOP for row in range(1, 25)},
    "fewshot_basic": {str(row): LOOP for row in range(1, 4)},
    "fewshot_resnet": {str(row): FINE_TUNED for row in range(1, 8)},
    "fewshot_convnext": {str(row): FINE_TUNED for row in range(1, 7)},
    "fewshot_16_images": {"1": FINE_TUNED},
    "fewshot_regularization": {str(row): FINE_TUNED for row in range(1, 11)},
    "fewshot_augmentation": {
        str(row): FINE_TUNED | {"augment_share": (1.0, 0.5), "augment_once": (True, ONLY)}
        for row in range(1, 7)
    },
    "fewshot_methods": {
        "prototypical": {
            "method": ("prototypical_split_batches", "prototypical"),
            "distance": ("euclidean", "squared_euclidean"),
            "normalised": (True, False),
            "batch_size": (128, ONLY),
            "support_images": (100, ONLY),
        },
        "siamese": {"method": ("siamese_inverted", "siamese")},
        "maml": {
            "method": ("maml_detached", "maml"),
            "copy_learning_rate": (0.001, ONLY),
            "batch_size": (128, ONLY),
        },
    },
}


def by_variant(name, repeats):
    """By row and variant, the settings of each repeat."""
    found = {}
    plan = recipe.read(name)
    profile = "deck" if plan.slides else next(iter(plan.profiles))
    for run in resolve.runs(plan, profile, repeats=repeats):
        of_row = found.setdefault(run.place.row, {})
        of_row.setdefault(run.place.variant, []).append(run.spec.settings)
    return found


@pytest.mark.parametrize("name", recipe.names())
def test_the_variants_differ_in_the_defects_and_in_nothing_else(name):
    found = {}
    for row, of in by_variant(name, repeats=1).items():
        if len(of) == 2:
            (as_run,), (corrected,) = of["as_run"], of["corrected"]
            pairs = {key: (value, corrected.get(key, ONLY)) for key, value in as_run.items()}
            found[row] = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    assert found == AS_RUN_AND_CORRECTED.get(name, {})


@pytest.mark.parametrize("name", [name for name in recipe.names() if name.startswith("fewshot")])
def test_as_run_the_shots_are_drawn_once_and_corrected_anew_for_each_repeat(name):
    for of in by_variant(name, repeats=3).values():
        for variant, repeats in of.items():
            drawn = {settings["shots_seed"] for settings in repeats}
            assert drawn == ({213} if variant == "as_run" else {213, 214, 215})


@pytest.mark.parametrize(
    ("name", "sticks"), [("training_time", True), ("data_loader", False), ("reliability", False)]
)
def test_what_has_no_corrected_variant_is_run_as_the_deck_did(name, sticks):
    for of in by_variant(name, repeats=1).values():
        ((variant, (settings,)),) = of.items()
        assert (variant, settings["method"]) == ("as_run", "supervised_as_run")
        assert settings["eval_mode_sticks"] == sticks


def test_what_a_stand_in_needs_set_is_not_for_the_network_of_the_command_line():
    def maml(**overrides):
        plan = recipe.read("fewshot_methods")
        (run,) = resolve.runs(plan, "mini", ["maml"], "corrected", 1, overrides)
        network = run.spec.network
        return network.model, network.weights, run.spec.training.inner_learning_rate

    assert maml() == ("fewshot_cnn", "random", 0.3)
    assert maml(model="resnet18", weights="bundled") == ("resnet18", "bundled", 0.01)
    assert maml(model="baseline") == ("baseline", "random", 0.01)


def test_the_three_methods_of_slide_19_have_their_own_settings_as_in_the_deck():
    wanted = {
        "prototypical": {"schedule_epochs": 5, "support_images": 100, "embedding": 128}
        | {"normalised": True, "distance": "euclidean", "method": "prototypical_split_batches"},
        "siamese": {"image_size": 64, "embedding": 128, "margin": 1.0, "unfrozen_stages": None}
        | {"method": "siamese_inverted"},
        "maml": {"inner_steps": 5, "copy_learning_rate": 1e-3, "unfrozen_stages": None}
        | {"method": "maml_detached", "weights": "pretrained"},
    }
    found = by_variant("fewshot_methods", repeats=1)
    for row, settings in wanted.items():
        (as_run,) = found[row]["as_run"]
        assert as_run | settings == as_run


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


def doubling(levels):
    """Aliases that make 9 ** levels entries of a few lines."""
    lines = ["a0: &a0 x"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("title: x\nrows: &a [*a]", 2, "inside of what it refers to"),
        ("title: x\nrows: &a\n  b: {c: *a}", None, "inside of what it refers to"),
        ("title: x\nrows: " + "[" * 100_000, 2, "nest"),
        ("title: x\nrows: " + "[" * 30 + "]" * 30, 2, "nested more than 20 deep"),
        ("\n".join("  " * depth + "a:" for depth in range(900)), None, "nest"),
        (doubling(9), None, "entries"),
        ("title: " + "x" * 2_000_000, None, "longer than"),
        ("title: x\nrepeats: " + "9" * 5000, 2, "cannot be read as int"),
        ("title: x\nrepeats: !!int many", 2, "'many' cannot be read as int"),
        ("title: x\nalone: !!bool perhaps", 2, "'perhaps' cannot be read as bool"),
        ("title: x\nnote: !!float low", 2, "'low' cannot be read as float"),
        ("title: x\nnote: !!seq low", 2, "'low' cannot be read as seq"),
        ("title: x\nnote: *none", 2, "undefined alias"),
        ("title: x\nnote: \x07", None, "control characters"),
        ("title: x\n---\ntitle: y", 2, "another document"),
    ],
)
def test_yaml_that_no_recipe_is_is_refused_in_one_line_and_at_once(written, text, line, words):
    said = complaint(recipe.read, written(text))
    assert words in said and len(said) < 300
    assert "trial.yaml:" in said and (line is None or f"trial.yaml:{line}: " in said)


@pytest.mark.parametrize("text", ["&a [*a]", "[" * 5000, "9" * 5000, "!!int x", "\x1b", "\udcff"])
def test_a_value_of_the_command_line_that_is_none_is_refused_in_one_line(text):
    assert "cannot be read as a value" in complaint(strict_yaml.scalar, text)


def test_an_alias_may_stand_where_it_does_not_refer_to_itself():
    assert strict_yaml.scalar("[&a {x: 1}, *a, [*a, *a]]") == [{"x": 1}] * 2 + [[{"x": 1}] * 2]


METHODS_RECIPE = """\
title: Several methods
columns: {method: method}
settings: {model: convnext_tiny, weights: random, batch_size: 8, epochs: 2}
variants:
  as_run:
    methods:
      supervised: {method: supervised_as_run, eval_mode_sticks: false}
      siamese: {method: siamese_inverted, margin: 2.0}
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
    runs = resolve.runs(plan, "deck", repeats=1)
    found = {(run.place.row, run.place.variant): run.spec for run in runs}
    assert {at: spec.method for at, spec in found.items()} == {
        ("tuned", "as_run"): "supervised_as_run",
        ("tuned", "corrected"): "supervised",
        ("pairs", "as_run"): "siamese_inverted",
        ("pairs", "corrected"): "siamese",
        ("probe", "corrected"): "linear_probe",
    }
    assert list(found) == [(run.place.row, run.place.variant) for run in runs]
    assert not found["tuned", "as_run"].training.eval_mode_sticks
    pairs = [found["pairs", variant].training for variant in ("as_run", "corrected")]
    assert [(one.margin, one.batch_size, one.epochs) for one in pairs] == [(2.0, 8, 2), (0.5, 8, 2)]
    assert found["probe", "corrected"].training.epochs == 1
    for run in runs:  # what a process of its own is told comes back the same
        assert Run.model_validate_json(run.model_dump_json()) == run


def test_networks_of_a_profile_stand_in_by_name_and_the_command_line_wins(written):
    plan = recipe.read(written(METHODS_RECIPE))

    def models(profile, **overrides):
        runs = resolve.runs(plan, profile, repeats=1, variant="corrected", overrides=overrides)
        return [(run.spec.network.model, run.spec.network.weights) for run in runs]

    atto, siamese = ("convnext_atto", "bundled"), ("siamese_cnn", "random")
    assert models("deck") == [("convnext_tiny", "random"), siamese, ("convnext_tiny", "random")]
    assert models("mini") == [atto, siamese, atto]
    assert [name for name, _ in models("mini", model="baseline")] == ["baseline"] * 3
    assert {weights for _, weights in models("mini", weights="random")} == {"random"}


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("margin: 0.5", "margi: 0.5", 18, "'margin'"),
        ("margin: 0.5", "eval_mode_sticks: true", 18, "'eval_mode_sticks'"),  # another method's
        ("method: siamese,", "method: siamees,", 18, "'siamese'"),
        ("variants: [corrected]", "variants: [correct]", 21, "'corrected'"),
        ("margin: 2.0", "margn: 2.0", 8, "no setting 'margn'"),
    ],
)
def test_a_row_names_its_own_methods_settings_only(written, old, new, line, words):
    assert METHODS_RECIPE.count(old) == 1
    text = complaint(recipe.read, written(METHODS_RECIPE.replace(old, new)))
    assert f"trial.yaml:{line}: " in text and words in text


def test_the_command_line_is_refused_what_no_run_has(written):
    plan = recipe.read(written(METHODS_RECIPE))
    assert resolve.runs(plan, "deck", overrides={"margin": 2.0})  # the pairs have one
    tuned = {"rows": ["tuned"], "variant": "corrected"}
    text = complaint(resolve.runs, plan, "deck", **tuned, overrides={"margin": 2.0})
    assert "supervised has no 'margin'" in text
    text = complaint(resolve.runs, plan, "deck", rows=["probe"], variant="as_run")
    assert "is run as_run" in text


PROFILES_RECIPE = """\
title: What a row has elsewhere
columns: {epochs: epochs}
settings: {model: baseline, weights: random, epochs: 10}
profiles:
  deck: {}
  mini: {settings: {data: digits, epochs: 2}}
  short: {settings: {data: digits}, length: 0.25}
rows:
  - row: shared
  - row: own
    settings: {epochs: 30, learning_rate: 0.01}
    profiles: {mini: {epochs: 6, learning_rate: 0.02}}
  - row: one
    settings: {epochs: 1}
    profiles: {mini: {epochs: 1}}
  - row: scheduled
    settings: {epochs: 20, schedule: step, schedule_epochs: 8}
    profiles: {mini: {epochs: 2}, short: {schedule_epochs: 3}}
"""


def test_a_profile_may_not_overwrite_what_a_row_sets(written):
    own = "    profiles: {mini: {epochs: 6, learning_rate: 0.02}}\n"
    text = complaint(recipe.read, written(PROFILES_RECIPE.replace(own, "")))
    assert "trial.yaml:6: profile mini sets epochs to 2 and row own to 30: " in text
    assert "profiles: {mini: {epochs: …}}" in text and "length: 0.5" in text
    assert recipe.read(
        written(
            PROFILES_RECIPE.replace(own, "")
            .replace("epochs: 2}", "epochs: 30}")
            .replace("mini: {epochs: 1}", "mini: {epochs: 2}")
        )
    )


def test_a_row_says_what_it_has_in_a_profile(written):
    plan = recipe.read(written(PROFILES_RECIPE))
    found = {row: settings_of(plan, "mini", row) for row in ("shared", "own", "one")}
    assert {row: of["epochs"] for row, of in found.items()} == {"shared": 2, "own": 6, "one": 1}
    assert found["own"]["learning_rate"] == 0.02
    assert settings_of(plan, "deck", "own")["learning_rate"] == 0.01  # there alone


def test_a_profile_shortens_epochs_and_schedules_of_each_row(written):
    plan = recipe.read(written(PROFILES_RECIPE))
    rows = ("shared", "own", "one", "scheduled")
    lengths = {row: settings_of(plan, "short", row) for row in rows}
    # 2.5 and 7.5 are rounded to the even number, and no count falls below 1.
    assert [lengths[row]["epochs"] for row in rows] == [2, 8, 1, 5]
    assert lengths["own"]["learning_rate"] == 0.01
    assert lengths["shared"]["schedule_epochs"] == 5  # it decides nothing: there is no schedule
    assert lengths["scheduled"]["schedule_epochs"] == 3  # the row's own word for this profile
    assert settings_of(plan, "short", "own", overrides={"epochs": 40})["epochs"] == 40


def test_a_profile_is_run_with_some_rows_and_a_command_with_others(written):
    text = PROFILES_RECIPE.replace("length: 0.25}", "length: 0.25, rows: [own, scheduled]}")
    plan = recipe.read(written(text))

    def rows_of(profile, rows=None):
        return [run.place.row for run in resolve.runs(plan, profile, rows, repeats=1)]

    assert rows_of("short") == ["own", "scheduled"]
    assert rows_of("short", ["one"]) == ["one"]
    assert rows_of("short", ["all"]) == rows_of("mini") == ["shared", "own", "one", "scheduled"]
    called_all = recipe.read(written(text.replace("row: one", "row: all")))
    assert [run.place.row for run in resolve.runs(called_all, "short", ["all"], repeats=1)] == [
        "all"
    ]
    assert "no row 'al'" in complaint(resolve.runs, plan, "short", ["al"])


GRID_RECIPE = """\
title: A product
columns: {rate: learning_rate}
settings: {model: baseline, data: digits, weights: random}
variants: {as_run: {}, corrected: {}}
profiles: {deck: {}, mini: {}}
rows:
  - row: first
grid:
  - across:
      hidden_units: [10, 20]
      learning_rate: [0.1, 0.01]
    deck: {test_accuracy: [1, 2, 3, 4]}
  - name: "{augment}-{batch_size}"
    settings: {hidden_units: 30}
    across:
      batch_size:
        - {batch_size: 8, epochs: 1}
        - {batch_size: 16, epochs: 2}
      augment: [flip, cutmix]
    profiles: {mini: {epochs: 3}}
    variants: [corrected]
"""


def test_a_grid_is_the_product_of_its_axes_the_last_one_fastest(written):
    plan = recipe.read(written(GRID_RECIPE))
    names = ["first", "2", "3", "4", "5", "flip-8", "cutmix-8", "flip-16", "cutmix-16"]
    assert [str(row.row) for row in plan.rows] == names  # counted on from the rows above

    def table(rows, *keys, profile="deck"):
        runs = resolve.runs(plan, profile, rows, "corrected", 1)
        return [tuple(run.spec.settings[key] for key in keys) for run in runs]

    assert table(names[:5], "hidden_units", "learning_rate") == [
        (None, 0.001), (10, 0.1), (10, 0.01), (20, 0.1), (20, 0.01),
    ]  # fmt: skip
    assert table(names[5:], "batch_size", "epochs", "augment", "hidden_units") == [
        (8, 1, "flip", 30), (8, 1, "cutmix", 30), (16, 2, "flip", 30), (16, 2, "cutmix", 30),
    ]  # fmt: skip
    assert table(names[5:], "epochs", profile="mini") == [(3,)] * 4
    assert [row.deck.test_accuracy for row in plan.rows] == [None, 1, 2, 3, 4, *[None] * 4]
    assert {tuple(plan.variants_of(row)) for row in plan.rows[5:]} == {("corrected",)}


def test_one_grid_needs_no_list_and_no_rows_beside_it(written):
    text = GRID_RECIPE.replace("rows:\n  - row: first\n", "")
    text = text[: text.index("  - name:")].replace("  - across:", "  across:")
    text = text.replace("    deck: {", "  deck: {")
    plan = recipe.read(written(text))
    assert [row.row for row in plan.rows] == [1, 2, 3, 4]
    assert [row.deck.test_accuracy for row in plan.rows] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("[1, 2, 3, 4]", "[1, 2, 3]", 9, "deck: test_accuracy has 3 figures for 4 rows"),
        ("{augment}-", "{augmnt}-", 13, "name: '{augmnt}-{batch_size}': "),
        ("{augment}-", "{augment-", 13, "grid: name: "),
        ("{augment}-", "{}-", 13, "grid: name: "),
        ("{augment}-", "{0}-", 13, "grid: name: "),
        ("{augment}-", "{augment.x}-", 13, "grid: name: "),
        ("{augment}-", "a/b-", 13, "row"),
        ("augment: [flip, cutmix]", "augment: flip", 13, "across.augment"),
        ("augment: [flip, cutmix]", "augment: [flip, cutmx]", 13, "'cutmx'"),
        ("augment: [flip, cutmix]", "augment: []", 13, "across.augment"),
        ("hidden_units: 30", "hidden_unit: 30", 13, "'hidden_units'"),
        ("variants: [corrected]", "variant: [corrected]", 13, "variant"),
        ("variants: [corrected]", "variants: [correct]", 13, "'corrected'"),
        ("mini: {epochs: 3}", "mino: {epochs: 3}", 13, "'mini'"),
        ("{augment}-", "{augment}", 13, None),
        ("[10, 20]", "[10, 10]", 9, None),
    ],
)
def test_a_wrong_grid_is_one_line_with_file_and_line(written, old, new, line, words):
    assert GRID_RECIPE.count(old) == 1
    path = written(GRID_RECIPE.replace(old, new))
    if words is None:
        assert recipe.read(path)
        return
    text = complaint(recipe.read, path)
    assert f"trial.yaml:{line}: " in text and words in text


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[10, 20]", str([*range(1, 3000)]), "more than 10,000 rows"),
        ("- across:\n", "- across:\n      shots: &x [" + "1, " * 99 + "1]\n      epochs: *x\n"
         "      batch_size: *x\n      image_size: *x\n", "more than 10,000 rows"),
        ("{augment}-", "{augment:999999999}-", "braces take"),
        ("{augment}-", "{augment!r}-", "braces take"),
    ],
)  # fmt: skip
def test_a_grid_has_an_end(written, old, new, words):
    assert GRID_RECIPE.count(old) == 1
    text = GRID_RECIPE.replace(old, new)
    if "rows" in words:
        text = text.replace("[0.1, 0.01]", "[0.1, 0.01, 0.001, 0.0001]")
    assert words in complaint(recipe.read, written(text))


def test_there_is_an_end_to_runs(written):
    plan = recipe.read(written())
    assert "400,000,000 runs" in complaint(resolve.runs, plan, "mini", repeats=100_000_000)
    endless = written(RECIPE.replace("repeats: 2", "repeats: 100000000"))
    assert "1 to 10,000" in complaint(resolve.runs, recipe.read(endless), "mini")
    assert len(resolve.runs(plan, "mini", repeats=50)) == 200


def test_rows_of_a_grid_with_one_name_are_refused(written):
    text = complaint(recipe.read, written(GRID_RECIPE.replace("{augment}-", "")))
    assert "trial.yaml:13: row '8' is here a second time" in text


def test_a_recipe_of_ones_own_needs_rows_and_no_more(written):
    text = "title: Mine\ncolumns: {}\nsettings: {data: digits}\nrows: [{row: a}, {row: b}]\n"
    plan = recipe.read(written(text))
    assert (plan.slides, plan.needs, list(plan.profiles)) == ([], [], ["own"])
    assert list(plan.variants) == ["corrected"]
    runs = resolve.runs(plan, "own", repeats=1)
    assert [run.place.row for run in runs] == ["a", "b"]
    assert not any(run.place.comparable for run in runs)  # with what?
    assert "(own)" in complaint(resolve.runs, plan, "mini")


OWN_METHOD = """\
from typing import ClassVar

from keras_cnn import methods


class Settings(methods.Method):
    strength: float = 1.0


@methods.method(Settings)
def shrink(network, train, test, settings, seed, report):
    raise NotImplementedError


@methods.method(Settings)
def grow(network, train, test, settings, seed, report):
    raise NotImplementedError


def plain():
    pass
"""
OWN_RECIPE = """\
title: Mine
columns: {strength: strength}
settings: {method: own_methods_of_mine.shrink, data: digits}
variants:
  corrected: {}
  other: {methods: {own_methods_of_mine.shrink: {method: own_methods_of_mine.grow}}}
rows:
  - row: 1
    settings: {strength: 0.5}
"""


@pytest.fixture
def own_method(tmp_path, monkeypatch):
    (tmp_path / "own_methods_of_mine.py").write_text(OWN_METHOD)
    (tmp_path / "broken_of_mine.py").write_text("def f(:")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_methods_of_mine", None)


def test_a_method_of_ones_own_is_named_by_its_module(own_method, written):
    plan = recipe.read(written(OWN_RECIPE))
    runs = resolve.runs(plan, "own", repeats=1)
    assert [run.spec.method for run in runs] == [
        "own_methods_of_mine.shrink",
        "own_methods_of_mine.grow",
    ]
    assert runs[0].spec.training.strength == 0.5
    assert "own_methods_of_mine" in runs[0].spec.code()
    assert Run.model_validate_json(runs[0].model_dump_json()) == runs[0]
    assert not {"keras", "torch"} & set(vars(sys.modules["own_methods_of_mine"]))


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("mine.shrink, data", "mine.shrnk, data", 3, "no method 'own_methods_of_mine.shrnk'"),
        ("mine.shrink, data", "mine.plain, data", 3, "made with methods.method"),
        ("own_methods_of_mine.shrink, data", "not_there.shrink, data", 3, "can be imported"),
        ("own_methods_of_mine.shrink, data", "broken_of_mine.shrink, data", 3, "(SyntaxError: "),
        ("own_methods_of_mine.shrink, data", "x/y.shrink, data", 3, "no name of a module"),
        ("own_methods_of_mine.shrink, data", "../x.shrink, data", 3, "no method '../x.shrink'"),
        ("{strength: 0.5}", "{strenth: 0.5}", 9, "'strength'"),
        ("{strength: 0.5}", "{strength: much}", 9, "'much'"),
    ],
)
def test_what_is_wrong_with_a_method_of_ones_own_is_one_line(
    own_method, written, old, new, line, words
):
    assert OWN_RECIPE.count(old) == 1
    text = complaint(recipe.read, written(OWN_RECIPE.replace(old, new)))
    assert f"trial.yaml:{line}: " in text and words in text
