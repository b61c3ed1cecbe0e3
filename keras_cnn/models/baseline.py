"""The baseline: TinyVGG of CNN Explainer (Wang et al. 2020, arXiv:2004.15004)."""

from __future__ import annotations

import keras
from keras import layers

from keras_cnn.models.initializers import torch_initializers
from keras_cnn.models.seeds import layer_seed


def baseline(
    class_count: int, image_size: int, hidden_units: int, dropout: float = 0.0, seed: int = 0
) -> keras.Model:
    """Two stages of [conv 3x3, ReLU] x 2 and a max-pool, then dropout and a dense layer.

    Args:
        class_count: Outputs.
        image_size: Height and width of its input, at least 4 pixels.
        hidden_units: Channels of every convolution.
        dropout: Rate before the dense layer.
        seed: Of the weights, which begin as torch's, and of dropout.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to logits (n, class_count). Layers are named
        `stem_rescaling`, `stage1_…`, `stage2_…`, `features_flatten`, `head_…`.
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="stem_rescaling")(inputs)
    for stage in (1, 2):
        for number in (1, 2):
            name = f"stage{stage}_conv{number}"
            start = torch_initializers(x.shape[-1] * 3 * 3, seed, name)
            x = layers.Conv2D(hidden_units, 3, padding="same", name=name, **start)(x)
            x = layers.ReLU(name=f"stage{stage}_relu{number}")(x)
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = layers.Flatten(name="features_flatten")(x)  # (n, h/4, w/4, c) -> (n, h/4 * w/4 * c)
    x = layers.Dropout(dropout, seed=layer_seed(seed, "head_dropout"), name="head_dropout")(x)
    start = torch_initializers(x.shape[-1], seed, "head_logits")
    logits = layers.Dense(class_count, name="head_logits", **start)(x)
    return keras.Model(inputs, logits, name="baseline")
