"""Exported models: their probabilities are Keras's, what is told beside them, what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from keras_cnn import classifier, environment, export, models
from keras_cnn.__main__ import main
from keras_cnn.data import decode
from keras_cnn.errors import UserError
from keras_cnn.export import convert, formats
from keras_cnn.models import saved

NAMES = ["red", "grün", "=blue"]
SIZE = 8
CARD = {"class_names": NAMES, "image_size": SIZE, "fit": "pad", "threshold": 0.4}


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    network = models.classifier("enhanced", 3, image_size=SIZE, hidden_units=4, seed=1)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    saved.save(saved.classifier(network), path, CARD)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """16 images and one that is damaged."""
    random = np.random.default_rng(0)
    for number in range(16):
        pixels = random.integers(0, 256, (12, 10, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.png").write_text("no image")
    return tmp_path


def images(count):
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3)).astype("float32")


def by_onnxruntime(path, *batches):
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    return [session.run(["probabilities"], {"images": given})[0] for given in batches]


def by_litert(path, *batches):
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path)).get_signature_runner()
    return [run(images=given)["probabilities"] for given in batches]


def by_openvino(path, *batches):
    import openvino

    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    run = openvino.Core().compile_model(path, "CPU", exact)
    return [np.array(run({"images": given})["probabilities"]) for given in batches]


TENSORFLOW = """
import sys, numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
for name in sys.argv[2:]:
    given = tf.constant(np.load(name))
    made = loaded.signatures["serving_default"](images=given)["probabilities"].numpy()
    assert np.allclose(loaded.serve(given)["probabilities"].numpy(), made, atol=1e-6)
    np.save(name, made)
