"""Statistics of a whole data set for BatchNorm layers that trained on those of their batches."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_cnn.training import gradients

VERSION = 1  # raised when other statistics are stored


def store(model: keras.Model, images: np.ndarray, batch_size: int) -> None:
    """Gives BatchNorm layers that train the mean of the statistics of batches of images.

    Args:
        model: Its other weights stay as they are.
        images: (n, …), images or features, shuffled.
        batch_size: Images a batch; the last, smaller one weighs less.
    """
    momenta = {
        id(variable): layer.momentum
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        for variable in (layer.moving_mean, layer.moving_variance)
    }
    variables = model.non_trainable_variables
    places = [place for place, variable in enumerate(variables) if id(variable) in momenta]
    weights, state = gradients.tensors(model.trainable_variables), gradients.tensors(variables)
    for place in places:
        # From zero, a running mean takes 1 - momentum of the batch's statistics.
        state[place] = ops.zeros_like(state[place])
    totals = [0.0] * len(places)
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size], np.float32)
        _, new = model.stateless_call(weights, state, ops.convert_to_tensor(batch), training=True)
        taken = gradients.tensors(new[place] for place in places)
        share = len(batch) / len(images)
        totals = [total + share * value for total, value in zip(totals, taken, strict=True)]
    for place, total in zip(places, totals, strict=True):
        variables[place].assign(total / (1 - momenta[id(variables[place])]))
