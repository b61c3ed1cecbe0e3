"""Backbones from Keras's own files: what fits arrives, what does not is named."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest

from keras_cnn import models
from keras_cnn.errors import UserError
from keras_cnn.models import saved
from keras_cnn.pretrained import keras_files, weights

NAME = "fewshot_cnn"


def network(seed, name=NAME, size=16):
    return models.classifier(name, 3, image_size=size, seed=seed)


def values(model):
    """By layer and place; a head's apart."""
    found = {True: {}, False: {}}
    for layer in model.layers:
        for place, weight in enumerate(layer.get_weights()):
            found[layer.name.startswith("head_")][layer.name, place] = weight
    return found[False], found[True]


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.keras"
    saved.save(saved.classifier(network(1)), path, {})
    return path


def complaint(act, *arguments):
    with pytest.raises(UserError) as caught:
        act(*arguments)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.every_backend
def test_a_saved_model_gives_its_backbone_and_not_its_head(model_file):
    other = network(2)
    _, head = values(other)
    weights.load(other, model_file)
    backbone, head_after = values(other)
    expected, _ = values(network(1))
    assert backbone.keys() == expected.keys() and len(backbone) > 6
    for key in backbone:
        np.testing.assert_array_equal(backbone[key], expected[key])
    for key in head:
        np.testing.assert_array_equal(head_after[key], head[key])


@pytest.mark.every_backend
def test_half_precision_is_the_nearest_and_kerass_own_reader_agrees(model_file, tmp_path):
    half = tmp_path / "half.weights.h5"
    keras_files.write_backbone(model_file, half)
    assert half.stat().st_size < 0.6 * model_file.stat().st_size
    ours, kerass = network(2), models.backbone(NAME, image_size=16, seed=3)
    weights.load(ours, half)
    kerass.load_weights(half)
    expected, _ = values(network(1))
    for found in (values(ours)[0], values(kerass)[0]):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value.astype("float16").astype("float32"))


def test_layers_that_hold_only_a_seed_need_no_file(tmp_path):
    path = tmp_path / "plain.keras"
    saved.save(models.classifier("convnext_atto", 3, seed=1), path, {})
    other = models.classifier("convnext_atto", 3, seed=2, stochastic_depth=0.2)
    weights.load(other, path)
    expected, _ = values(models.classifier("convnext_atto", 3, seed=1))
    found, _ = values(other)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)


def test_what_does_not_fit_is_named_and_nothing_changes(model_file):
    for other, words in (
        (network(2, size=24), "features_dense has shape"),
        (network(2, "siamese_cnn"), "stage1_conv has shape"),
        (network(2, "enhanced"), "enhanced"),
    ):
        before = [np.array(weight) for weight in other.get_weights()]
        text = complaint(weights.load, other, model_file)
        assert str(model_file) in text and words in text
        for a, b in zip(before, other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_layer_too_many_is_named(tmp_path):
    path = tmp_path / "more.keras"
    graph = network(1)
    more = keras.layers.Dense(2, name="unknown_dense")(graph.output)
    saved.save(keras.Model(graph.input, more), path, {})
    assert "fewshot_cnn has no 'unknown_dense'" in complaint(weights.load, network(2), path)


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_damaged_file_is_one_line(model_file, tmp_path, name, share):
    half = tmp_path / "whole.weights.h5"
    keras_files.write_backbone(model_file, half)
    content = (model_file if name.endswith(".keras") else half).read_bytes()
    damaged = tmp_path / "damaged" / name
    damaged.parent.mkdir()
    damaged.write_bytes(content[: int(share * len(content))])
    assert re.search("or a damaged one|is damaged", complaint(weights.load, network(2), damaged))


def test_weights_beyond_half_precision_are_refused(tmp_path):
    graph = network(1)
    graph.layers[2].set_weights([weight * 0 + 1e6 for weight in graph.layers[2].get_weights()])
    saved.save(graph, tmp_path / "large.keras", {})
    target = tmp_path / "half.weights.h5"
    text = complaint(keras_files.write_backbone, tmp_path / "large.keras", target)
    assert graph.layers[2].name in text and not target.exists()
