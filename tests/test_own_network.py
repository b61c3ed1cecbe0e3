"""A network in a module of the user's own."""

from __future__ import annotations

import json
import os
import sys

import keras
import numpy as np
import pytest

from keras_cnn import models
from keras_cnn.__main__ import main
from keras_cnn.errors import UserError

MODULE = """
import keras
from keras import layers

import_count = 1

def my_network(image_size, seed, hidden_units=6):
    images = keras.Input((image_size, image_size, 3))
    x = layers.Rescaling(1 / 255)(images)
    x = layers.Conv2D(hidden_units, 3, kernel_initializer="he_normal", activation="relu")(x)
    x = layers.SeparableConv2D(8, 3, strides=2)(x)
    return keras.Model(images, layers.GlobalAveragePooling2D()(x))

def stack(image_size, seed):
    shape = (image_size, image_size, 3)
    return keras.Sequential([keras.Input(shape), layers.Conv2D(4, 3), layers.GlobalMaxPooling2D()])

def maps(image_size, seed):
    images = keras.Input((image_size, image_size, 3))
    return keras.Model(images, layers.Conv2D(4, 3)(images))

def gray(image_size, seed):
    images = keras.Input((image_size, image_size, 1))
    return keras.Model(images, layers.Flatten()(images))

def one_size(image_size, seed):
    images = keras.Input((96, 96, 3))
    return keras.Model(images, layers.GlobalMaxPooling2D()(images))

def layer(image_size, seed):
    return layers.Dense(3)

def subclassed(image_size, seed):
    class Own(keras.Model):
        pass
    return Own()

def without_seed(image_size):
    return None
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """The folder of a module, which can be imported here and in processes that begin here."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "my_module.py").write_text(MODULE)
    (folder / "my_faulty.py").write_text("import no_such_package\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
        yield folder
    sys.modules.pop("my_module", None)


@pytest.mark.every_backend
def test_it_has_a_head_and_initial_weights_like_any_other(module):
    model = models.classifier("my_module.my_network", 5, 16, seed=2, dropout=0.3)
    assert model.name == "my_module.my_network" and model.output.shape == (None, 5)
    again = models.classifier("my_module.my_network", 5, 16, seed=2)
    other = models.classifier("my_module.my_network", 5, 16, seed=3)
    pairs = zip(model.weights, again.weights, strict=True)
    assert all(np.array_equal(*map(keras.ops.convert_to_numpy, pair)) for pair in pairs)
    first, second = (keras.ops.convert_to_numpy(each.weights[0]) for each in (model, other))
    assert first.shape == second.shape and not np.array_equal(first, second)
    assert models.backbone("my_module.stack", 16).output.shape == (None, 4)


def test_its_options_are_its_keywords(module):
    models.check("my_module.my_network", 16, hidden_units=9)
    wide = models.backbone("my_module.my_network", 16, hidden_units=9)
    assert wide.layers[2].filters == 9
    with pytest.raises(UserError, match=r"my_module\.my_network has no stochastic_depth"):
        models.check("my_module.my_network", 16, stochastic_depth=0.1)
    with pytest.raises(UserError, match=r"my_module\.stack has no hidden_units"):
        models.check("my_module.stack", 16, hidden_units=9)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module.my_network", "cannot import 'no_such_module'"),
        ("my_faulty.my_network", "'my_faulty' .*no_such_package"),
        (".my_network", "no model '.my_network'"),
        ("my_module.my_netwrk", "no function 'my_netwrk': did you mean 'my_network'"),
        ("my_module.import_count", "no function 'import_count'"),
        ("my_module.without_seed", r"\(image_size, seed\)"),
        *(
            (f"my_module.{each}", r"features \(n, channels\)")
            for each in ("maps", "gray", "one_size", "layer", "subclassed")
        ),
    ],
)
def test_what_is_wrong_with_it_is_told_before_anything_runs(module, name, words):
    with pytest.raises(UserError, match=words):
        models.check(name, 16)


def test_a_recipe_trains_all_of_it(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = (
        "recipe fewshot_convnext --profile=mini --rows=4 --variant=corrected --repeats=1 "
        "--data=synthetic:20 --weights=random --set model my_module.my_network "
        "--set unfrozen_stages null --set shots 2 --set test_shots 2 --set epochs 1"
    )
    assert main(command.split()) == 0
    (folder,) = (path.parent for path in tmp_path.glob("artifacts/*/*/run.json"))
    assert "my_module.my_network" in (folder / "run.json").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    model = keras.models.load_model(folder / "model.keras")
    assert metrics["parameters"] == model.count_params()
    start = models.classifier("my_module.my_network", 10, 32, seed=0)
    for old, new in zip(start.trainable_weights, model.weights, strict=True):
        assert not np.array_equal(*map(keras.ops.convert_to_numpy, (old, new))), new.path
