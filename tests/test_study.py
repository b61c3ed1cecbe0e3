"""A recipe in Python: what `study` gives, and that it prints nothing."""

from __future__ import annotations

import itertools
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from keras_cnn import study
from keras_cnn.__main__ import main
from keras_cnn.runs import estimate

OWN = """\
from keras_cnn import methods
from keras_cnn.training.history import record


class Settings(methods.Method):
    strength: float = 1.0


@methods.method(Settings)
def untouched(network, train, test, settings, seed, report):
    made = record(1, settings.strength, (1.0, 0.5), (2.0, 0.25), 0.1)
    report(made)
    return methods.Learned([made], network, {})


@methods.method(Settings)
def broken(network, train, test, settings, seed, report):
    raise RuntimeError("no luck")
"""
RECIPE = """\
title: Mine
columns: {method: method, strength: strength}
repeats: 1
settings: {data: "synthetic:20", image_size: 8, model: baseline, hidden_units: 2, weights: random}
rows:
  - row: tuned
    settings: {epochs: 2}
  - row: own
    settings: {method: methods_beside_a_recipe.untouched, strength: 0.5}
  - row: broken
    settings: {method: methods_beside_a_recipe.broken}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shared: what one test has run is on disk for the next."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "mine.yaml").write_text(RECIPE)
    (folder / "methods_beside_a_recipe.py").write_text(OWN)
    return folder


@pytest.fixture
def options(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield {"name": str(folder / "mine.yaml"), "out": str(folder / "artifacts")}
    sys.modules.pop("methods_beside_a_recipe", None)


def test_a_study_prints_nothing_and_gives_data(options, folder, capfd):
    events = []
    done = study.run(**options, notify=events.append)
    assert capfd.readouterr() == ("", "")
    assert [result.place.row for result in done.results] == ["tuned", "own"]
    tuned, own = done.results
    assert len(tuned.history) == 2 and 0 <= tuned.metrics["test_accuracy"] <= 1
    assert own.settings["strength"] == 0.5 and own.history[0]["test_accuracy"] == 0.25
    assert own.folder.parent == folder / "artifacts" / "mine" and own.model_file.is_file()
    (failed,) = done.failed
    assert (failed.job.run.place.row, failed.error) == ("broken", "RuntimeError: no luck")
    assert "Traceback" in failed.log
    assert [(line.row, line.variant) for line in done.table.lines] == [
        ("tuned", "corrected"), ("own", "corrected"),
    ]  # fmt: skip
    kinds = [(event.job.run.place.row, event.kind) for event in events]
    assert kinds.count(("tuned", "epoch")) == 2 and ("own", "done") in kinds
    assert repr(done) == "Study(mine, 2 results, 1 failed)"
    assert all(len(repr(one)) < 300 for one in (*done.results, failed))


def test_what_is_on_disk_is_read_and_nothing_run(options, capfd):
    wanted = {**options, "rows": ["tuned", "own"]}
    first = study.run(**wanted)
    again = study.run(**wanted, notify=pytest.fail)
    assert again.results == first.results
    assert capfd.readouterr() == ("", "")


def test_a_plan_makes_nothing(options, folder):
    plan = study.plan(options["name"], out=str(folder / "elsewhere"), repeats=2)
    assert repr(plan) == "Plan(mine, profile own, 6 runs)"
    assert plan.folder == folder / "elsewhere" / "mine" and not plan.folder.exists()
    assert all(seconds > 0 for seconds in estimate.estimate(plan.runs, plan.out, 1).seconds)
    work = study.prepare(plan)
    assert len(work.missing) == 6
    assert all(len(repr(one)) < 100 for one in work.jobs)


def test_a_frame_has_a_line_for_each_run(options):
    pandas = pytest.importorskip("pandas")
    frame = study.run(**options, rows=["tuned", "own"]).frame()
    assert isinstance(frame, pandas.DataFrame) and list(frame["row"]) == ["tuned", "own"]
    assert {"method", "strength", "test_accuracy", "profile", "seed"} <= {*frame.columns}


def test_test_images_that_are_training_images_are_told_before_the_runs_and_in_the_table(
    options, folder, capfd
):
    rng = np.random.default_rng(0)
    for split, class_name in itertools.product(("train", "test"), ("a", "b")):
        (folder / "data" / split / class_name).mkdir(parents=True)
        for number in range(3):
            image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            image.save(folder / "data" / split / class_name / f"{number}.png")
    for number in range(2):
        copied = folder / "data" / "train" / "a" / f"{number}.png"
        shutil.copy(copied, folder / "data" / "test" / "b" / f"copy {number}.png")
    command = ["recipe", options["name"], f"--out={folder / 'shared'}", "--rows=own"]
    command += [f"--data={folder / 'data'}", "--set", "shots", "null"]
    for line_before in (1, 0):
        assert main(command) == 0
        said = capfd.readouterr()
        told = "2 test images of the data have the pixels of training images"
        assert said.err.count(told) == line_before
        assert said.out.count(told) == 1
        assert told in (folder / "shared" / "mine" / "table.md").read_text()
