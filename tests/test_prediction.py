"""Saved models on a user's image files: which are read, how, and what is said of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import classification_report

from keras_cnn import prediction
from keras_cnn.__main__ import main
from keras_cnn.errors import UserError
from keras_cnn.models import saved

NAMES = ("red", "green", "blue")


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    """A model that names the strongest colour of a 32x32 image."""
    import keras

    image = keras.Input((32, 32, 3))
    scaled = keras.layers.Rescaling(1 / 25.5)(image)
    model = keras.Model(
        image, keras.layers.Softmax()(keras.layers.GlobalAveragePooling2D()(scaled))
    )
    path = tmp_path_factory.mktemp("model") / "model.keras"
    saved.save(model, path, {"class_names": NAMES})
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images of one colour each; two files that are damaged; a stray."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    Image.new("RGB", (32, 32), (200, 50, 50)).save(tmp_path / "a.png")
    Image.new("RGB", (90, 60), (0, 0, 255)).save(tmp_path / "deep" / "c.jpg")
    Image.new("RGBA", (32, 32), (0, 255, 0, 255)).save(tmp_path / "deep" / "er" / "b.WEBP")
    (tmp_path / "empty.png").touch()
    (tmp_path / "deep" / "text.jpeg").write_text("no image")
    (tmp_path / "notes.txt").touch()
    (tmp_path / "folder.png").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "moving.gif")
    Image.new("RGB", (32, 32)).save(tmp_path / "deep" / "scan.TIFF")
    os.mkfifo(tmp_path / "pipe.png")
    return tmp_path


def predicted(model_path: Path, images: list[Path], top: int = 3) -> dict[str, dict]:
    """By image, the best classes' probabilities."""
    found = prediction.predict(model_path, images)
    return dict(zip(map(str, found.paths), map(dict, found.best(top)), strict=True))


