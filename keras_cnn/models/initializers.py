"""The initial weights of torch's Conv and Linear layers, by Keras's built-in initialisers.

Both draw weight and bias uniformly within 1/sqrt(fan_in): kaiming_uniform with a = sqrt(5), see
`reset_parameters` in torch's `torch/nn/modules/conv.py` and `linear.py`.
"""

from __future__ import annotations

import keras
import numpy as np

from keras_cnn.models.seeds import layer_seed


def torch_uniform(fan_in: int, seed: int) -> keras.initializers.Initializer:
    """Torch's default for a weight or a bias: uniform within 1/sqrt(fan_in) of zero.

    Args:
        fan_in: Inputs that one output sums over: channels * kernel height * kernel width of a
            convolution (one channel if it is depthwise), features of a dense layer.
        seed: The same seed draws the same numbers on the same backend.
    """
    limit = fan_in**-0.5
    return keras.initializers.RandomUniform(-limit, limit, seed=seed)


def torch_initializers(
    fan_in: int, seed: int, layer_name: str
) -> dict[str, keras.initializers.Initializer]:
    """Kernel and bias initialisers, as keyword arguments of Conv2D and Dense.

    Args:
        fan_in: As for `torch_uniform`.
        seed: The model's; each tensor's own is derived from it.
        layer_name: The layer's.
    """
    return {
        f"{part}_initializer": torch_uniform(fan_in, layer_seed(seed, f"{layer_name}_{part}"))
        for part in ("kernel", "bias")
    }


def draw(model: keras.Model, seed: int) -> None:
    """Gives a new model initial weights that are the same on every backend.

    Keras's initialisers draw from the backend's own generator: the same seed gives other weights
    on each. Here NumPy draws from the same distributions, from a stream for each tensor.

    Args:
        model: Its layers keep the initialisers they name.
        seed: The model's.
    """
    for layer in model.layers:
        for part in ("kernel", "bias"):
            variable = getattr(layer, part, None)
            initializer = getattr(layer, f"{part}_initializer", None)
            if part == "kernel" and isinstance(layer, keras.layers.DepthwiseConv2D):
                initializer = layer.depthwise_initializer
            if variable is None or initializer is None:
                continue
            random = np.random.default_rng(layer_seed(seed, f"{layer.name}_{part}"))
            values = _values(initializer, tuple(variable.shape), random)
            if values is not None:
                variable.assign(values.astype(np.float32))


def _values(
    initializer: keras.initializers.Initializer, shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray | None:
    """What the initialiser would draw; None where it draws nothing."""
    if isinstance(initializer, keras.initializers.RandomUniform):
        return random.uniform(initializer.minval, initializer.maxval, shape)
    if isinstance(initializer, keras.initializers.TruncatedNormal):
        return initializer.mean + initializer.stddev * _truncated_normal(shape, random)
    if isinstance(initializer, keras.initializers.VarianceScaling):
        if (initializer.mode, initializer.distribution) != ("fan_out", "untruncated_normal"):
            raise NotImplementedError(f"{initializer.mode} {initializer.distribution}")
        fan_out = np.prod(shape) / shape[-2]  # (h, w, in, out) -> h * w * out
        return random.normal(0, (initializer.scale / fan_out) ** 0.5, shape)
    return None


def _truncated_normal(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Standard normal numbers between -2 and 2; those beyond are drawn again."""
    values = random.standard_normal(shape)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = random.standard_normal(int(beyond.sum()))
    return values
