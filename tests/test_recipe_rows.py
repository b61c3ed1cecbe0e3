"""Every row and variant of the recipes runs, at the smallest size, to a whole result."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_cnn import recipe
from keras_cnn.recipe import resolve
from keras_cnn.results import store, table
from keras_cnn.runs import worker

RUNS = {  # rows x variants
    "fewshot_resnet": 14,
    "fewshot_convnext": 12,
    "fewshot_augmentation": 12,
    "fewshot_basic": 6,
    "fewshot_methods": 11,
    "fewshot_regularization": 20,
    "fewshot_16_images": 2,
    "fewshot_shots": 39,
    "pretrain": 2,
    "regularization": 40,
    "learning_rate_hidden_units": 48,
    "training_time": 18,
    "data_loader": 7,
    "overfitting": 2,
    "reliability": 1,
    "backends": 1,  # rows of other backends need other processes
}
SETTINGS = {
    "data": "synthetic:20",
    "shots": 2,
    "test_shots": 2,
    "epochs": 1,
    "batch_size": 16,
    "image_size": 32,
}
METHOD_SETTINGS = {  # episodes, pairs and tasks of two images a class
    "support_shots": 1,
    "query_shots": 1,
    "episodes_an_epoch": 1,
    "evaluation_episodes": 2,
    "support_images": 14,
    "steps_an_epoch": 1,
    "inner_steps": 1,
    "adaptation_steps": 1,
}
SETTINGS_OF = {"fewshot_methods": METHOD_SETTINGS, "fewshot_shots": METHOD_SETTINGS}


def test_no_recipe_is_forgotten():
    assert sorted(RUNS) == recipe.names()


def distinct(specs):
    """Of runs that the settings above made the same, as rows by shots, the first; on torch."""
    first = {}
    for spec in specs:
        if spec.backend == keras.backend.backend():
            first.setdefault((spec.data, spec.model, spec.feeding, spec.training), spec)
    return list(first.values())


@pytest.mark.parametrize("name", RUNS)
def test_every_row_runs(name, tmp_path):
    plan = recipe.read(name)
    specs = resolve.runs(plan, "mini", repeats=1, overrides=SETTINGS | SETTINGS_OF.get(name, {}))
    assert len([spec for spec in specs if spec.backend == keras.backend.backend()]) == RUNS[name]
    specs = distinct(specs)
    results = []
    for spec in specs:
        records = []
        folder = store.run_folder(spec, tmp_path)
        worker.run_one(spec, folder, records.append)
        keras.utils.clear_session(free_memory=True)
        result = store.read(folder)
        results.append(result)
        (record,) = records
        kept = {key: record[key] for key in store.HISTORY_COLUMNS}
        np.testing.assert_equal(result.history, [kept])  # not-a-number equals itself here
        figures = {k: v for k, v in result.history[0].items() if k != "learning_rate"}
        assert np.isfinite(list(figures.values())).all(), spec
        assert result.run == spec.model_dump()
        assert np.sum(result.confusion, axis=1).tolist() == [2] * 10
        assert result.metrics["train_images"] == result.metrics["test_images"] == 20
    lines = table.build(plan, results, "a command").lines
    assert [(line.row, line.variant) for line in lines] == [
        (spec.row, spec.variant) for spec in specs
    ]
    before = folder.stat().st_mtime_ns
    worker.run_one(spec, folder, pytest.fail)  # done: nothing is made again
    assert folder.stat().st_mtime_ns == before
