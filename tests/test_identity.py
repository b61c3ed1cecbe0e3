"""What a run's identity is made of, and what it is not."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from typing import get_args

import numpy as np
import pydantic
import pytest
from PIL import Image

from keras_cnn import models, recipe
from keras_cnn.errors import UserError
from keras_cnn.methods.settings import DECIDES_WITH
from keras_cnn.recipe import resolve
from keras_cnn.recipe.spec import KNOWN_METHODS, Spec
from keras_cnn.results import identity

PARTS = ("images", "network", "training")


@pytest.fixture(autouse=True)
def no_memory():
    """Fingerprints are kept for the length of a command; here files change between two looks."""
    identity.data_fingerprint.cache_clear()
    identity.weights_fingerprint.cache_clear()


def a_spec(method="supervised", **other):
    settings = KNOWN_METHODS[method]
    given = {
        "images": settings.images(data="synthetic:20"),
        "network": settings.network(weights="random"),
        "training": settings(),
    }
    return Spec(method=method, **given | other)


def changed(spec, part, **values):
    """The spec with other settings in one of its parts."""
    group = getattr(spec, part)
    return spec.model_copy(update={part: type(group).model_validate({**dict(group), **values})})


def another(group, field):
    """A value of a setting that is not its default."""
    for value in (True, False, 3, 48, 0.25, *get_args(group.model_fields[field].annotation)):
        try:
            found = getattr(group.model_validate({field: value}), field)
        except pydantic.ValidationError:
            continue
        if found != group.model_fields[field].default:
            return found
    pytest.fail(f"{field} needs a value here")


@pytest.mark.parametrize("method", KNOWN_METHODS)
def test_every_setting_is_in_the_identity(method):
    spec = a_spec(method)
    names = [identity.identity(spec)]
    for part in PARTS:
        group = type(getattr(spec, part))
        # Names of data, networks and weights have tests of their own below.
        for field in group.model_fields.keys() - {"data", "model", "weights"}:
            other, values = DECIDES_WITH.get(field, (None, ()))
            along = {other: values[0]} if other in group.model_fields else {}
            settings = {field: another(group, field), **along}
            names.append(identity.identity(changed(spec, part, **settings)))
    for field, value in (("seed", 1), ("shots_seed", 1), ("backend", "jax")):
        names.append(identity.identity(spec.model_copy(update={field: value})))
    names.append(identity.identity(changed(spec, "network", model="convnext_femto")))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("part", "idle", "other"),
    [
        ("training", {"momentum": 0.9}, {"optimizer": "sgd"}),
        ("training", {"schedule_epochs": 9}, {"schedule": "cosine"}),
        ("training", {"schedule_factor": 0.1}, {"schedule": "step"}),
        ("training", {"augment_share": 0.1}, {"augment": "flip"}),
        ("training", {"workers": 2, "pin_memory": True, "drop_last": True}, {"feed": "files"}),
        ("network", {"cosine_scale": 9.0}, {"head": "cosine"}),
    ],
)
def test_a_setting_that_decides_nothing_is_not_in_the_identity(part, idle, other):
    spec = a_spec()
    assert identity.identity(changed(spec, part, **idle)) == identity.identity(spec)
    with_other = changed(spec, part, **other)
    assert identity.identity(changed(with_other, part, **idle)) != identity.identity(with_other)
    own = type("Own", (type(spec.training),), {"module": ""})  # what it does with them is its own
    mine = spec.model_copy(update={"training": own()})
    if part == "training":
        assert identity.identity(changed(mine, part, **idle)) != identity.identity(mine)


def test_the_method_is_in_the_identity():
    # Of those without settings that are not at their defaults, only its name is another.
    names = {identity.identity(a_spec(method)) for method in KNOWN_METHODS}
    assert len(names) == len(KNOWN_METHODS)


@pytest.mark.parametrize("method", KNOWN_METHODS)
def test_a_new_setting_with_a_default_leaves_older_identities_alone(method):
    spec = a_spec(method, seed=5)
    spec = changed(spec, "images", shots=3)
    before = identity.identity(spec)
    for part in PARTS:
        group = getattr(spec, part)
        more = pydantic.create_model("More", __base__=type(group), added=(int, 3))
        old, new = (more.model_validate({**dict(group), **x}) for x in ({}, {"added": 4}))
        assert identity.identity(spec.model_copy(update={part: old})) == before
        assert identity.identity(spec.model_copy(update={part: new})) != before
    more = pydantic.create_model("More", __base__=Spec, added=(int, 3))
    assert identity.identity(more(**dict(spec))) == before
    assert identity.identity(more(**dict(spec), added=4)) != before


@pytest.mark.parametrize(
    ("row", "settings"),
    [
        (
            "nearest_mean",
            "dropout head feed workers augment epochs batch_size learning_rate optimizer "
            "unfrozen_stages stochastic_depth schedule",
        ),
        ("linear_probe", "dropout feed augment epochs learning_rate unfrozen_stages centered"),
        ("prototypical", "dropout head feed augment batch_size margin"),
        ("siamese", "dropout head feed augment way"),
        ("maml", "feed augment batch_size distance"),
        ("fine_tuning", "crop_from way eval_mode_sticks"),
    ],
)
def test_settings_that_cannot_matter_to_a_method_are_none_of_its_runs(row, settings):
    plan = recipe.read("fewshot_methods")
    values = {"head": "cosine", "feed": "files", "augment": "flip", "schedule": "step"}
    for name in settings.split():
        (run,) = resolve.runs(plan, "mini", [row], "corrected", 1)
        assert name not in run.spec.settings
        with pytest.raises(UserError, match=f"has no '{name}'"):
            resolve.runs(plan, "mini", [row], "corrected", 1, {name: values.get(name, 1)})


def test_a_seed_that_draws_nothing_is_not_in_the_identity():
    plan = recipe.read("overfitting")

    def identities(**settings):
        runs = resolve.runs(plan, "mini", None, "corrected", 2, settings)
        return [identity.identity(run.spec) for run in runs]

    assert identities(redraw_shots=False) == identities()
    assert identities(redraw_shots=False, shots=5) != identities(shots=5)


def test_where_a_run_stands_is_not_in_its_identity(tmp_path):
    plan = recipe.read("fewshot_convnext")
    settings = {"data": "synthetic:20", "weights": "random", "model": "convnext_atto"}
    (run,) = resolve.runs(plan, "mini", ["4"], "corrected", 1, settings)
    place = run.place.model_copy(
        update={"row": "5", "variant": "x", "repeat": 3, "profile": "deck", "comparable": True}
    )
    moved = run.model_copy(update={"place": place})
    assert run.place.recipe == "fewshot_convnext"
    digits = identity.identity(run.spec)
    assert identity.run_folder(run, tmp_path) == (
        tmp_path / "fewshot_convnext" / f"4-corrected-0-{digits}"
    )
    assert identity.run_folder(moved, tmp_path) == (
        tmp_path / "fewshot_convnext" / f"5-x-3-{digits}"
    )
    assert identity.checkpoint_file(run.spec) == identity.checkpoint_file(moved.spec)


def test_the_identity_follows_the_images_not_their_place(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        for split in ("train", "test"):
            (tmp_path / "a" / split / label).mkdir(parents=True)
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "a" / split / label / "1.png")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    one, other = (changed(a_spec(), "images", data=str(tmp_path / name)) for name in "ab")
    assert identity.identity(one) == identity.identity(other)
    Image.fromarray(255 - pixels).save(tmp_path / "b" / "test" / "dog" / "1.png")
    identity.data_fingerprint.cache_clear()
    assert identity.identity(one) != identity.identity(other)


def test_the_identity_follows_the_weights_not_their_place(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"weights")
    shutil.copy(tmp_path / "a.pth", tmp_path / "b.pth")
    one, other = (changed(a_spec(), "network", weights=str(tmp_path / f"{x}.pth")) for x in "ab")
    assert identity.identity(one) != identity.identity(a_spec())
    assert identity.identity(one) == identity.identity(other)
    (tmp_path / "b.pth").write_bytes(b"other weights")
    identity.weights_fingerprint.cache_clear()
    assert identity.identity(one) != identity.identity(other)


def every_run():
    """One run of each row and variant of all recipes, on what is on every machine."""
    for name in recipe.names():
        plan = recipe.read(name)
        yield from resolve.runs(plan, "mini" if "mini" in plan.profiles else "own", repeats=1)


def methods(*names):
    return lambda run: run["method"] in names


PAIRS_OR_EPISODES = methods(
    "prototypical", "prototypical_split_batches", "siamese", "siamese_inverted"
)
# Which runs get other names when a module's behaviour changes, by the runs' settings.
USED_BY = {
    "data.sampling": lambda run: (
        run["shots"] is not None or run["test_shots"] is not None or PAIRS_OR_EPISODES(run)
    ),
    "data.augment": lambda run: run.get("augment", "none") != "none" or run["method"] == "pretrain",
    "data.crops": methods("pretrain"),
    "models.initializers": lambda run: True,
    "models.heads": lambda run: True,
    "models.freeze": lambda run: run.get("unfrozen_stages") is not None,
    "models.resnet": lambda run: run["model"] == "resnet18",
    "models.convnext": lambda run: run["model"].startswith("convnext"),
    **{
        f"models.{name}": lambda run, name=name: run["model"] == name
        for name in ("baseline", "enhanced", "fewshot_cnn", "siamese_cnn")
    },
    "training.optimizers": lambda run: run["method"] not in ("linear_probe", "nearest_mean"),
    "training.schedule": lambda run: (
        run["method"] not in ("linear_probe", "nearest_mean", "pretrain")
    ),
    "methods.supervised": methods("supervised", "supervised_as_run"),
    "methods.embedding": PAIRS_OR_EPISODES,
    "methods.prototypical": methods("prototypical"),
    "methods.siamese": methods("siamese", "siamese_inverted"),
    "methods.batch_contrast": methods("siamese"),
    "methods.maml": methods("maml"),
    "methods.head_start": methods("maml"),
    "methods.tasks": methods("maml"),
    "methods.pretrain": methods("pretrain"),
    "methods.linear_probe": methods("linear_probe"),
    "methods.nearest_mean": methods("nearest_mean"),
    "methods.on_features": methods("linear_probe", "nearest_mean"),
    "deck.supervised_as_run": methods("supervised_as_run"),
    "deck.prototypical_split_batches": methods("prototypical_split_batches"),
    "deck.siamese_inverted": methods("siamese_inverted"),
    "deck.maml_detached": methods("maml_detached"),
}


def identities(specs, monkeypatch, module=None):
    """Those of some specs, with the code of one module raised."""
    with monkeypatch.context() as patch:
        raised = f"keras_cnn.{module}"
        patch.setattr(identity, "version", lambda name: 2 if name == raised else 1)
        return [identity.identity(spec) for spec in specs]


def test_a_raised_version_renames_the_runs_that_use_the_code_and_no_others(monkeypatch):
    specs = [run.spec for run in every_run()]
    before = identities(specs, monkeypatch)
    for module, uses in USED_BY.items():
        after = identities(specs, monkeypatch, module)
        renamed = [old != new for old, new in zip(before, after, strict=True)]
        assert renamed == [bool(uses(spec.settings)) for spec in specs], module
        assert any(renamed), module
    known = {name for spec in specs for name in spec.code()}
    assert {f"keras_cnn.{module}" for module in USED_BY} == known


def test_statistics_of_the_task_at_hand_are_code_of_those_who_ask_for_them(monkeypatch):
    stored = a_spec("maml")
    specs = [stored, changed(stored, "training", batch_norm="task")]
    before = identities(specs, monkeypatch)
    after = identities(specs, monkeypatch, "training.batch_statistics")
    assert [old != new for old, new in zip(before, after, strict=True)] == [False, True]


def test_the_code_of_folds_is_of_what_folds_say(monkeypatch):
    tested, head, tuned = a_spec(), a_spec("nearest_mean", folds=5), a_spec(folds=3)
    specs = [tested, head, tuned]
    before = identities(specs, monkeypatch)
    renamed = {
        module: [
            old != new
            for old, new in zip(before, identities(specs, monkeypatch, module), strict=True)
        ]
        for module in ("teach.folds", "teach.figures", "teach.tuning")
    }
    assert renamed == {
        "teach.folds": [False, True, True],
        "teach.figures": [False, True, True],
        "teach.tuning": [False, False, True],
    }


def with_all(method):
    """A spec of a method whose settings ask for all code that they can ask for."""
    settings, asks = KNOWN_METHODS[method], {"augment": "flip", "batch_norm": "task"}
    known = {name: value for name, value in asks.items() if name in settings.model_fields}
    spec = changed(changed(a_spec(method), "images", shots=1), "training", **known)
    trains = "unfrozen_stages" in settings.network.model_fields
    return changed(spec, "network", unfrozen_stages=1) if trains else spec


def test_all_code_of_runs_has_a_version_that_is_read_as_python_does():
    code = {name for method in KNOWN_METHODS for name in with_all(method).code()}
    code |= {models.module_of(name) for name in models.NETWORKS}
    code |= {*a_spec(folds=3).code()}
    versions = {
        name: getattr(importlib.import_module(name), "VERSION", None) for name in sorted(code)
    }
    assert [name for name, found in versions.items() if type(found) is not int] == []
    assert {name: identity.version(name) for name in versions} == versions


@pytest.mark.parametrize("method", KNOWN_METHODS)
def test_a_method_names_all_code_with_a_version_that_it_imports(method):
    module = importlib.import_module(KNOWN_METHODS[method].module)
    imported = {
        value.__name__ if type(value) is type(sys) else getattr(value, "__module__", None)
        for value in vars(module).values()
    }
    modules = [sys.modules[name] for name in imported if str(name).startswith("keras_cnn.")]
    assert modules
    code = {*with_all(method).code()}
    assert {module.__name__ for module in modules if hasattr(module, "VERSION")} <= code


def test_a_version_is_read_without_importing(tmp_path):
    (tmp_path / "own.py").write_text("VERSION = 7\nraise RuntimeError\n")
    (tmp_path / "older.py").write_text("raise RuntimeError\n")
    code = (
        "import sys; from keras_cnn.results.identity import version; "
        "from keras_cnn.methods import settings; "
        "print(version('own'), version('older'), version('keras_cnn.models.heads'), "
        "{'own', 'older', 'keras', 'torch', 'keras_cnn.models.heads'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.append({str(tmp_path)!r}); {code}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == "7 1 1 set()\n"
