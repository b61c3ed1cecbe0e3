from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from keras_cnn import files, recipe, statistics
from keras_cnn.errors import UserError
from keras_cnn.recipe import resolve
from keras_cnn.results import predictions, store


def a_run(repeat=0, **overrides):
    plan = recipe.read("fewshot_convnext")
    settings = {"data": "synthetic:20", "weights": "random", **overrides}
    return resolve.runs(plan, "mini", ["4"], "corrected", repeat + 1, settings)[repeat]


METRICS = {"train_accuracy": 0.5, "test_accuracy": 0.5, "seconds": 0.5}
METRICS |= {"train_images": 9, "test_images": 8}


def written(folder, accuracies=(0.25, 0.5), losses=(1.5, 1.5), **metrics):
    """A small whole result."""
    history = [
        dict(zip(store.HISTORY_COLUMNS, [n, 0.1, loss, accuracy, 2.5, 0.5, 3.0], strict=True))
        for n, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True), 1)
    ]
    store.write(
        folder,
        a_run(),
        {"backend": "torch", "versions": {}, "device": "cpu", "processor": "p"},
        history,
        METRICS | metrics,
        ["cat", "dog"],
        [[3, 1], [0, 4]],
        lambda path: path.write_bytes(b"a model"),
        predictions.of(np.array([0, 1]), np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([4, 2])),
    )
    return folder


def test_a_result_reads_back(tmp_path):
    result = store.read(written(tmp_path / "run"))
    assert (result.place, result.spec) == (a_run().place, a_run().spec.model_dump())
    assert result.settings == a_run().spec.settings
    assert [record["train_accuracy"] for record in result.history] == [0.25, 0.5]
    assert result.class_names == ["cat", "dog"] and result.confusion == [[3, 1], [0, 4]]
    assert result.model_file.read_bytes() == b"a model"
    assert result.predictions.images.tolist() == [4, 2]
    assert result.hits.right.tolist() == [True, False]
    assert repr(result) == "Result(run, test accuracy 50.0%)"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # nothing else is left


def test_a_result_is_read_under_the_names_of_the_command_at_hand(tmp_path):
    folder = written(tmp_path / "run")
    before = (folder / "run.json").stat().st_mtime_ns
    assert store.read_as(folder, a_run()) == store.read(folder)
    assert (folder / "run.json").stat().st_mtime_ns == before  # which it was made under
    asked = a_run()
    asked = asked.model_copy(
        update={
            "place": asked.place.model_copy(update={"row": "5", "comparable": True}),
            "spec": asked.spec.model_copy(
                update={"images": asked.spec.images.model_copy(update={"data": "elsewhere"})}
            ),
        }
    )
    result = store.read_as(folder, asked)
    assert (result.place.row, result.settings["data"]) == ("5", "elsewhere")
    assert store.read(folder) == result and len(result.history) == 2


def test_floats_read_back_to_the_bit(tmp_path):
    rng = np.random.default_rng(0)
    numbers = [float(x) for x in rng.normal(size=200) * 10.0 ** rng.integers(-300, 300, 200)]
    numbers += [0.1 + 0.2, np.nextafter(1.0, 2.0), 5e-324, -0.0, float(np.float32(0.1))]
    history = store.read(written(tmp_path / "run", [0.5] * len(numbers), losses=numbers)).history
    read = np.array([record["train_loss"] for record in history])
    assert read.tobytes() == np.array(numbers).tobytes()


def test_an_error_while_writing_leaves_the_older_result_and_nothing_else(tmp_path):
    for before in (False, True):
        folder = tmp_path / str(before) / "run"
        if before:
            written(folder)
        with pytest.raises(RuntimeError), store.new_folder(folder) as partial:
            (partial / "run.json").write_text("half")
            raise RuntimeError
        assert list(folder.parent.iterdir()) == ([folder] if before else [])
        if before:
            store.read(folder)


def test_the_older_result_comes_back_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    written(folder, accuracies=(0.25, 0.5))
    older, rename = store.read(folder), os.rename

    def refuse(source, target):
        if source.name.endswith(".partial"):
            raise OSError("the disk is gone")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(OSError, match="disk is gone"):
        written(folder, accuracies=(0.5, 0.75))
    assert store.read(folder) == older and list(tmp_path.iterdir()) == [folder]
    # Killed between the two renames, and the next attempt fails before it is done.
    rename(folder, tmp_path / ".run.replaced")
    with pytest.raises(RuntimeError), store.new_folder(folder):
        raise RuntimeError
    assert store.read(folder) == older and list(tmp_path.iterdir()) == [folder]


