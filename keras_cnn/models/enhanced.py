"""The enhanced network: three stages that widen, batch normalisation, global pooling."""

from __future__ import annotations

import keras
from keras import layers

from keras_cnn.models.initializers import torch_initializers
from keras_cnn.models.seeds import layer_seed


def enhanced(
    class_count: int, image_size: int, hidden_units: int, dropout: float = 0.5, seed: int = 0
) -> keras.Model:
    """Three stages of [conv 3x3, ReLU, BatchNorm] x 2 and a max-pool; pool, dropout, dense layer.

    BatchNorm has torch's settings: epsilon 1e-5, momentum 0.1, which Keras counts as 0.9.

    Args:
        class_count: Outputs.
        image_size: Height and width of its input, at least 8 pixels.
        hidden_units: Channels of the first stage; the second has twice, the third four times it.
        dropout: Rate before the dense layer.
        seed: Of the weights, which begin as torch's, and of dropout.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to logits (n, class_count). Layers are named
        `stem_rescaling`, `stage1_…` to `stage3_…`, `features_pool`, `head_…`.
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="stem_rescaling")(inputs)
    for stage, width in enumerate((hidden_units, 2 * hidden_units, 4 * hidden_units), start=1):
        for number in (1, 2):
            name = f"stage{stage}_conv{number}"
            start = torch_initializers(x.shape[-1] * 3 * 3, seed, name)
            x = layers.Conv2D(width, 3, padding="same", name=name, **start)(x)
            x = layers.ReLU(name=f"stage{stage}_relu{number}")(x)
            x = layers.BatchNormalization(
                momentum=0.9, epsilon=1e-5, name=f"stage{stage}_norm{number}"
            )(x)
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="features_pool")(x)  # (n, h/8, w/8, c) -> (n, c)
    x = layers.Dropout(dropout, seed=layer_seed(seed, "head_dropout"), name="head_dropout")(x)
    start = torch_initializers(x.shape[-1], seed, "head_logits")
    logits = layers.Dense(class_count, name="head_logits", **start)(x)
    return keras.Model(inputs, logits, name="enhanced")
