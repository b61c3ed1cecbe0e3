"""The deck's branch of a siamese network: two convolutions of 5x5."""

from __future__ import annotations

import keras
from keras import layers

from keras_cnn.models.initializers import torch_initializers

VERSION = 1  # raised when the same settings give another network or other weights


def siamese_cnn(image_size: int, seed: int) -> keras.Model:
    """Two stages of [conv 5x5, ReLU, max-pool], 64 and 128 channels, flattened.

    Convolutions are padded: the deck does not say whether they were.

    Args:
        image_size: Height and width of its input; the deck scales images to 64 pixels.
        seed: Seeds the weights, which begin as torch's.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, h/4 * w/4 * 128).
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="stem_rescaling")(inputs)
    for stage, width in ((1, 64), (2, 128)):
        start = torch_initializers(x.shape[-1] * 5 * 5, seed, f"stage{stage}_conv")
        x = layers.Conv2D(width, 5, padding="same", name=f"stage{stage}_conv", **start)(x)
        x = layers.ReLU(name=f"stage{stage}_relu")(x)
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = layers.Flatten(name="features_flatten")(x)  # (n, h/4, w/4, 128) -> (n, h/4 * w/4 * 128)
    return keras.Model(inputs, x)
