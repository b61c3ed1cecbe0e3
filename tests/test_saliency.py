from __future__ import annotations

import keras
import numpy as np
import pytest

from keras_cnn import data, methods, models
from keras_cnn.models import saliency, saved


def log_odds(probabilities, label):
    others = np.delete(probabilities, label, axis=-1).sum(axis=-1)
    return np.log(probabilities[..., label]) - np.log(others)


def images(count=3, size=32):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def test_of_a_dense_head_it_is_the_class_activation_map():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    features = keras.layers.Conv2D(6, 5, strides=4, padding="same", activation="relu")(x)
    head = keras.layers.Dense(2, "softmax")
    model = keras.Model(inputs, head(keras.layers.GlobalAveragePooling2D()(features)))
    found = saliency.heat(model, images(), np.array([0, 1, 0]))
    kernel = head.get_weights()[0]
    maps = keras.Model(inputs, features).predict(images(), verbose=0)
    # Of two classes the log-odds are the difference of two logits, linear in the places' average.
    for heat, of_image, sign in zip(found, maps, (1, -1, 1), strict=True):
        activation = sign * of_image @ (kernel[:, 0] - kernel[:, 1])
        expected = (activation - activation.mean()) / (activation.size - 1)
        np.testing.assert_allclose(heat, expected, atol=2e-6)
    assert np.abs(found).max() > 1e-3


def classifier(kind):
    network = models.classifier("resnet18", 4, weights="random", image_size=128)
    if kind == "dense":
        return saved.classifier(network)
    split = data.Split(images(8, 128), np.arange(8) % 4, tuple("abcd"))
    train = {"probe": methods.linear_probe, "means": methods.nearest_mean}[kind].train
    return train(network, split, split).model


@pytest.mark.parametrize("kind", ["dense", "probe", "means"])
def test_of_any_head_it_is_what_occlusion_one_by_one_finds(kind):
    model = classifier(kind)
    assert saliency.heat(model, images(0, 128), np.zeros(0, int)).shape == (0, 4, 4)
    label, pictures = 2, images(2, 128)
    found = saliency.heat(model, pictures, np.array([label, label]))
    cut = next(x for x in model.layers if x.name == "features_pool").input
    front, rest = keras.Model(model.input, cut), keras.Model(cut, model.output)
    maps = front.predict(pictures, verbose=0)
    whole = log_odds(rest.predict(maps, verbose=0).astype(np.float64), label)
    for row, column in ((0, 0), (1, 3), (3, 2)):
        hidden = maps.copy()
        is_other = np.ones((4, 4), bool)
        is_other[row, column] = False
        hidden[:, row, column] = maps[:, is_other].mean(axis=1)
        without = log_odds(rest.predict(hidden, verbose=0).astype(np.float64), label)
        np.testing.assert_allclose(found[:, row, column], whole - without, atol=2e-5)
    assert np.abs(found).max() > 1e-4


def test_of_small_images_an_earlier_map_with_places_is_taken():
    model = saved.classifier(models.classifier("convnext_atto", 3, weights="random"))
    assert saliency.heat(model, images(2), np.array([0, 2])).shape == (2, 4, 4)
