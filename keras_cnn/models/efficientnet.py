"""EfficientNet-Lite (Tan and Le 2019, arXiv:1905.11946), laid out as TensorFlow's lite models.

Against EfficientNet they have ReLU6 in place of swish, no squeeze-and-excitation, and a stem and a
last convolution that are not widened (tensorflow/tpu, models/official/efficientnet/lite).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import keras
from keras import layers

from keras_cnn.models.initializers import Undrawn, layer_seed

VERSION = 1  # raised when the same settings give another network or other weights

STEM_WIDTH, FEATURES = 32, 1280  # channels


class _Stage(NamedTuple):
    """Blocks between two changes of width."""

    depth: int
    width: int  # channels
    kernel_size: int
    stride: int  # of the first block
    expansion: int = 6  # factor of the channels inside a block


def efficientnet_lite(stages: tuple[_Stage, ...], image_size: int, seed: int) -> keras.Model:
    """An EfficientNet-Lite without its classifier.

    Args:
        stages: From the stem on.
        image_size: Height and width of its input, at least 32 pixels.
        seed: Seeds the weights.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, 1280).
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="stem_rescaling")(inputs)
    x = _convolution(x, "stem", STEM_WIDTH, size=3, stride=2, seed=seed)
    for number, stage in enumerate(stages, start=1):
        for block in range(1, stage.depth + 1):
            stride = stage.stride if block == 1 else 1
            x = _block(x, f"stage{number}_block{block}", stage, stride, seed)
    # A tenth of all weights: it trains with the last stage.
    x = _convolution(x, f"stage{len(stages)}_last", FEATURES, size=1, stride=1, seed=seed)
    x = layers.GlobalAveragePooling2D(name="features_pool")(x)  # (n, h/32, w/32, c) -> (n, c)
    return keras.Model(inputs, x)


def _stages(depths: tuple[int, ...], widths: tuple[int, ...]) -> tuple[_Stage, ...]:
    kernel_sizes, strides, expansions = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1), (1, *[6] * 6)
    return tuple(map(_Stage, depths, widths, kernel_sizes, strides, expansions))


# Lite2 is 1.1 times as wide and 1.2 times as deep; widths are rounded to multiples of 8.
efficientnet_lite0 = partial(
    efficientnet_lite, _stages((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320))
)
efficientnet_lite2 = partial(
    efficientnet_lite, _stages((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352))
)


def _block(x: keras.KerasTensor, at: str, stage: _Stage, stride: int, seed: int) -> object:
    """Expand, depthwise convolution, project; add the input where it has the same shape."""
    y = x
    if stage.expansion > 1:
        width = stage.expansion * x.shape[-1]
        y = _convolution(y, f"{at}_expand", width, size=1, stride=1, seed=seed)
    y = layers.DepthwiseConv2D(
        stage.kernel_size,
        strides=stride,
        padding="same",  # uneven where the stride is 2, as the published weights want it
        use_bias=False,
        depthwise_initializer=_initializer(seed, f"{at}_depthwise"),
        name=f"{at}_depthwise",
    )(y)
    y = _relu6(_norm(y, f"{at}_depthwise"), f"{at}_depthwise")
    y = _convolution(y, f"{at}_project", stage.width, size=1, stride=1, seed=seed, rectified=False)
    return layers.Add(name=f"{at}_add")([x, y]) if x.shape == y.shape else y


def _convolution(
    x: keras.KerasTensor,
    at: str,
    width: int,
    size: int,
    stride: int,
    seed: int,
    rectified: bool = True,
) -> keras.KerasTensor:
    """Convolution without bias, norm, ReLU6: (n, h, w, c) to (n, h / stride, w / stride, width)."""
    x = layers.Conv2D(
        width,
        size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(seed, f"{at}_conv"),
        name=f"{at}_conv",
    )(x)
    x = _norm(x, at)
    return _relu6(x, at) if rectified else x


def _norm(x: keras.KerasTensor, at: str) -> keras.KerasTensor:
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=f"{at}_norm")(x)


def _relu6(x: keras.KerasTensor, at: str) -> keras.KerasTensor:
    return layers.ReLU(max_value=6.0, name=f"{at}_relu6")(x)


def _initializer(seed: int, name: str) -> keras.initializers.Initializer:
    """Normal, of variance 2 / fan out, as published."""
    return Undrawn(
        keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal", seed=layer_seed(seed, name)
        )
    )
