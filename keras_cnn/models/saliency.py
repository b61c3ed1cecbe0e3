"""Where in an image a model sees the class that it names, on any backend, by inference alone."""

from __future__ import annotations

import math
from collections import Counter

import keras
import numpy as np

from keras_cnn.training import evaluation

LEAST_PLACES = 16  # of a map: fewer show nothing of where
MOST_NUMBERS = 1 << 24  # in the maps that are looked at together, 64 MB


def heat(model: keras.Model, images: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """How much each place of an image's last feature map speaks for a class.

    Each place in turn is made the mean of the others, and the log-odds of the class that are lost
    are its heat: occlusion (Zeiler and Fergus 2014, arXiv:1311.2901) of features, not of pixels. A
    head on average-pooled features sees the place left out of the average. Of a dense one the heat
    is the class activation map (Zhou et al. 2016, arXiv:1512.04150) of the class against the
    others, but for its mean and its scale; other heads need no gradient either.

    Args:
        model: Functional, raw images (n, h, w, 3), 0 to 255, to probabilities (n, classes).
        images: uint8 (n, h, w, 3).
        classes: The class looked for in each image, (n,).

    Returns:
        float32 (n, rows, columns) of the last map of at least 4 x 4 places: above 0 where the place
        speaks for the class, below 0 where it speaks against it.
    """
    cut = _last_map(model)
    rows, columns = cut.shape[1:3]
    if not len(images):
        return np.zeros((0, rows, columns), np.float32)
    maps = evaluation.outputs(keras.Model(model.input, cut), images)
    classify = evaluation.evaluator(keras.Model(cut, model.output))
    whole = _log_odds(classify(maps), classes)
    places = rows * columns
    together = max(1, MOST_NUMBERS // (places * maps[0].size))
    lost = []
    for start in range(0, len(maps), together):
        part = slice(start, start + together)
        without = _log_odds(classify(_with_a_place_left_out(maps[part])), classes[part], places)
        lost.append(whole[part, None] - without.reshape(-1, places))
    return np.concatenate(lost).reshape(-1, rows, columns).astype(np.float32)


def _last_map(model: keras.Model) -> keras.KerasTensor:
    """The last map of enough places through which all goes that a model makes of an image."""
    to_come = Counter(id(tensor) for layer in model.operations for tensor in _inputs(layer))
    found, live = model.input, set()
    for layer in model.operations:  # in the order of the graph
        for tensor in _inputs(layer):
            to_come[id(tensor)] -= 1
            if not to_come[id(tensor)]:
                live.discard(id(tensor))
        output = layer.output
        live.add(id(output))
        is_all_there_is = live == {id(output)} and len(output.shape) == 4
        if is_all_there_is and math.prod(output.shape[1:3]) >= LEAST_PLACES:
            found = output
    return found


def _inputs(layer: keras.Operation) -> list[keras.KerasTensor]:
    if isinstance(layer, keras.layers.InputLayer):
        return []
    return layer.input if isinstance(layer.input, list) else [layer.input]


def _with_a_place_left_out(maps: np.ndarray) -> np.ndarray:
    """Maps (n, h, w, c), each with one place after the other as the mean of its others.

    Returns:
        (n * h * w, h, w, c).
    """
    flat = maps.reshape(len(maps), -1, maps.shape[-1])  # (n, places, c)
    places = flat.shape[1]
    others = (flat.sum(axis=1, keepdims=True) - flat) / (places - 1)
    copies = np.repeat(flat[:, None], places, axis=1)  # (n, places, places, c)
    every = np.arange(places)
    copies[:, every, every] = others
    return copies.reshape(-1, *maps.shape[1:])


def _log_odds(probabilities: np.ndarray, classes: np.ndarray, times: int = 1) -> np.ndarray:
    """Of each image's class against all others together, each class `times` in a row."""
    shares = probabilities.astype(np.float64)
    of_image = np.arange(len(shares)), np.repeat(classes, times)
    chosen = shares[of_image]
    shares[of_image] = 0  # what is left is summed, not taken from 1, where it would be lost
    tiny = np.finfo(np.float32).tiny
    return np.log(np.maximum(chosen, tiny)) - np.log(np.maximum(shares.sum(axis=1), tiny))
