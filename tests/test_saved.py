"""A saved model is Keras's own: it works on every backend, and where this package is not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from keras_cnn import environment, models
from keras_cnn.deck.supervised_as_run import with_dropout_on_logits
from keras_cnn.errors import UserError
from keras_cnn.models import convnext, heads, saved

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
CARD = {"class_names": ["cat", "dog", "frog"], "image_size": 32}
# Dropout of the logits as in the deck. The last two compile for half a minute elsewhere: they
# train on, and the last predicts, on torch alone.
SAVED = ("convnext", "cosine", "cosine_after", "resnet18", "efficientnet_lite0")
TRAINED_ANYWHERE = SAVED[:-2]
PREDICTING_ANYWHERE = SAVED[:-1]

# What a user does elsewhere, with Keras alone: load, predict, train on.
ELSEWHERE = """
import json, os, sys
sys.modules["keras_cnn"] = sys.modules["keras_cv"] = None  # importing them fails
import keras, numpy as np
assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
folder = sys.argv[1]
images = np.load(f"{folder}/images.npy")
said = {}
for name in sys.argv[2].split(","):
    model = keras.models.load_model(f"{folder}/{name}.keras")
    said[name] = {"probabilities": model.predict(images, verbose=0).tolist()}
    if name not in sys.argv[3].split(","):
        continue
    before = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy",
        jit_compile=keras.backend.backend() == "jax",  # TensorFlow's takes long, once
    )
    history = model.fit(images, np.arange(len(images)) % 3, epochs=1, verbose=0)
    after = [keras.ops.convert_to_numpy(w) for w in model.trainable_weights]
    said[name] |= {
        "loss": history.history["loss"][0],
        "moved": sum(bool((a != b).any()) for a, b in zip(after, before)),
        "weights": len(after),
    }
assert "tensorflow" not in sys.modules or keras.backend.backend() == "tensorflow"
print(json.dumps(said))
"""


def small_convnext(image_size, seed):
    return convnext.convnext((1, 1, 2, 1), (8, 16, 24, 32), image_size, seed, stochastic_depth=0.2)


def a_model(name):
    """A backbone as a recipe leaves it, its last stage trainable; or a cosine head on little."""
    environment.seed_everything(5)
    if name == "convnext":
        name = f"{__name__}.small_convnext"
        model = models.classifier(name, 3, seed=5, unfrozen_stages=1, dropout=0.5)
    elif name == "resnet18":
        model = models.classifier(name, 3, seed=5, unfrozen_stages=1)
    elif name == "efficientnet_lite0":
        model = models.classifier(name, 3, 32, unfrozen_stages=1, weights="pretrained")
    else:
        inputs = keras.Input((32, 32, 3))
        x = keras.layers.Conv2D(8, 3, strides=4)(keras.layers.Rescaling(1 / 255)(inputs))
        x = keras.layers.GlobalAveragePooling2D()(x)
        model = keras.Model(inputs, heads.logits(x, 3, "cosine", 0.5, seed=5))
        model = with_dropout_on_logits(model) if name == "cosine_after" else model
    rng = np.random.default_rng(5)
    for variable in model.weights:  # so that each weight and statistic matters
        if variable.path.split("/")[0].endswith("_scale"):  # a block adds nothing as it starts
            variable.assign(rng.uniform(0.2, 0.4, variable.shape).astype("float32"))
        if variable.name in ("gamma", "beta", "moving_mean", "moving_variance", "bias"):
            value = keras.ops.convert_to_numpy(variable)
            variable.assign(value + rng.uniform(0, 0.2, value.shape).astype("float32"))
    return model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The saved models' folder, and the softmax of each network's logits before it was saved."""
    folder = tmp_path_factory.mktemp("saved")
    np.save(folder / "images.npy", IMAGES)
    expected = {}
    for name in SAVED:
        model = a_model(name)
        logits = keras.ops.convert_to_numpy(model(IMAGES.astype("float32"), training=False))
        shifted = np.exp(logits.astype("float64") - logits.max(axis=1, keepdims=True))
        expected[name] = shifted / shifted.sum(axis=1, keepdims=True)
        assert np.ptp(expected[name], axis=0).max() > 1e-3, "images are told apart"
        saved.save(saved.classifier(model), folder / f"{name}.keras", CARD)
    return folder, expected


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_it_predicts_the_same_and_trains_on_without_this_package(files, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    folder, expected = files
    names = SAVED if backend == "torch" else PREDICTING_ANYWHERE
    trained = SAVED if backend == "torch" else TRAINED_ANYWHERE
    quickly = f"{os.environ.get('XLA_FLAGS', '')} {environment.settled(backend, 1)['XLA_FLAGS']}"
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, folder, ",".join(names), ",".join(trained)],
        env={**os.environ, **environment.settled(backend, 1), "XLA_FLAGS": quickly},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    for name in names:
        np.testing.assert_allclose(said[name]["probabilities"], expected[name], atol=1e-4)
        if name in trained:
            assert np.isfinite(said[name]["loss"])
            assert said[name]["moved"] > 0.9 * said[name]["weights"] > 0, name


def test_the_file_holds_built_in_layers_on_raw_images_and_the_card(files):
    folder, _ = files
    for name in SAVED:
        model, card = saved.load(folder / f"{name}.keras")
        assert card == {**CARD, "keras": ">= 3.11"}
        assert model.input_shape == (None, 32, 32, 3) and model.output_shape == (None, 3)
        for layer in model.layers:
            assert type(layer).__module__.startswith("keras.src.layers"), layer
        with zipfile.ZipFile(folder / f"{name}.keras") as archive:
            config = archive.read("config.json").decode()
        assert "keras_cnn" not in config and "keras_cv" not in config
        assert not json.loads(config)["compile_config"], "it would name torch's optimizer"


def test_what_was_frozen_stays_frozen(tmp_path):
    model = a_model("convnext")
    saved.save(saved.classifier(model), tmp_path / "model.keras", CARD)
    loaded, _ = saved.load(tmp_path / "model.keras")
    trainable = {weight.path for weight in model.trainable_weights}
    assert {weight.path for weight in loaded.trainable_weights} == trainable
    assert 0 < len(trainable) < len(model.weights) / 2


def test_a_file_of_keras_itself_has_an_empty_card(tmp_path):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    model.save(tmp_path / "model.keras")
    assert saved.load(tmp_path / "model.keras")[1] == {}


def test_what_is_no_model_is_one_line(tmp_path, files):
    whole = (files[0] / "convnext.keras").read_bytes()
    (tmp_path / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.keras").write_text("no model")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as archive:
        archive.writestr("keras_cnn.json", "{}")
    for name, words in (
        ("cut", "not a .keras file"),
        ("text", "not a .keras file"),
        ("empty", "cannot load"),
        ("none", "no such file"),
    ):
        with pytest.raises(UserError, match=words) as raised:
            saved.load(tmp_path / f"{name}.keras")
        assert "\n" not in str(raised.value)


def test_confusion_counts_true_by_row():
    labels, predicted = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    probabilities = [[float(label == column) for column in range(3)] for label in predicted]
    counts = saved.confusion(np.array(labels), np.array(probabilities))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
