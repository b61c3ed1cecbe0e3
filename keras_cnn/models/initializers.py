"""The initial weights of torch's Conv and Linear layers, by Keras's built-in initialisers.

Both draw weight and bias uniformly within 1/sqrt(fan_in): kaiming_uniform with a = sqrt(5), see
`reset_parameters` in torch's `torch/nn/modules/conv.py` and `linear.py`.
"""

from __future__ import annotations

import keras

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