def test_a_kill_while_writing_leaves_no_run_and_its_remains_go_next_time(tmp_path):
    folder = tmp_path / "run"
    code = (
        "import os, pathlib, signal, sys; from keras_cnn.results import store\n"
        "with store.new_folder(pathlib.Path(sys.argv[1])) as partial:\n"
        "    (partial / 'run.json').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(folder)])
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert [path.name[0] for path in tmp_path.iterdir()] == ["."]  # hidden remains
    with store.new_folder(folder) as partial:
        assert list(partial.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


def test_a_run_is_held_by_one_process_and_freed_by_its_death(tmp_path):
    folder = tmp_path / "run"
    code = (
        "import pathlib, sys, time; from keras_cnn.results import store\n"
        "with store.held(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(store.Busy), store.held(folder):
            pass
        with store.held(tmp_path / "another"):
            pass
    finally:
        other.kill()
        other.communicate()
    with store.held(folder):
        pass
    with store.held(folder):  # released on leaving
        pass


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((name, None) for name in ("run.json", "history.csv", "metrics.json", "confusion.csv")),
        *((name, "") for name in ("environment.json", "history.csv", "confusion.csv")),
        *((name, "{}") for name in ("run.json", "environment.json", "metrics.json")),
        ("metrics.json", '{"train_accuracy": 0.5, "test_acc'),
        ("metrics.json", "[1, 2]"),
        ("history.csv", ",".join(store.HISTORY_COLUMNS) + "\n"),
        ("history.csv", ",".join(store.HISTORY_COLUMNS) + "\n1,0.1,\n"),
        ("history.csv", "epoch,seconds\n1,2\n"),
        ("confusion.csv", "true class,cat,dog\ncat,3,1\n"),
        ("confusion.csv", "true class,cat,dog\ncat,3,1\ndog,0\n"),
    ],
)
def test_a_damaged_folder_is_one_clear_line(tmp_path, name, content):
    folder = written(tmp_path / "run")
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(UserError) as raised:
        store.read(folder)
    text = str(raised.value)
    assert text.startswith(f"{folder}: damaged") and "\n" not in text and "delete" in text


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        ("metrics.json", "test_accuracy", "good"),
        ("metrics.json", "test_accuracy", 1.5),
        ("metrics.json", "test_accuracy", True),
        ("metrics.json", "test_accuracy_over_images", -0.1),
        ("metrics.json", "parameters", [1]),
        ("metrics.json", "seconds", -1),
        ("metrics.json", "train_images", 0),
        ("metrics.json", "train_images", 2.5),
        ("metrics.json", "shared_images", "many"),
        ("metrics.json", "diverged_at_epoch", "never"),
        ("environment.json", "device", None),
        ("environment.json", "versions", {"keras": 3}),
        ("run.json", "place", None),
        ("run.json", "spec", [1]),
        ("run.json", "spec", {"method": "own.method", "images": {}, "network": {}}),
        ("run.json", "spec", {"method": ["supervised"]}),
    ],
)
def test_json_of_wrong_types_and_ranges_is_one_clear_line(tmp_path, name, where, value):
    folder = written(tmp_path / "run")
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(content | {where: value}))
    with pytest.raises(UserError, match=rf"damaged \({name}: ") as raised:
        store.read(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("run.json", '"image_size": 32', '"image_size": 48'),
        ("run.json", '"row": "4"', '"row": "5"'),
        ("environment.json", '"device": "cpu"', '"device": "cpv"'),
        ("metrics.json", '"test_accuracy": 0.5', '"test_accuracy": 0.7'),
        ("history.csv", "0.25", "0.35"),
        ("confusion.csv", "cat,3,1", "cat,2,1"),
    ],
)
def test_other_values_of_the_right_kind_are_one_clear_line(tmp_path, name, right, wrong):
    folder = written(tmp_path / "run")
    text = (folder / name).read_text()
    assert text.count(right) == 1
    (folder / name).write_text(text.replace(right, wrong))
    with pytest.raises(UserError, match=rf"damaged \({name} is not what was written\)"):
        store.read(folder)


def test_a_result_without_checksums_reads_as_those_of_earlier_versions(tmp_path):
    folder = written(tmp_path / "run")
    result = store.read(folder)
    (folder / "checksums.json").unlink()
    (folder / "run.json").write_text(a_run().model_dump_json())
    assert store.read(folder) == result
    assert store.read_as(folder, a_run(repeat=1)).place.repeat == 1  # which writes a checksum
    assert store.read(folder).place.repeat == 1


