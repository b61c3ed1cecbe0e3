"""ResNet-18 (He et al. 2016, arXiv:1512.03385), laid out as torchvision's, of built-in layers.

keras-cv's ResNet is the same graph, but pads strided layers on one side, as TensorFlow does; torch
pads both sides alike. On 32 pixels the two networks' features differ by a third, so torch's weights
need torch's padding.
"""

from __future__ import annotations

import keras
from keras import layers

from keras_cnn.models.initializers import Undrawn, layer_seed

VERSION = 1  # raised when the same settings give another network or other weights

WIDTHS = (64, 128, 256, 512)  # channels of the four stages


def resnet18(image_size: int, seed: int) -> keras.Model:
    """ResNet-18 without its classifier.

    Args:
        image_size: Height and width of its input, at least 32 pixels.
        seed: Seeds the weights.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, 512).
    """
    inputs = keras.Input((image_size, image_size, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="stem_rescaling")(inputs)
    x = _conv(x, "stem_conv", WIDTHS[0], size=7, stride=2, seed=seed)
    x = _norm("stem_norm")(x)
    x = layers.Activation("relu", name="stem_relu")(x)
    # Zeros do for the max-pooling too: what it pools has been through a ReLU.
    x = layers.ZeroPadding2D(1, name="stem_pool_padding")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)  # (n, h/4, w/4, 64)
    for stage, width in enumerate(WIDTHS, start=1):
        for block in (1, 2):
            stride = 2 if block == 1 and stage > 1 else 1
            x = _block(x, f"stage{stage}_block{block}", width, stride, seed)
    x = layers.GlobalAveragePooling2D(name="features_pool")(x)  # (n, h/32, w/32, 512) -> (n, 512)
    return keras.Model(inputs, x)


def _block(x: keras.KerasTensor, at: str, width: int, stride: int, seed: int) -> keras.KerasTensor:
    """Conv 3x3, norm, ReLU, conv 3x3, norm; add the input, projected where it is strided; ReLU."""
    shortcut = x
    if stride > 1:
        shortcut = _conv(x, f"{at}_shortcut_conv", width, size=1, stride=stride, seed=seed)
        shortcut = _norm(f"{at}_shortcut_norm")(shortcut)
    y = _conv(x, f"{at}_conv1", width, size=3, stride=stride, seed=seed)
    y = layers.Activation("relu", name=f"{at}_relu1")(_norm(f"{at}_norm1")(y))
    y = _conv(y, f"{at}_conv2", width, size=3, stride=1, seed=seed)
    y = layers.Add(name=f"{at}_add")([shortcut, _norm(f"{at}_norm2")(y)])
    return layers.Activation("relu", name=f"{at}_relu2")(y)


def _conv(
    x: keras.KerasTensor, name: str, width: int, size: int, stride: int, seed: int
) -> keras.KerasTensor:
    """A convolution without bias that pads as torch does: both sides alike, strided or not."""
    padding = "same"  # which pads both sides alike where the stride is 1
    if stride > 1:
        padding = "valid"
        if size > 1:
            x = layers.ZeroPadding2D(size // 2, name=f"{name}_padding")(x)
    kaiming_fan_out = keras.initializers.VarianceScaling(
        2.0, "fan_out", "untruncated_normal", seed=layer_seed(seed, name)
    )
    return layers.Conv2D(
        width,
        size,
        strides=stride,
        padding=padding,
        use_bias=False,
        kernel_initializer=Undrawn(kaiming_fan_out),
        name=name,
    )(x)


def _norm(name: str) -> layers.BatchNormalization:
    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=name)
