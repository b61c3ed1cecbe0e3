"""A recipe in Python: what `study` gives, and that it prints nothing."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_cnn import data, environment, prediction, study
from keras_cnn.__main__ import main
from keras_cnn.errors import UserError
from keras_cnn.models import saved
from keras_cnn.results import identity
from keras_cnn.runs import estimate, images

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
  - row: diverges
    settings: {epochs: 2, optimizer: sgd, learning_rate: 1.0e+30}
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
    assert [result.place.row for result in done.results] == ["tuned", "diverges", "own"]
    tuned, diverged, own = done.results
    assert diverged.diverged_at == 1 and diverged.metrics["test_accuracy_over_images"] is None
    assert np.sum(diverged.confusion) == 0 and not tuned.diverged_at
    for path in diverged.folder.glob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
    with pytest.raises(UserError, match="no number for any image"):
        prediction.evaluate(diverged.model_file, "synthetic:20")
    assert len(tuned.history) == 2 and 0 <= tuned.metrics["test_accuracy"] <= 1
    assert own.settings["strength"] == 0.5 and own.history[0]["test_accuracy"] == 0.25
    assert own.folder.parent == folder / "artifacts" / "mine" and own.model_file.is_file()
    (failed,) = done.failed
    assert (failed.job.run.place.row, failed.error) == ("broken", "RuntimeError: no luck")
    assert "Traceback" in failed.log
    assert [(line.row, line.variant) for line in done.table.lines] == [
        ("tuned", "corrected"), ("diverges", "corrected"), ("own", "corrected"),
    ]  # fmt: skip
    kinds = [(event.job.run.place.row, event.kind) for event in events]
    assert kinds.count(("tuned", "epoch")) == 2 and ("own", "done") in kinds
    assert repr(done) == "Study(mine, 3 results, 1 failed)"
    assert all(len(repr(one)) < 300 for one in (*done.results, failed))


def test_what_is_on_disk_is_read_and_nothing_run(options, capfd):
    wanted = {**options, "rows": ["tuned", "own"]}
    first = study.run(**wanted)
    folder = first.results[0].folder  # as a kill between the two renames of --fresh leaves it
    folder.rename(folder.with_name(f".{folder.name}.replaced"))
    again = study.run(**wanted, notify=pytest.fail)
    assert again.results == first.results
    assert capfd.readouterr() == ("", "")


def test_a_plan_makes_nothing(options, folder):
    plan = study.plan(options["name"], out=str(folder / "elsewhere"), repeats=2)
    assert repr(plan) == "Plan(mine, profile own, 8 runs)"
    assert plan.folder == folder / "elsewhere" / "mine" and not plan.folder.exists()
    assert all(seconds > 0 for seconds in estimate.estimate(plan.runs, plan.out, 1).seconds)
    work = study.prepare(plan)
    assert len(work.missing) == 8
    assert all(len(repr(one)) < 100 for one in work.jobs)


def test_runs_share_the_cores_and_their_threads_are_in_their_names(options, monkeypatch):
    monkeypatch.setattr(environment, "cores", lambda: 4)
    monkeypatch.setattr(environment, "gpus", list)

    def planned(**asked):
        plan = study.plan(options["name"], rows=["tuned"], **asked)
        first = plan.runs[0].spec
        return plan.parallel, first.threads, identity.identity(first)

    alone, pair = planned(repeats=1), planned(repeats=2)
    assert alone[:2] == (1, 4) and pair[:2] == (2, 2)
    assert planned(repeats=9, parallel=9)[:2] == (4, 1), "no more at a time than cores"
    assert planned(repeats=1, parallel=1) == alone
    assert planned(repeats=2, parallel=1)[:2] == (1, 4)
    (lone,) = study.plan(options["name"], rows=["tuned"], repeats=1).runs
    assert identity.identity(lone.spec) != identity.identity(lone.with_spec(threads=2).spec)
    assert "threads" not in lone.spec.settings


def test_keras_own_step_on_torch_is_another_run(options, monkeypatch):
    def planned(value, backend="torch"):
        monkeypatch.setenv("KERAS_CNN_PLAIN", value)
        (run,) = study.plan(options["name"], rows=["tuned"], repeats=1, backend=backend).runs
        return run.spec

    assert not planned("0").plain and not planned("1", "jax").plain
    assert planned("1").plain
    assert identity.identity(planned("1")) != identity.identity(planned(""))


def test_a_result_made_with_other_threads_is_taken(options, tmp_path, monkeypatch):
    (run,) = study.plan(options["name"], rows=["tuned"], repeats=1).runs
    made = run.with_spec(threads=3)
    folder = identity.run_folder(made, tmp_path)
    other = run.model_copy(update={"spec": made.spec.model_copy(update={"seed": 5})})
    for one in (made, other):
        identity.run_folder(one, tmp_path).mkdir(parents=True)
    (folder / "run.json").write_text(made.model_dump_json())
    (identity.run_folder(other, tmp_path) / "run.json").write_text(other.model_dump_json())
    for content in ("{", "[]", '{"spec": {"threads": "x"}}', "[" * 10000):
        damaged = folder.with_name(f"{folder.name[:-10]}{hash(content) % 10**10:010}")
        damaged.mkdir()
        (damaged / "run.json").write_text(content)
    assert identity.as_on_disk(run.with_spec(threads=1), tmp_path) == made
    assert identity.as_on_disk(other, tmp_path) == other
    work = study.prepare(study.plan(options["name"], rows=["tuned"], repeats=1, out=tmp_path))
    assert [job.folder for job in work.jobs] == [folder] and not work.missing


def test_a_frame_has_a_line_for_each_run(options):
    pandas = pytest.importorskip("pandas")
    frame = study.run(**options, rows=["tuned", "own"]).frame()
    assert isinstance(frame, pandas.DataFrame) and list(frame["row"]) == ["tuned", "own"]
    assert {"method", "strength", "test_accuracy", "profile", "seed"} <= {*frame.columns}


def write_images(folder):
    rng = np.random.default_rng(0)
    for split, class_name in itertools.product(("train", "test"), ("a", "b")):
        (folder / split / class_name).mkdir(parents=True)
        for number in range(3):
            image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            image.save(folder / split / class_name / f"{number}.png")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_paths_that_are_no_text_have_their_table_too(options, folder, capfd, monkeypatch):
    odd = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9 \x1b[31m\nred"))
    write_images(odd)
    os.rename(odd / "test" / "a" / "0.png", os.fsencode(odd) + b"/test/a/\xe9.png")
    (odd / "train" / "b" / "bad\x1b.png").touch()
    monkeypatch.chdir(odd)  # the command line of the child processes too
    command = ["recipe", options["name"], f"--out={odd / 'out'}", "--rows=own"]
    command += [f"--data={odd}", "--set", "shots", "null"]
    for _ in range(2):
        assert main(command) == 0
        said = capfd.readouterr()
        assert "\x1b" not in said.out + said.err
        assert r"caf\udce9 \x1b[31m\nred" in said.out
        text = (odd / "out" / "mine" / "table.md").read_text(encoding="utf-8")
        (again,) = [line for line in text.splitlines() if line.startswith("Again with")]
        words = f"printf '%s|' {again.partition('`')[2].rstrip('`')}"
        heard = subprocess.run(["bash", "-c", words], capture_output=True).stdout.split(b"|")
        assert (
            os.fsencode(f"--data={odd}") in heard and os.fsencode(f"--out={odd / 'out'}") in heard
        )
    assert main(["data", str(odd), f"--out={odd / 'samples.png'}"]) == 0
    said = capfd.readouterr().out
    assert "\x1b" not in said and r"train/b/bad\x1b.png: empty file" in said


def test_test_images_that_are_training_images_are_told_before_the_runs_and_in_the_table(
    options, folder, capfd, made_here
):
    write_images(folder / "data")
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
        assert " ".join(said.out.split()).count(told) == 1
        assert told in (folder / "shared" / "mine" / "table.md").read_text()


def test_rows_that_cannot_learn_are_left_out_also_where_the_others_are_on_disk(tmp_path):
    few = {"data": "synthetic:20", "shots": 2, "test_shots": 2}
    asked = {"profile": "mini", "repeats": 1, "overrides": few, "out": tmp_path}
    plan = study.plan("fewshot_methods", rows=["prototypical", "nearest_mean"], **asked)
    work = study.prepare(plan)
    assert "prototypical as_run" in work.left_out
    for job in work.jobs:
        job.folder.mkdir(parents=True)
    again = study.prepare(plan)
    assert (again.jobs, again.left_out) == (work.jobs, work.left_out) and not again.missing
    alone = study.plan("fewshot_methods", rows=["prototypical"], variant="as_run", **asked)
    with pytest.raises(UserError, match="row prototypical as_run: batches"):
        study.prepare(alone)


def test_images_of_a_run_are_brought_to_a_square_as_its_settings_say(tmp_path, made_here):
    """Classes differ in the wings of wide images alone, which the centre square lacks."""
    rng = np.random.default_rng(0)
    for name, shade in (("dark", 0), ("light", 255)):
        (tmp_path / "wide" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((32, 128, 3), shade, np.uint8)
            pixels[:, 48:80] = rng.integers(0, 256, (32, 32, 3))
            Image.fromarray(pixels).save(tmp_path / "wide" / name / f"{number}.png")
    command = ["recipe", "fewshot_methods", "--profile=mini", "--rows=nearest_mean", "--repeats=1"]
    asked = [
        f"--data={tmp_path / 'wide'}",
        "--shots=3",
        "--weights=random",
        "--set",
        "fit",
        "squash",
    ]
    assert main([*command, *asked, "--variant=corrected", f"--out={tmp_path}"]) == 0
    assert "32 pixels (fit squash)" in (tmp_path / "fewshot_methods" / "table.md").read_text()
    (model,) = (tmp_path / "fewshot_methods").glob("nearest_mean-*/model.keras")
    assert saved.load(model)[1]["fit"] == "squash"
    assert prediction.evaluate(model, str(tmp_path / "wide")).accuracy == 1


def test_small_classes_of_a_users_folder_are_taken_whole_and_told(tmp_path, capsys, made_here):
    rng = np.random.default_rng(0)
    for name, count in (("few", 5), ("more", 20), ("pair", 2)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number}.png")
    asked = {"rows": ["nearest_mean"], "profile": "mini", "repeats": 1, "variant": "corrected"}
    mine = {"data": str(tmp_path / "mine"), "shots": 8, "weights": "random"}
    work = study.prepare(study.plan("fewshot_methods", overrides=mine, out=tmp_path, **asked))
    train, test = images.sample(work.jobs[0].run.spec)
    whole = data.load(mine["data"]).splits
    counts = np.bincount(whole["train"].labels)
    assert np.bincount(train.labels).tolist() == np.minimum(counts, 8).tolist()
    assert len(test.labels) == len(whole["test"].labels) == 27 - counts.sum()
    assert work.taken_whole == {"few": counts[0], "pair": 1} and counts[1] > 8
    command = ["recipe", "fewshot_methods", "--profile=mini", "--rows=nearest_mean", "--shots=8"]
    command += ["--repeats=1", "--weights=random", f"--data={mine['data']}", f"--out={tmp_path}"]
    assert main(command) == 0
    line = f"fewer training images than shots, all of them used: few {counts[0]}, pair 1\n"
    assert capsys.readouterr().err.count(line) == 1
    named = {"data": "synthetic:20", "shots": 8, "weights": "random"}
    with pytest.raises(UserError, match="at most 2 shots can be drawn"):
        study.prepare(study.plan("fewshot_methods", overrides=named, out=tmp_path, **asked))


def test_a_frame_without_pandas_is_one_line(options, monkeypatch):
    done = study.run(**options, rows=["tuned", "own"])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        done.frame()
