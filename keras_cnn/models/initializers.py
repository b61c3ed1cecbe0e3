"""Initial weights: torch's defaults, and NumPy's numbers from whatever a layer's initializer names.

Torch's Conv and Linear layers draw weight and bias uniformly within 1/sqrt(fan_in): kaiming_uniform
with a = sqrt(5), see `reset_parameters` in torch's `torch/nn/modules/conv.py` and `linear.py`.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Container, Iterator

import keras
import numpy as np
from keras import initializers

VERSION = 1  # raised when the same seed draws other weights

# Standard deviation of a standard normal distribution that is cut off at -2 and 2.
TRUNCATED_STD = 0.87962566103423978


class Undrawn(initializers.Initializer):
    """Zeros, until `draw` draws what it stands for: Keras's own draw would be thrown away.

    Args:
        named: What the layer's author names, and what a saved model's configuration holds.
    """

    def __init__(self, named: initializers.Initializer) -> None:
        self.named = named

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> object:
        """Zeros of a shape."""
        return keras.ops.zeros(shape, dtype)

    def get_config(self) -> dict[str, object]:
        """The constructor's arguments: Keras copies a layer's initializers by them."""
        return {"named": self.named}


def layer_seed(seed: int, layer_name: str) -> int:
    """A layer's own seed, from 0 to 2**31 - 1: the same whatever else the model holds."""
    return zlib.crc32(f"{seed} {layer_name}".encode()) >> 1


def torch_uniform(fan_in: int, seed: int) -> initializers.Initializer:
    """Torch's default for a weight or a bias: uniform within 1/sqrt(fan_in) of zero.

    Args:
        fan_in: Inputs that one output sums over: channels * kernel height * kernel width of a
            convolution (one channel if it is depthwise), features of a dense layer.
        seed: Seeds the draw.
    """
    limit = fan_in**-0.5
    return initializers.RandomUniform(-limit, limit, seed=seed)


def torch_initializers(
    fan_in: int, seed: int, layer_name: str
) -> dict[str, initializers.Initializer]:
    """Kernel and bias initializers, keyword arguments of Conv2D and Dense, by a model's seed."""
    return {
        f"{part}_initializer": torch_uniform(fan_in, layer_seed(seed, f"{layer_name}_{part}"))
        for part in ("kernel", "bias")
    }


def draw(
    model: keras.Model, seed: int, chosen: Container[keras.layers.Layer] | None = None
) -> None:
    """Gives a new model initial weights that are the same on every backend.

    Keras's initializers draw from the backend's own generator: the same seed gives other weights
    on each. Here NumPy draws from the same distributions, from a stream for each variable: of a
    layer's `kernel` by its `kernel_initializer`, and so on for each `<name>_initializer`. All
    random initializers of `keras.initializers` are known. Constant ones, and variables without an
    initializer of that name, stay as they are; so does what an initializer of another kind drew,
    a function or a subclass with its own `__call__`: that is for its author to seed.

    Args:
        model: Its layers keep the initializers they name. Layers that Keras named (`conv2d_3`) are
            counted anew, so that models built before make no difference.
        seed: The model's.
        chosen: Layers whose weights are drawn; None draws all.
    """
    for name, layer in _named(model):
        for attribute, initializer in [*vars(layer).items()]:
            part = attribute.removesuffix("_initializer")
            variable = _variable(layer, part)
            if part == attribute or variable is None:
                continue
            if isinstance(initializer, Undrawn):
                initializer = initializer.named
                setattr(layer, attribute, initializer)
            if chosen is not None and layer not in chosen:
                continue
            random = np.random.default_rng(layer_seed(seed, f"{name}_{variable.name}"))
            values = _values(initializer, tuple(variable.shape), random)
            if values is not None:
                variable.assign(values.astype(np.float32))


def _named(model: keras.Model) -> Iterator[tuple[str, keras.layers.Layer]]:
    """All layers, those inside others too, under names that are the same in every process."""
    used: Counter[str] = Counter()
    for layer in model._flatten_layers(include_self=False):
        name = re.sub(r"_\d+$", "", layer.name)
        yield f"{name}_{used[name]}" if used[name] else name, layer
        used[name] += 1


def _variable(layer: keras.layers.Layer, part: str) -> keras.Variable | None:
    """The variable that `<part>_initializer` is for; None where the layer has none."""
    # DepthwiseConv2D's depthwise_initializer is for `kernel`, SeparableConv2D's is for
    # `depthwise_kernel`; a recurrent cell's recurrent_initializer is for `recurrent_kernel`.
    names = [part, f"{part}_kernel", *(["kernel"] if part == "depthwise" else [])]
    variables = (getattr(layer, name, None) for name in names)
    return next((each for each in variables if isinstance(each, keras.Variable)), None)


def _values(
    initializer: object, shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray | None:
    """What the initializer would draw; None where it draws nothing, or is not known."""
    initializer = initializers.get(initializer)  # a layer of a user's own may hold its name
    # By `__call__`: a subclass may draw in its own way, as GlorotUniform and its like do not.
    call = type(initializer).__call__ if callable(initializer) else None
    if call is initializers.RandomUniform.__call__:
        return random.uniform(initializer.minval, initializer.maxval, shape)
    if call is initializers.RandomNormal.__call__:
        return random.normal(initializer.mean, initializer.stddev, shape)
    if call is initializers.TruncatedNormal.__call__:
        return initializer.mean + initializer.stddev * _truncated_normal(shape, random)
    if call is initializers.VarianceScaling.__call__:
        return _scaled(initializer, shape, random)
    if call is initializers.Orthogonal.__call__:
        return initializer.gain * _orthogonal(shape, random)
    return None


def _scaled(
    initializer: initializers.VarianceScaling, shape: tuple[int, ...], random: np.random.Generator
) -> np.ndarray:
    """Of variance scale/fan: Glorot's, He's and LeCun's initializers."""
    fan_in, fan_out = _fans(initializer, shape)
    fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
    std = (initializer.scale / max(1.0, fan[initializer.mode])) ** 0.5
    if initializer.distribution == "uniform":
        return random.uniform(-(3**0.5) * std, 3**0.5 * std, shape)
    if initializer.distribution == "truncated_normal":
        return std / TRUNCATED_STD * _truncated_normal(shape, random)
    return random.normal(0, std, shape)


def _fans(initializer: initializers.VarianceScaling, shape: tuple[int, ...]) -> tuple[float, float]:
    """How many inputs an output sums over, and how many outputs an input goes to."""
    if initializer.input_axes is not None and initializer.output_axes is not None:
        return tuple(
            math.prod(shape[axis] for axis in axes)
            for axes in (initializer.input_axes, initializer.output_axes)
        )
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    *window, inputs, outputs = shape  # a convolution's kernel is (h, w, in, out)
    return math.prod(window) * inputs, math.prod(window) * outputs


def _truncated_normal(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Standard normal numbers between -2 and 2; those beyond are drawn again."""
    values = random.standard_normal(shape)
    while (beyond := np.abs(values) > 2).any():
        values[beyond] = random.standard_normal(int(beyond.sum()))
    return values


def _orthogonal(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix (all axes but the last, last); of orthonormal rows or columns."""
    rows, columns = math.prod(shape[:-1]), shape[-1]
    normal = random.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(normal)
    q *= np.sign(np.diag(r))  # otherwise not every orthogonal matrix is as likely
    return (q if rows >= columns else q.T).reshape(shape)
