"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545), laid out as timm's, of built-in layers."""

from __future__ import annotations

from functools import partial

import keras
from keras import layers

from keras_cnn.models.initializers import Undrawn, layer_seed

VERSION = 2  # raised when the same settings give another network or other weights

EPSILON = 1e-6
LAYER_SCALE_START = 1e-6


def convnext(
    depths: tuple[int, ...],
    widths: tuple[int, ...],
    image_size: int,
    seed: int,
    stochastic_depth: float = 0.0,
) -> keras.Model:
    """A ConvNeXt without its classifier; pooled first, then normalised.

    Args:
        depths: Blocks of each stage.
        widths: Channels of each stage.
        image_size: Height and width of its input, at least 32 pixels.
        seed: Seeds the weights and what is dropped.
        stochastic_depth: Rate of the last block's dropped branches; it grows linearly from 0 at
            the first (Huang et al. 2016, arXiv:1603.09382).

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, channels of the last stage).
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="stem_rescaling")(inputs)
    x = _conv("stem_conv", widths[0], size=4, seed=seed)(x)
    x = layers.LayerNormalization(epsilon=EPSILON, name="stem_norm")(x)
    blocks_before, last_block = 0, max(sum(depths) - 1, 1)
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        if stage > 1:
            at = f"stage{stage}_downsample"
            x = layers.LayerNormalization(epsilon=EPSILON, name=f"{at}_norm")(x)
            x = _conv(f"{at}_conv", width, size=2, seed=seed)(x)
        for block in range(1, depth + 1):
            rate = stochastic_depth * (blocks_before + block - 1) / last_block
            x = _block(x, f"stage{stage}_block{block}", rate, seed)
        blocks_before += depth
    x = layers.GlobalAveragePooling2D(name="features_pool")(x)  # (n, h, w, c) -> (n, c)
    x = layers.LayerNormalization(epsilon=EPSILON, name="features_norm")(x)
    return keras.Model(inputs, x)


convnext_atto = partial(convnext, (2, 2, 6, 2), (40, 80, 160, 320))
convnext_femto = partial(convnext, (2, 2, 6, 2), (48, 96, 192, 384))
convnext_pico = partial(convnext, (2, 2, 6, 2), (64, 128, 256, 512))
convnext_nano = partial(convnext, (2, 2, 8, 2), (80, 160, 320, 640))
convnext_tiny = partial(convnext, (3, 3, 9, 3), (96, 192, 384, 768))


def _block(x: keras.KerasTensor, at: str, drop_rate: float, seed: int) -> keras.KerasTensor:
    """Depthwise 7x7, norm, expand four times, GELU, project, scale, drop, add: (n, h, w, c)."""
    width = x.shape[-1]
    y = layers.DepthwiseConv2D(
        7,
        padding="same",
        depthwise_initializer=_initializer(seed, f"{at}_depthwise"),
        name=f"{at}_depthwise",
    )(x)
    y = layers.LayerNormalization(epsilon=EPSILON, name=f"{at}_norm")(y)
    y = _dense(f"{at}_expand", 4 * width, seed)(y)
    y = layers.Activation("gelu", name=f"{at}_gelu")(y)  # the exact one, by erf
    y = _dense(f"{at}_project", width, seed)(y)
    # Layer scale, one learned factor a channel, as a built-in layer: saved models need only Keras.
    y = layers.EinsumDense(
        "nhwc,c->nhwc",
        output_shape=x.shape[1:],
        kernel_initializer=keras.initializers.Constant(LAYER_SCALE_START),
        name=f"{at}_scale",
    )(y)
    if drop_rate:
        y = layers.Dropout(
            drop_rate,
            noise_shape=(None, 1, 1, 1),  # a whole branch of one image, or nothing
            seed=layer_seed(seed, f"{at}_drop"),
            name=f"{at}_drop",
        )(y)
    return layers.Add(name=f"{at}_add")([x, y])


def _conv(name: str, width: int, size: int, seed: int) -> layers.Conv2D:
    """Patches of size x size that do not overlap."""
    return layers.Conv2D(
        width, size, strides=size, kernel_initializer=_initializer(seed, name), name=name
    )


def _dense(name: str, width: int, seed: int) -> layers.Dense:
    return layers.Dense(width, kernel_initializer=_initializer(seed, name), name=name)


def _initializer(seed: int, name: str) -> keras.initializers.Initializer:
    return Undrawn(keras.initializers.TruncatedNormal(stddev=0.02, seed=layer_seed(seed, name)))
