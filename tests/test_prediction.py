"""Saved models on a user's image files: which are read, how, and what is said of the others."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import keras
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
    Image.new("RGB", (32, 32), (0, 200, 0)).save(tmp_path / "deep" / "scan.TIFF")
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
        str(folder / "deep" / "scan.TIFF"): "green",
    }
    other = "not a PNG, JPEG, WebP, BMP, TIFF or HEIC image"
    assert said.err.splitlines() == [
        f"keras_cnn: {folder / 'deep' / 'text.jpeg'}: {other}",
        f"keras_cnn: {folder / 'empty.png'}: empty file",
        f"keras_cnn: {folder / 'moving.gif'}: {other}",
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
        ([notes], f"{notes}: not a PNG, JPEG, WebP, BMP, TIFF or HEIC image"),
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


def means(channels=3, size=32):
    """An input, and the mean of each channel as shares of 1."""
    image = keras.Input((size, size, channels), name="image")
    return image, keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(image))


def dense(kernel, activation=None):
    layer = keras.layers.Dense(np.shape(kernel)[1], activation, use_bias=False)
    layer.build((None, len(kernel)))
    layer.set_weights([np.array(kernel, "float32")])
    return layer


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum()


COLOUR = np.array([200, 50, 50]) / 255
LARGE = [[900, 0, 0], [0, 900, 0], [0, 0, 950]]
LARGE_LOGITS = COLOUR * [900, 900, 950] - 700
ONE = [[1], [-1], [0]]
SIGMOID = 1 / (1 + np.exp(COLOUR[1] - COLOUR[0]))
OUTPUTS = {
    "logits": (lambda x: dense(LARGE)(x), softmax(LARGE_LOGITS)),
    "small logits": (lambda x: dense(np.eye(3) / 4)(x), softmax(COLOUR / 4)),
    "softmax": (lambda x: dense(LARGE, "softmax")(x), softmax(LARGE_LOGITS)),
    "softmax layer": (lambda x: keras.layers.Softmax()(x), softmax(COLOUR)),
    "softmax of ops": (lambda x: keras.ops.softmax(x, axis=-1), softmax(COLOUR)),
    "sigmoids": (lambda x: dense(np.eye(3), "sigmoid")(x), 1 / (1 + np.exp(-COLOUR))),
    "one sigmoid": (lambda x: dense(ONE, "sigmoid")(x), [1 - SIGMOID, SIGMOID]),
    "one logit": (lambda x: dense(ONE)(x), [1 - SIGMOID, SIGMOID]),
    "one of softmax": (lambda x: dense(ONE, "softmax")(x), [1]),
    "a model inside": (
        lambda x: keras.Sequential([keras.Input((3,)), dense(np.eye(3), "softmax")])(x),
        softmax(COLOUR),
    ),
}


@pytest.mark.filterwarnings("ignore:You are using a softmax")  # of one output
@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_of_every_kind_are_told_as_probabilities(kind, tmp_path):
    act, expected = OUTPUTS[kind]
    image, x = means()
    keras.Model(image, act(x)).save(tmp_path / "model.keras")
    Image.new("RGB", (32, 32), (200, 50, 50)).save(tmp_path / "a.png")
    made = prediction.predict(tmp_path / "model.keras", [tmp_path / "a.png"])
    assert made.class_names == [f"class {k}" for k in range(len(expected))]
    np.testing.assert_allclose(made.probabilities, [expected], atol=1e-5)


def test_a_model_of_one_channel_sees_grey_as_pillow_has_it(tmp_path):
    image, x = means(channels=1)
    score = dense([[1]], "sigmoid")(x)
    keras.Model({"image": image}, {"score": score}).save(tmp_path / "model.keras")
    colours = np.random.default_rng(0).integers(0, 256, (20, 3))
    paths = [tmp_path / f"{number:02}.png" for number in range(20)]
    greys = []
    for path, colour in zip(paths, colours, strict=True):
        picture = Image.new("RGB", (32, 32), tuple(map(int, colour)))
        picture.save(path)
        greys.append(np.asarray(picture.convert("L"))[0, 0] / 255)
    made = prediction.predict(tmp_path / "model.keras", paths).probabilities[:, 1]
    np.testing.assert_allclose(made, 1 / (1 + np.exp(-np.array(greys))), atol=1e-6)


def test_a_model_of_any_size_takes_that_of_its_card(tmp_path):
    image, x = means(size=None)
    model = keras.Model(image, keras.layers.Softmax()(x))
    Image.new("RGB", (40, 40), (200, 50, 50)).save(tmp_path / "a.png")
    saved.save(model, tmp_path / "sized.keras", {"image_size": 16})
    made = prediction.predict(tmp_path / "sized.keras", str(tmp_path / "a.png"))  # one alone, too
    np.testing.assert_allclose(made.probabilities, [softmax(COLOUR)], atol=1e-5)
    saved.save(model, tmp_path / "open.keras", {})
    with pytest.raises(UserError, match=r"takes \(n, any, any, 3\)"):
        prediction.predict(tmp_path / "open.keras", [tmp_path / "a.png"])


def odd_models():
    image, x = means()
    other = keras.Input((3,))
    wide = keras.Input((32, 64, 3))
    first = keras.Input((3, 32, 32))
    return {
        "takes (n, 32, 32, 4)": keras.Model(*means(channels=4)),
        "takes (n, 32, 64, 3)": keras.Model(wide, keras.layers.GlobalMaxPooling2D()(wide)),
        "takes images of 1,025 pixels": keras.Model(*means(size=1025)),
        "takes (n, 3, 32, 32)": keras.Model(first, keras.layers.Flatten()(first)),
        "1 inputs and gives 2": keras.Model(image, [x, dense(ONE)(x)]),
        "and gives 2 outputs": keras.Model(image, {"one": x, "other": dense(ONE)(x)}),
        "takes 2 inputs": keras.Model([image, other], keras.layers.Add()([x, other])),
        "gives (n, 30, 30, 2)": keras.Model(image, keras.layers.Conv2D(2, 3)(image)),
        "gives (n,)": keras.Model(image, keras.ops.sum(x, axis=-1)),
        "has not been built": keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)]),
    }


@pytest.mark.filterwarnings("ignore")  # Keras's, of the one not built
def test_models_that_tell_no_class_of_an_image_are_one_line(tmp_path):
    path = tmp_path / "model.keras"
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    for words, model in odd_models().items():
        model.save(path)
        for act, images in (
            (prediction.predict, [tmp_path / "a.png"]),
            (prediction.evaluate, "synthetic:10"),
        ):
            with pytest.raises(UserError) as refused:
                act(path, images)
            assert words in str(refused.value) and "\n" not in str(refused.value)


class Failing(keras.layers.Layer):
    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)

    def call(self, x):
        raise ValueError("shapes do not fit\nin any way")


def test_a_model_that_fails_on_images_is_one_line(tmp_path, monkeypatch):
    image, x = means()
    model = keras.Model(image, Failing()(x))
    monkeypatch.setattr(saved, "load", lambda path: (model, {}))
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"m\.keras: cannot be applied \([^\n]*\)$"):
        prediction.predict(tmp_path / "m.keras", [tmp_path / "a.png"])


class Counting(keras.layers.Layer):
    """Notes how many images it is given at a time."""

    def call(self, x):
        self.at_a_time = {*getattr(self, "at_a_time", ()), x.shape[0]}
        return x


@pytest.mark.parametrize(("size", "most"), [(1024, 1), (256, 16)])
def test_of_large_images_fewer_go_through_the_network_at_a_time(tmp_path, monkeypatch, size, most):
    counting = Counting()
    image, x = means(size=size)
    model = keras.Model(image, counting(x))
    monkeypatch.setattr(saved, "load", lambda path: (model, {}))
    counting.at_a_time = set()
    paths = [tmp_path / f"{number}.png" for number in range(20 if most > 1 else 2)]
    for path in paths:
        Image.new("RGB", (32, 32)).save(path)
    prediction.predict(tmp_path / "m.keras", paths)
    assert max(counting.at_a_time) == most  # a layer of 64 channels takes 268 MB of float32


def test_names_reach_no_terminal_raw_and_no_spreadsheet_as_formulas(capsys, tmp_path):
    image, x = means()
    model, path = tmp_path / "model.keras", tmp_path / "a\x1b[2J\n.png"
    names = ["=1+1", "\x07b", "c"]
    saved.save(keras.Model(image, dense(LARGE)(x)), model, {"class_names": names})
    Image.new("RGB", (32, 32), (200, 50, 50)).save(path)
    broken = tmp_path / "@broken.png"
    broken.write_text("no image")
    for flag in ((), ("--json",), ("--csv",)):
        with pytest.raises(SystemExit):
            main(["predict", str(model), str(path), str(broken), *flag])
        said = capsys.readouterr()
        assert not {"\x1b", "\x07"} & {*said.out, *said.err}
        if flag == ("--json",):
            image, error = json.loads(said.out)
            assert {one["name"] for one in image["classes"]} == {*names}
            assert error["image"] == str(broken) and error["error"].startswith("not a PNG")
    *rows, error = csv.DictReader(said.out.splitlines())
    assert [row["rank"] for row in rows] == ["1", "2", "3"]
    assert [row["class"] for row in rows] == ["'=1+1", r"\x07b", "c"]
    assert sum(float(row["probability"]) for row in rows) == pytest.approx(1)
    assert error["image"] == str(broken) and error["error"].startswith("not a PNG")
    assert main(["predict", str(model), str(path), "--json", "--csv"]) == 2


def test_nothing_to_classify(model_path, tmp_path):
    (tmp_path / "notes.txt").touch()
    for images, said in (
        ([], "needs image files"),
        ([tmp_path], "no images in this folder"),
        ([tmp_path / "x.png"], "no such file"),
        (["https://example.org/x.png"], "https://example.org/x.png is an address: download it"),
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
        assert evaluation.interval == pytest.approx((count / (count + 1.96**2), 1), abs=1e-4)
        assert evaluation.scores["macro_f1"] == 1
    for split in ("train", "valid"):
        with pytest.raises(UserError, match=f"{split}': it is one flat <class>/\\*, whose images"):
            prediction.evaluate(model_path, str(tmp_path / "flat"), split)
    (tmp_path / "alone" / "train").symlink_to(tmp_path / "one")
    picture = tmp_path / "picture.png"
    arguments = ["evaluate", str(model_path), f"--data={tmp_path / 'alone'}", f"--out={picture}"]
    assert main([*arguments, f"--csv={tmp_path / 'images.csv'}"]) == 0
    assert "\n3 of them have the pixels of training images\n" in capsys.readouterr().out
    with (tmp_path / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [f"test/{name}/{number}.png" for name in ("blue", "red") for number in range(3)]
    assert [row["file"] for row in rows] == names and rows[4]["image"] == "4"
    for row in rows:
        assert row["true class"] == row["predicted class"] == Path(row["file"]).parts[1]
        shares = [float(row[name]) for name in NAMES]
        assert sum(shares) == pytest.approx(1) and max(shares) == float(row[row["true class"]])


def test_images_are_brought_to_a_square_as_the_card_says(tmp_path, monkeypatch):
    """Blue wings beside a red square in the middle: what is seen of them differs."""
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, :32, 2] = wide[:, 64:, 2] = wide[:, 32:64, 0] = 255
    (tmp_path / "test" / "red").mkdir(parents=True)
    path = tmp_path / "test" / "red" / "x.png"
    Image.fromarray(wide).save(path)
    border = 127 / 255 * 2 / 3  # which is two thirds of the square
    seen = {
        "crop": [1, 0, 0],
        "pad": [1 / 9 + border, border, 2 / 9 + border],
        "squash": [1 / 3, 0, 2 / 3],
    }
    image, shares = means()
    model = keras.Model(image, keras.layers.Softmax()(shares))
    for fit, mean in {None: seen["crop"], **seen}.items():
        saved.save(
            model, tmp_path / "m.keras", {"class_names": NAMES} | ({"fit": fit} if fit else {})
        )
        predicted = prediction.predict(tmp_path / "m.keras", [path])
        evaluated = prediction.evaluate(tmp_path / "m.keras", str(tmp_path))
        expected = np.exp(mean) / np.exp(mean).sum()
        assert predicted.probabilities[0] == pytest.approx(expected, abs=0.01)
        assert evaluated.probabilities[0] == pytest.approx(expected, abs=0.01)
    saved.save(model, tmp_path / "m.keras", {"class_names": NAMES, "fit": ["pad"]})
    with pytest.raises(UserError, match=r"a fit \['pad'\], not crop, pad, squash"):
        prediction.predict(tmp_path / "m.keras", [path])


def test_a_class_has_its_name_in_either_form_of_unicode(tmp_path, monkeypatch):
    model = keras.Model(*means())
    card = {"class_names": ["red", "cafe\u0301", "blue"]}
    monkeypatch.setattr(saved, "load", lambda path: (model, card))
    for name, colour in (("red", (255, 0, 0)), ("caf\u00e9", (0, 255, 0))):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32), colour).save(tmp_path / "test" / name / "1.png")
    evaluation = prediction.evaluate(tmp_path / "m.keras", str(tmp_path))
    assert evaluation.accuracy == 1 and sorted(evaluation.labels.tolist()) == [0, 1]


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
