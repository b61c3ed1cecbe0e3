"""The enhanced network: three stages that widen, batch normalisation, global pooling."""

from __future__ import annotations

import keras
from keras import layers

from keras_cnn.models.initializers import torch_initializers

VERSION = 1  # raised when the same settings give another network or other weights


def enhanced(image_size: int, seed: int, hidden_units: int = 64) -> keras.Model:
    """Three stages of [conv 3x3, ReLU, BatchNorm] x 2 and a max-pool, pooled.

    BatchNorm has torch's settings: epsilon 1e-5, momentum 0.1, which Keras counts as 0.9.

    Args:
        image_size: Height and width of its input, at least 8 pixels.
        seed: Seeds the weights, which begin as torch's.
        hidden_units: Channels of the first stage; the second has twice, the third four times it.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, 4 * hidden_units).
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="stem_rescaling")(inputs)
    for stage, width in enumerate((hidden_units, 2 * hidden_units, 4 * hidden_units), start=1):
        for number in (1, 2):
            at = f"stage{stage}_conv{number}"
            start = torch_initializers(x.shape[-1] * 3 * 3, seed, at)
            x = layers.Conv2D(width, 3, padding="same", name=at, **start)(x)
            x = layers.ReLU(name=f"stage{stage}_relu{number}")(x)
            x = layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name=f"stage{stage}_norm{number}"
            )(x)
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="features_pool")(x)  # (n, h/8, w/8, c) -> (n, c)
    return keras.Model(inputs, x)