@pytest.mark.parametrize("name", ["run.json", "environment.json", "metrics.json"])
def test_json_without_end_is_one_clear_line(tmp_path, name):
    folder = written(tmp_path / "run")
    for text in ("[" * 200_000, '{"a":' * 200_000, "9" * 10_000, "\0", "{}"):
        (folder / name).write_text(text)
        with pytest.raises(UserError, match="damaged"):
            store.read(folder)


def test_predictions_are_checked_and_older_results_have_none(tmp_path):
    folder = written(tmp_path / "run")
    path = folder / "predictions.npz"
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged \(predictions.npz is damaged\); delete"):
        store.read(folder)
    path.unlink()
    assert store.read(folder).predictions is store.read(folder).hits is None


def test_nothing_is_waited_for_in_a_file_that_is_none(tmp_path):
    for name in ("run.json", "metrics.json", "history.csv", "confusion.csv", "predictions.npz"):
        for number, make in enumerate((os.mkfifo, lambda path: path.symlink_to("/dev/zero"))):
            folder = written(tmp_path / f"{name}-{number}")
            (folder / name).unlink()
            make(folder / name)
            with pytest.raises(UserError, match="no regular file"):
                store.read(folder)


def test_what_is_not_finite_is_null_in_json_and_the_run_has_diverged(tmp_path):
    nan, inf = float("nan"), float("inf")
    result = store.read(written(tmp_path / "run", test_loss=nan, parameters=inf))
    text = (tmp_path / "run" / "metrics.json").read_text()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert result.metrics["test_loss"] is None and result.diverged_at is None
    (tmp_path / "run" / "checksums.json").unlink()
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(METRICS | {"test_loss": nan}))
    assert store.read(tmp_path / "run").metrics["test_loss"] is None  # as older versions wrote it
    result.history[1]["train_loss"] = inf
    assert result.diverged_at == 2 and "diverged at epoch 2" in repr(result)
    result = store.read(written(tmp_path / "run", diverged_at_epoch=1))  # its weights, not its loss
    assert result.diverged_at == 1


def test_class_names_are_no_formulas_in_a_spreadsheet_and_read_back(tmp_path):
    names = ["=1+1", "@sum", "-x", "+x", "'=1", "'tis", "a,b", "x\ny", "\udcff"]
    counts = np.eye(len(names), dtype=int).tolist()
    store.write(
        *(tmp_path / "run", a_run(), store.read(written(tmp_path / "other")).environment),
        *(store.read(tmp_path / "other").history, METRICS, names, counts, lambda path: None),
    )
    assert store.read(tmp_path / "run").class_names == names
    with (tmp_path / "run" / "confusion.csv").open(errors="surrogateescape") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


def test_the_next_command_brings_back_what_a_kill_left_hidden(tmp_path):
    """Killed between the two renames of a run that replaces an older one."""
    older = store.read(written(tmp_path / "run"))
    (tmp_path / "run").rename(tmp_path / ".run.replaced")
    (tmp_path / ".run.partial").mkdir()
    with store.held(tmp_path / "run"):
        store.recover(tmp_path)  # by another process, which may be about to rename
        assert not (tmp_path / "run").exists()
    store.recover(tmp_path)
    assert store.read(tmp_path / "run") == older
    assert {path.name for path in tmp_path.iterdir()} == {"run", ".locks"}


def test_a_replaced_file_is_old_or_new(tmp_path):
    path = tmp_path / "table.md"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    files.write_text(path, "new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["table.md"]


def test_a_place_that_cannot_be_written_to_is_found_before_any_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        files.check_writable(tmp_path / "file" / "artifacts")
    files.check_writable(tmp_path / "new" / "artifacts")
    assert list((tmp_path / "new" / "artifacts").iterdir()) == []


def test_json_is_readable_by_a_person(tmp_path):
    store.write_json(tmp_path / "run.json", {"a": 1, "b": 2})
    text = (tmp_path / "run.json").read_text()
    assert json.loads(text) == {"a": 1, "b": 2} and len(text.splitlines()) == 4


@pytest.mark.parametrize(
    ("losses", "epoch"),
    [
        ([2.3, 2.2, 2.1], None),
        ([14.0, 900.0, 0.1], None),  # a penalty of large weights, which falls
        ([2.3, 4e19, 2.1], 2),
        ([2.3, 2.3, float("nan")], 3),
        ([float("inf"), 2.3, 2.3], 1),
    ],
)
def test_a_loss_that_is_no_number_or_beyond_all_sense_tells_of_divergence(losses, epoch):
    for name, other in (("train_loss", "test_loss"), ("test_loss", "train_loss")):
        history = [{"epoch": n, name: loss, other: 2.3} for n, loss in enumerate(losses, 1)]
        assert statistics.diverged_at(history) == epoch
