"""The baseline: TinyVGG of CNN Explainer (Wang et al. 2020, arXiv:2004.15004)."""

from __future__ import annotations

import keras
from keras import layers

from keras_cnn.models.initializers import torch_initializers

VERSION = 1  # raised when the same settings give another network or other weights


def baseline(image_size: int, seed: int, hidden_units: int = 32) -> keras.Model:
    """Two stages of [conv 3x3, ReLU] x 2 and a max-pool, flattened.

    Args:
        image_size: Height and width of its input, at least 4 pixels.
        seed: Seeds the weights, which begin as torch's.
        hidden_units: Channels of every convolution.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, h/4 * w/4 * hidden_units).
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="stem_rescaling")(inputs)
    for stage in (1, 2):
        for number in (1, 2):
            at = f"stage{stage}_conv{number}"
            start = torch_initializers(x.shape[-1] * 3 * 3, seed, at)
            x = layers.Conv2D(hidden_units, 3, padding="same", name=at, **start)(x)
            x = layers.ReLU(name=f"stage{stage}_relu{number}")(x)
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = layers.Flatten(name="features_flatten")(x)  # (n, h/4, w/4, c) -> (n, h/4 * w/4 * c)
    return keras.Model(inputs, x)
