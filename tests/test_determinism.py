"""The same spec on the same machine: the same history and weights to the last bit.

However many run at a time, and from features that were kept or computed anew.
"""

from __future__ import annotations

from zipfile import ZipFile

import h5py
import numpy as np
from test_engine import locally

from keras_cnn import recipe
from keras_cnn.recipe import resolve
from keras_cnn.results import identity, store
from keras_cnn.runs.jobs import Job

SETTINGS = {
    "data": "synthetic:60",
    "model": "enhanced",  # convolutions, BatchNorm and dropout
    "hidden_units": 4,
    "dropout": 0.5,
    "unfrozen_stages": 2,
    "epochs": 2,
    "batch_size": 16,
}


def jobs_of_two_repeats(out):
    runs = resolve.runs(recipe.read("overfitting"), "mini", None, "corrected", 2, SETTINGS)
    return [Job(run, identity.run_folder(run, out)) for run in runs]


def execute(jobs):
    """The folders of the jobs, and what was noted while they were made."""
    events = []
    assert not locally(jobs, 2, events.append)
    spent = {event.job.folder: event.record["spent"] for event in events if event.kind == "spent"}
    assert spent.keys() == {job.folder for job in jobs}
    for seconds in spent.values():
        clock, processor = seconds.pop("in all")
        assert {"data", "network", "features", "training", "evaluation", "saving"} == {*seconds}
        assert sum(each for each, _ in seconds.values()) < clock
        assert 0 < sum(each for _, each in seconds.values()) < processor
    return [job.folder for job in jobs], [e.record["note"] for e in events if e.kind == "note"]


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


def test_repeats_together_equal_their_solo_runs_to_the_last_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path / "home"))
    together, notes = execute(jobs_of_two_repeats(tmp_path / "together"))  # forks of one process
    assert not notes
    kept = sorted((tmp_path / "home" / "features").glob("*.npy"))
    for path in kept:
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
    alone = [execute([job]) for job in jobs_of_two_repeats(tmp_path / "solo")]  # fresh processes
    solo = [folder for folders, _ in alone for folder in folders]
    notes = sorted(note for _, told in alone for note in told)
    assert kept and notes == [f"{path} is damaged: it is computed anew" for path in kept]
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
