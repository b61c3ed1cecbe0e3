"""Rows and variants of the recipes run, at the smallest size, to a whole result."""

from __future__ import annotations

import gc
from dataclasses import replace

import keras
import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from keras_cnn import recipe
from keras_cnn.recipe import resolve
from keras_cnn.results import identity, store, table
from keras_cnn.runs import worker

SMALLEST = {
    "data": "synthetic:20",
    "shots": 2,
    "test_shots": 2,
    "epochs": 1,
    "batch_size": 16,
    "image_size": 32,
    # Episodes, pairs and tasks of two images a class.
    "support_shots": 1,
    "query_shots": 1,
    "episodes_an_epoch": 1,
    "evaluation_episodes": 2,
    "support_images": 14,
    "steps_an_epoch": 1,
    "inner_steps": 1,
    "adaptation_steps": 1,
}


def smallest(plan):
    """The first repeat of all rows and variants; rows of other backends need other processes."""
    profile = "mini" if "mini" in plan.profiles else next(iter(plan.profiles))
    had = {name for run in resolve.runs(plan, profile, repeats=1) for name in run.spec.settings}
    overrides = {name: value for name, value in SMALLEST.items() if name in had}
    runs = resolve.runs(plan, profile, repeats=1, overrides=overrides)
    return [run for run in runs if run.spec.backend == keras.backend.backend()]


def path_through_the_code(run):
    """The run's settings, of numbers only whether they are zero: rows that share it do the same."""

    def kind(value):
        if isinstance(value, list | tuple):
            return tuple(map(kind, value))
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value != 0 if is_number else value

    settings = {name: kind(value) for name, value in run.spec.settings.items()}
    return repr((run.spec.method, sorted(settings.items())))


def distinct(runs):
    """Of runs that take the same path, such as rows that differ in a rate, the first."""
    first = {}
    for run in runs:
        first.setdefault(path_through_the_code(run), run)
    return list(first.values())


@pytest.fixture(scope="module", autouse=True)
def only_new_objects_are_collected():
    """Each run is followed by a collection, which else walks all that was imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def made():
    """Results by their path through the code, of whichever recipe came first."""
    return {}


@pytest.mark.parametrize("name", recipe.names())
def test_every_row_runs(name, made, tmp_path):
    plan = recipe.read(name)
    runs = distinct(smallest(plan))
    results = []
    for run in runs:
        path = path_through_the_code(run)
        if path in made:
            of_row = {"place": run.place, "spec": run.spec.model_dump()}
            results.append(replace(made[path], **of_row))
            continue
        records = []
        folder = identity.run_folder(run, tmp_path)
        worker.make(run, folder, records.append)
        keras.utils.clear_session(free_memory=True)
        result = made[path] = store.read(folder)
        results.append(result)
        (record,) = records
        kept = {key: record[key] for key in store.HISTORY_COLUMNS}
        np.testing.assert_equal(result.history, [kept])  # not-a-number equals itself here
        figures = {k: v for k, v in result.history[0].items() if k != "learning_rate"}
        assert np.isfinite(list(figures.values())).all(), run
        assert (result.place, result.spec) == (run.place, run.spec.model_dump())
        assert np.sum(result.confusion, axis=1).tolist() == [2] * 10
        answers = result.predictions
        counts = confusion_matrix(answers.labels, answers.predicted, labels=range(10))
        assert counts.tolist() == result.confusion
        assert sorted(answers.images) == list(range(20))  # in the order they were drawn
        assert 0 <= result.metrics["macro_f1"] <= 1
        assert result.metrics["train_images"] == result.metrics["test_images"] == 20
        before = folder.stat().st_mtime_ns
        worker.make(run, folder, pytest.fail)  # done: nothing is made again
        assert folder.stat().st_mtime_ns == before
    lines = table.build(plan, results, "a command").lines
    assert [(line.row, line.variant) for line in lines] == [
        (run.place.row, run.place.variant) for run in runs
    ]
