"""The deck's CNN for few images, from scratch: three convolutions and a dense layer."""

from __future__ import annotations

import keras
from keras import layers

from keras_cnn.models.initializers import torch_initializers

VERSION = 1  # raised when the same settings give another network or other weights


def fewshot_cnn(image_size: int, seed: int) -> keras.Model:
    """Three stages of [conv 3x3, ReLU, max-pool], 32, 64 and 128 channels, then dense 256, ReLU.

    Args:
        image_size: Height and width of its input, at least 8 pixels.
        seed: Seeds the weights, which begin as torch's.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, 256).
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="stem_rescaling")(inputs)
    for stage, width in enumerate((32, 64, 128), start=1):
        start = torch_initializers(x.shape[-1] * 3 * 3, seed, f"stage{stage}_conv")
        x = layers.Conv2D(width, 3, padding="same", name=f"stage{stage}_conv", **start)(x)
        x = layers.ReLU(name=f"stage{stage}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = layers.Flatten(name="features_flatten")(x)  # (n, h/8, w/8, 128) -> (n, h/8 * w/8 * 128)
    start = torch_initializers(x.shape[-1], seed, "features_dense")
    x = layers.Dense(256, activation="relu", name="features_dense", **start)(x)
    return keras.Model(inputs, x)