def test_probabilities_are_those_of_the_pixels(capsys, model_path, folder):
    path = folder / "a.png"
    found = predicted(model_path, [path])[str(path)]
    logits = np.array([200, 50, 50]) / 25.5
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [found[name] for name in NAMES] == pytest.approx(expected.tolist(), abs=1e-5)
    assert list(predicted(model_path, [path], top=1)[str(path)]) == ["red"]
    assert (
        repr(prediction.predict(str(model_path), [str(path)])) == "Predictions(1 images, 3 classes)"
    )
    assert capsys.readouterr() == ("", "")

    assert main(["predict", str(model_path), str(path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["image"] == str(path)
    assert {c["name"]: c["probability"] for c in row["classes"]} == pytest.approx(found)


def test_a_folder_is_searched_and_damaged_files_are_named(capsys, model_path, folder):
    with pytest.raises(SystemExit) as ended:
        main(["predict", str(model_path), str(folder), "--top=1"])
    assert ended.value.code == 2
    said = capsys.readouterr()
    best = dict(line.split(": ") for line in said.out.splitlines())
    assert {path: words.split()[0] for path, words in best.items()} == {
        str(folder / "a.png"): "red",
        str(folder / "deep" / "c.jpg"): "blue",
        str(folder / "deep" / "er" / "b.WEBP"): "green",
    }
    assert said.err.splitlines() == [
        f"keras_cnn: {folder / 'deep' / 'scan.TIFF'}: not a PNG, JPEG, WebP or BMP image",
        f"keras_cnn: {folder / 'deep' / 'text.jpeg'}: not a PNG, JPEG, WebP or BMP image",
        f"keras_cnn: {folder / 'empty.png'}: empty file",
        f"keras_cnn: {folder / 'moving.gif'}: not a PNG, JPEG, WebP or BMP image",
        f"keras_cnn: {folder / 'pipe.png'}: not a regular file",
    ]


def test_hidden_files_of_a_folder_are_passed_over(model_path, tmp_path):
    for name in ("a.png", "._a.png", ".thumbnails/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (200, 50, 50)).save(tmp_path / name)
    assert list(predicted(model_path, [tmp_path])) == [str(tmp_path / "a.png")]


def test_damaged_files_alone_are_one_line_before_the_framework_starts(
    model_path, folder, monkeypatch
):
    def started(path):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(saved, "load", started)
    empty, notes = folder / "empty.png", folder / "notes.txt"
    notes.write_text("no image")
    for images, said in (
        ([notes], f"{notes}: not a PNG, JPEG, WebP or BMP image"),
        ([empty, notes], f"{empty}: empty file; none of the 2 files can be read"),
    ):
        with pytest.raises(UserError) as refused:
            prediction.predict(model_path, images)
        assert str(refused.value) == said


def test_more_images_than_a_batch_keep_their_order(model_path, tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 3, 150)
    paths = [tmp_path / f"{number}.bmp" for number in range(150)]
    for path, colour in zip(paths, colours, strict=True):
        Image.new("RGB", (32, 32), tuple(255 * (np.arange(3) == colour))).save(path)
    found = predicted(model_path, paths, top=1)
    assert list(found) == [str(path) for path in paths]
    assert [next(iter(best)) for best in found.values()] == [NAMES[colour] for colour in colours]


def test_nothing_to_classify(model_path, tmp_path):
    (tmp_path / "notes.txt").touch()
    for images, said in (
        ([], "needs image files"),
        ([tmp_path], "no images in this folder"),
        ([tmp_path / "x.png"], "no such file"),
    ):
        with pytest.raises(UserError, match=said):
            prediction.predict(model_path, images)


def test_evaluation_takes_what_only_tests(model_path, tmp_path, capsys):
    colours = {"red": (200, 50, 50), "blue": (0, 0, 255)}
    for name, colour in colours.items():
        for place in ("flat", "alone/test"):
            (tmp_path / place / name).mkdir(parents=True)
            for number in range(3):
                shade = Image.new("RGB", (32, 32), (*colour[:2], colour[2] - number))
                shade.save(tmp_path / place / name / f"{number}.png")
    (tmp_path / "one").mkdir()
    (tmp_path / "flat" / "red").rename(tmp_path / "one" / "red")
    for place, count in (("flat", 3), ("one", 3), ("alone", 6)):
        evaluation = prediction.evaluate(model_path, str(tmp_path / place))
        assert (evaluation.accuracy, len(evaluation.labels), evaluation.shared) == (1, count, 0)
    (tmp_path / "alone" / "train").symlink_to(tmp_path / "one")
    picture = tmp_path / "picture.png"
    arguments = ["evaluate", str(model_path), f"--data={tmp_path / 'alone'}", f"--out={picture}"]
    assert main(arguments) == 0
    assert "\n3 of them have the pixels of training images\n" in capsys.readouterr().out


def test_means_are_over_the_classes_that_are_there():
    labels, random = np.array([0, 0, 1, 1, 1, 3]), np.random.default_rng(0)
    found = prediction.Evaluation(["a", "b", "c", "\x1b[1md"], labels, np.eye(4)[labels])
    lines = {line[:12].strip(): line[12:].split() for line in found.report().splitlines()}
    assert lines["macro avg"] == lines["weighted avg"] == ["1.000", "1.000", "1.000", "6"]
    assert lines["c"] == ["-", "-", "-", "0"] and lines["\\x1b[1md"] == ["1.000"] * 3 + ["1"]
    assert "\x1b" not in found.report()
    labels = random.integers(0, 3, 60)  # where all are there, as scikit-learn
    found = prediction.Evaluation(["a", "b", "c"], labels, random.random((60, 3)))
    wanted = classification_report(
        labels, found.predicted, target_names=["a", "b", "c"], output_dict=True
    )
    for line in filter(str.strip, found.report().splitlines()[1:]):
        name, (*measures, images) = line[:12].strip(), line[12:].split()
        if name in ("a", "b", "c", "macro avg", "weighted avg"):
            numbers = [f"{wanted[name][key]:.3f}" for key in ("precision", "recall", "f1-score")]
            assert (measures, float(images)) == (numbers, wanted[name]["support"])
        else:
            assert measures == [f"{wanted['accuracy']:.3f}"]


def test_a_model_whose_training_diverged_is_told(tmp_path, folder, model_path):
    import keras

    network = keras.models.load_model(model_path)
    scale = keras.layers.Rescaling([np.nan, 1.0, 1.0])
    diverged = keras.Model(network.input, network(scale(network.input)))
    saved.save(diverged, tmp_path / "nan.keras", {"class_names": NAMES, "test_accuracy": np.nan})
    assert saved.load(tmp_path / "nan.keras")[1]["test_accuracy"] is None  # strict JSON
    for use in (
        lambda: prediction.predict(tmp_path / "nan.keras", [folder / "a.png"]),
        lambda: prediction.evaluate(tmp_path / "nan.keras", "digits"),
    ):
        with pytest.raises(UserError, match=r"no number for any image|not taught"):
            use()
    some = prediction.Evaluation(list(NAMES), np.array([0, 1]), np.array([[np.nan] * 3, [0, 1, 0]]))
    assert some.accuracy == 0.5 and some.confusion().sum() == 1
