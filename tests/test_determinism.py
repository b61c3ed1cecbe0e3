"""The same spec on the same machine: the same history and weights to the last bit."""

from __future__ import annotations

from zipfile import ZipFile

import h5py
import numpy as np

from keras_cnn import recipe
from keras_cnn.recipe import resolve
from keras_cnn.results import identity, store
from keras_cnn.runs import engine

SETTINGS = {
    "data": "synthetic:60",
    "model": "enhanced",  # convolutions, BatchNorm and dropout
    "hidden_units": 4,
    "dropout": 0.5,
    "epochs": 2,
    "batch_size": 16,
}


def jobs_of_two_repeats(out):
    runs = resolve.runs(recipe.read("overfitting"), "mini", None, "corrected", 2, SETTINGS)
    return [engine.Job(run, identity.run_folder(run, out)) for run in runs]


def execute(jobs):
    assert not engine.execute(jobs, 2, lambda event: None)
    return [job.folder for job in jobs]


def content(folder, tmp_path):
    result = store.read(folder)
    columns = [name for name in store.HISTORY_COLUMNS if name != "seconds"]
    history = [[record[name] for name in columns] for record in result.history]
    with ZipFile(folder / "model.keras") as archive:
        archive.extract("model.weights.h5", tmp_path)
    arrays = {}
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(
            lambda name, item: (
                arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return history, arrays


def test_repeats_together_equal_their_solo_runs_to_the_last_bit(tmp_path):
    together = execute(jobs_of_two_repeats(tmp_path / "together"))  # forks of one process
    jobs = jobs_of_two_repeats(tmp_path / "solo")
    solo = [folder for job in jobs for folder in execute([job])]  # fresh processes
    assert [folder.name for folder in together] == [folder.name for folder in solo]
    histories = []
    for one, other in zip(together, solo, strict=True):
        (history, arrays), (history_alone, arrays_alone) = (
            content(folder, tmp_path) for folder in (one, other)
        )
        assert history == history_alone
        assert arrays.keys() == arrays_alone.keys() and len(arrays) > 20
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], arrays_alone[name], err_msg=name)
        histories.append(history)
    assert histories[0] != histories[1]  # repeats are other runs
