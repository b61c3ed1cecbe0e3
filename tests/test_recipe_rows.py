"""Every row and variant of the recipes runs, at the smallest size, to a whole result."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_cnn import recipe, run, store, table

RUNS = {  # rows x variants
    "fewshot_resnet": 14,
    "fewshot_convnext": 12,
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


def test_no_recipe_is_forgotten():
    assert sorted(RUNS) == recipe.names()


@pytest.mark.parametrize("name", RUNS)
def test_every_row_runs(name, tmp_path):
    plan = recipe.read(name)
    specs = recipe.runs(plan, "mini", repeats=1, overrides=SETTINGS)
    specs = [spec for spec in specs if spec.backend == keras.backend.backend()]
    assert len(specs) == RUNS[name]
    results = []
    for spec in specs:
        records = []
        folder = store.run_folder(spec, tmp_path)
        run.run_one(spec, folder, records.append)
        keras.utils.clear_session(free_memory=True)
        result = store.read(folder)
        results.append(result)
        assert result.history == records and len(records) == 1
        assert np.isfinite(list(result.history[0].values())).all(), spec
        assert result.run == spec.model_dump()
        assert np.sum(result.confusion, axis=1).tolist() == [2] * 10
        assert result.metrics["train_images"] == result.metrics["test_images"] == 20
    lines = table.build(plan, results, "a command").lines
    assert [(line.row, line.variant) for line in lines] == [
        (str(row.row), variant) for row in plan.rows for variant in plan.variants
    ][: RUNS[name]]
    before = folder.stat().st_mtime_ns
    run.run_one(spec, folder, pytest.fail)  # done: nothing is made again
    assert folder.stat().st_mtime_ns == before