"""


def by_tensorflow(path, *batches):
    """In a process of its own: nothing else here imports TensorFlow."""
    names = [path.with_name(f"given{number}.npy") for number, _ in enumerate(batches)]
    for name, given in zip(names, batches, strict=True):
        np.save(name, given)
    code = [sys.executable, "-c", TENSORFLOW]
    subprocess.run([*code, path, *names], check=True, capture_output=True)
    return [np.load(name) for name in names]


RUNTIMES = {
    "onnx": ("onnxruntime", by_onnxruntime),
    "litert": ("ai_edge_litert", by_litert),
    "openvino": ("openvino", by_openvino),
    "tf_saved_model": ("tensorflow", by_tensorflow),
}


@pytest.mark.parametrize("format", formats.FORMATS)
def test_each_format_gives_the_probabilities_of_keras(format, model_path, tmp_path, capsys):
    module, run = RUNTIMES[format]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    out = tmp_path / f"mine{formats.FORMATS[format].suffix}"
    assert main(["export", str(model_path), f"--format={format}", f"--out={out}"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{out}: as Keras on 32 images") and second.endswith(f"{out}.json")
    about = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
    assert (about["class_names"], about["image_size"], about["fit"]) == (NAMES, SIZE, "pad")
    assert about["format"] == format and about["file"] == out.name
    assert about["threshold"] == 0.4
    assert about["input"]["shape"] == [None, SIZE, SIZE, 3]
    assert about["compared_with_keras"]["largest_difference"] < 1e-5
    network = keras.models.load_model(model_path)
    batches = images(5), images(1)
    made = {path for path in tmp_path.rglob("*") if path.is_file()}
    for given, found in zip(batches, run(out, *batches), strict=True):
        np.testing.assert_allclose(found, network.predict(given, verbose=0), atol=1e-5)
    assert {path.name.partition(".")[0] for path in made if path.parent == tmp_path} == {"mine"}
    ours = os.fsencode(Path(export.__file__).parents[1])
    for content in (path.read_bytes() for path in made):  # nor where it was written
        assert ours not in content and b"site-packages" not in content
    if format == "onnx":
        the_same_is_inside(out, about)


def the_same_is_inside(file, about):
    import onnx

    inside = {prop.key: prop.value for prop in onnx.load(file).metadata_props}
    del about["compared_with_keras"]
    assert inside.keys() == about.keys() and inside["format"] == "onnx"
    for key, value in about.items():
        assert inside[key] == value or json.loads(inside[key]) == value
    (given,) = onnx.load(file).graph.input
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"


def endings():
    """Models as others save them: logits, one output, grey images, of any size."""
    for channels, size in ((3, SIZE), (1, SIZE), (3, None)):
        for count, activation in ((3, None), (3, "softmax"), (1, "sigmoid"), (1, "linear")):
            image = keras.Input((size, size, channels))
            x = keras.layers.Rescaling(1 / 255)(image)
            x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(x))
            yield keras.Model(image, keras.layers.Dense(count, activation)(x))


def test_the_whole_model_goes_from_rgb_to_probabilities(tmp_path):
    given, seen = images(6), set()
    for model in endings():
        path = tmp_path / "model.keras"
        saved.save(model, path, {"image_size": SIZE})
        opened = classifier.opened(path)
        outputs = opened.outputs(given.astype("uint8"))
        ending = opened.ending(outputs)
        whole = convert.whole(opened.network, ending, SIZE)
        made = keras.ops.convert_to_numpy(whole(given)["probabilities"])
        np.testing.assert_allclose(made, opened.probabilities(outputs), atol=1e-6)
        np.testing.assert_allclose(made.sum(axis=1), 1, atol=1e-6)
        seen.add(ending)
    assert seen == {"none", "softmax", "sigmoid", "rest"}


def written(monkeypatch, change):
    """A converter that writes two files, and probabilities as changed."""

    def converted(request, kind, path, model):
        opened = classifier.opened(model)
        given = np.load(request["images"])
        np.save(request["probabilities"], change(opened.probabilities(opened.outputs(given))))
        for suffix in (kind.suffix, kind.companion):
            Path(request["out"]).with_suffix(suffix).write_text(str(request["metadata"]))

    monkeypatch.setattr(export, "_convert", converted)
    monkeypatch.setattr(export, "find", lambda name: formats.FORMATS[name])


def test_other_probabilities_leave_no_file(monkeypatch, model_path, folder, capsys):
    out = folder / "out" / "mine.xml"
    out.parent.mkdir()
    command = ["export", str(model_path), "--format=openvino", f"--out={out}", f"--data={folder}"]
    for change, said in (
        (lambda p: p + np.float32(2e-4) * (np.arange(3) == 1), "by 0.0002 on 16 images"),
        (lambda p: np.where(np.arange(3) == 1, np.nan, p), "by inf"),
        (lambda p: p[:, :2], "by inf"),
    ):
        written(monkeypatch, change)
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == 1 and not [*out.parent.iterdir()]
        (line,) = capsys.readouterr().err.splitlines()
        assert "other probabilities than Keras" in line and said in line
    written(monkeypatch, lambda p: p + np.float32(5e-5))
    out.write_text("of an earlier model")
    assert main(command) == 0
    assert {path.name for path in out.parent.iterdir()} == {"mine.xml", "mine.bin", "mine.xml.json"}
    assert "class_names" in out.read_text()


def test_the_example_prepares_photographs_as_predict_does(tmp_path):
    code = re.search(r"(    def square.*?)\n\n", export.__doc__, re.DOTALL)[1]
    names: dict = {"np": np, "Image": Image, "ImageOps": ImageOps, "about": {"image_size": 24}}
    exec(textwrap.dedent(code), names)
    random, turned = np.random.default_rng(0), Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for number, (width, height) in enumerate(((400, 301), (97, 310), (60, 50), (24, 20))):
        pixels = random.integers(0, 256, (5, 4, 3), dtype=np.uint8)
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(pixels).resize((width, height)).save(path, exif=turned)
        (seen,) = decode.decode_batch([str(path)], 24).images
        np.testing.assert_array_equal(names["square"](path), seen)


def test_a_converter_that_fails_is_one_line(monkeypatch, model_path, tmp_path, capsys):
    monkeypatch.setattr(export, "find", lambda name: formats.FORMATS[name])
    for code, said in (
        (
            "import sys; print(1); sys.exit('a\\nTypeError: no such layer')",
            "TypeError: no such lay",
        ),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal 9, out of memory?"),
    ):
        monkeypatch.setattr(environment, "PYTHON", (sys.executable, "-c", code))
        with pytest.raises(SystemExit) as ended:
            main(["export", str(model_path), "--format=onnx", f"--out={tmp_path / 'a.onnx'}"])
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 1 and said in line and not [*tmp_path.iterdir()]


def test_what_cannot_be_exported_is_refused_before_the_work(
    monkeypatch, model_path, folder, capsys
):
    monkeypatch.setattr(export, "_convert", None)
    for name in range(1, 15):
        (folder / f"{name}.png").unlink()
    other = folder / "other.keras"
    image = keras.Input((SIZE, SIZE, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save(other)
    place = "--format=tf_saved_model"
    monkeypatch.setitem(
        formats.FORMATS, "none", formats.Format(".x", "torch", ("no_such_module",), "none")
    )
    onnx_here = formats.Format(".onnx", "torch")  # whatever is installed
    monkeypatch.setitem(formats.FORMATS, "onnx", onnx_here)
    for words, said in (
        ([model_path], "export needs --format=onnx"),
        ([model_path, "--format=onxx"], "no format 'onxx': did you mean 'onnx'?"),
        ([model_path, "--format=none"], "needs no_such_module, not installed: pip install -e '.["),
        ([folder / "none.keras", "--format=onnx"], "no such file"),
        ([other, "--format=onnx"], "gives (n, 6, 6, 2), not probabilities"),
        ([model_path, "--format=onnx", f"--out={folder / 'a.bin'}"], "ends in .onnx"),
        ([model_path, "--format=onnx", f"--out={folder / 'b' / 'a.onnx'}"], "there is no folder"),
        ([model_path, place, f"--out={folder}"], "something else is there"),
        ([model_path, place, f"--out={other}"], "something else is there"),
        ([model_path, "--format=onnx", f"--data={folder}"], "2 images can be read there, at least"),
    ):
        assert main(["export", *map(str, words)]) == 2, words
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
    if os.getuid():
        (locked := folder / "locked").mkdir(mode=0o500)
        with pytest.raises(UserError, match="cannot be written there"):
            export.write(model_path, "onnx", locked / "a.onnx")
