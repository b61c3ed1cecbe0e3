"""ResNet-18 (He et al. 2016, arXiv:1512.03385): keras-cv's graph with torchvision's arithmetic.

keras-cv pads strided layers on one side, as TensorFlow does; torch pads both sides alike. On 32
pixels the two networks' features differ by a third, so torch's weights need torch's padding.
"""

from __future__ import annotations

import re

import keras
from keras import layers

from keras_cnn.models.seeds import layer_seed

STEM_NAMES = {
    "conv1_conv": "stem_conv",
    "conv1_bn": "stem_norm",
    "conv1_relu": "stem_relu",
    "pool1_pool": "stem_pool",
}
BLOCK_NAMES = {
    "0_conv": "shortcut_conv",
    "0_bn": "shortcut_norm",
    "1_conv": "conv1",
    "1_bn": "norm1",
    "1_relu": "relu1",
    "2_conv": "conv2",
    "2_bn": "norm2",
    "add": "add",
    "out": "relu2",
}


def features(name: str, image_size: int, seed: int) -> keras.Model:
    """ResNet-18 without its classifier.

    Importing keras-cv imports TensorFlow, on every backend, and takes some seconds.

    Args:
        name: `resnet18`.
        image_size: Height and width of its input, at least 32 pixels.
        seed: Seeds the weights.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, 512).
    """
    import keras_cv

    original = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 128, 256, 512],
        stackwise_blocks=[2, 2, 2, 2],
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=True,
        block_type="basic_block",
        input_shape=(image_size, image_size, 3),
    )
    # A plain functional model: cloning a Backbone would look for its presets.
    graph = keras.models.clone_model(
        keras.Model(original.input, original.output),
        input_tensors=keras.Input((image_size, image_size, 3), name="image"),
        clone_function=lambda layer: _torch_like(layer, seed),
        call_function=_padded,
    )
    pooled = layers.GlobalAveragePooling2D(name="features_pool")(graph.output)
    return keras.Model(graph.input, pooled, name=name)


def _torch_like(layer: layers.Layer, seed: int) -> layers.Layer:
    """A layer under our name, with torchvision's settings in place of keras-cv's."""
    name = _our_name(layer.name)
    if isinstance(layer, layers.Rescaling):
        return layers.Rescaling(1 / 127.5, offset=-1.0, name="stem_rescaling")
    config = {**layer.get_config(), "name": name}
    if isinstance(layer, layers.BatchNormalization):
        config |= {"epsilon": 1e-5, "momentum": 0.9}
    if isinstance(layer, layers.Conv2D):
        kaiming_fan_out = keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal", seed=layer_seed(seed, name)
        )
        config |= {"kernel_initializer": kaiming_fan_out}
    if _padding(layer):
        config |= {"padding": "valid"}
    return type(layer).from_config(config)


def _padded(
    layer: layers.Layer, x: keras.KerasTensor | list[keras.KerasTensor], mask: None = None
) -> keras.KerasTensor:
    """Calls a cloned layer, with torch's padding before it where it is strided."""
    if padding := _padding(layer):
        # Zeros do for the max-pooling too: what it pools has been through a ReLU.
        x = layers.ZeroPadding2D(padding, name=f"{layer.name}_padding")(x)
    return layer(x)


def _padding(layer: layers.Layer) -> int:
    """How many pixels torchvision pads on each side of a strided layer's input."""
    if not isinstance(layer, layers.Conv2D | layers.MaxPooling2D) or layer.strides == (1, 1):
        return 0
    return (layer.kernel_size if isinstance(layer, layers.Conv2D) else layer.pool_size)[0] // 2


def _our_name(name: str) -> str:
    """`v2_stack_1_block1_2_conv` becomes `stage2_block1_conv2`."""
    match = re.fullmatch(r"v2_stack_(\d)_block(\d)_(\w+)", name)
    if match is None:
        return STEM_NAMES.get(name, name)
    stage, block, part = match.groups()
    return f"stage{int(stage) + 1}_block{block}_{BLOCK_NAMES[part]}"
