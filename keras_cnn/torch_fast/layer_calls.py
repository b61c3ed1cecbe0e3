"""Keras layers as torch calls on the layers' own variables, for `graph`.

One function a kind of layer, listed in `_TORCH_CALLS`. Each takes a layer and the shape (n, …) of
its first input in Keras's order of axes, and gives a `TorchCall`, or None where the layer's options
ask for something that the torch call does not do; the layer is then called as it is. The variables
are read when the call is made (`layer.kernel.value`), so that what has been assigned holds.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import torch
from keras import layers
from keras.src.backend.common.stateless_scope import in_stateless_scope
from torch import Tensor
from torch.nn import functional

from keras_cnn.torch_fast import batch_norm, small_maps

Node = Any  # one call of a layer in a functional model's graph: a class that Keras does not export
Shape = tuple[int | None, ...]
Convolve = Callable[[Tensor, Tensor, Tensor | None], Tensor]

LINEAR = (None, keras.activations.linear)
PRODUCTS_ON = ("cpu",)  # convolutions of small maps


@dataclass(frozen=True)
class TorchCall:
    """A layer as a torch call.

    Attributes:
        call: Takes the input tensors and, by name, whether the step is `training`.
        channels_first: Whether feature maps go in and come out as (n, c, h, w); memory stays
            channels-last. None takes and gives either.
        overwritable: Whether the backward pass has no use for what comes out, so that the next
            layer may overwrite it.
        in_place: The same, overwriting its input; None where there is no such call.
        convolve: Of a convolution, the same of images, kernel as Keras has it, and bias or None.
    """

    call: Callable[..., Tensor]
    channels_first: bool | None
    overwritable: bool = False
    in_place: Callable[..., Tensor] | None = None
    convolve: Convolve | None = None


def torch_call(node: Node) -> TorchCall | None:
    """A graph node's layer as a torch call, or None where it has to be called itself."""
    layer = node.operation
    of_kind = _TORCH_CALLS.get(type(layer))  # not of a subclass, which may compute anything
    if (
        of_kind is None
        or layer.activity_regularizer is not None
        or {layer.compute_dtype, layer.variable_dtype} != {"float32"}
        or len(node.outputs) != 1
        or getattr(layer, "data_format", "channels_last") != "channels_last"
        or getattr(layer, "lora_enabled", False)
    ):
        return None
    return of_kind(layer, node.input_tensors[0].shape)


def _conv2d(layer: layers.Conv2D, shape: Shape) -> TorchCall | None:
    padding = _padding(layer, shape)
    if padding is None or layer.activation not in LINEAR:
        return None
    is_even, (top, left), (bottom, right) = padding[0] == padding[1], *padding
    both_sides = padding[0] if is_even else (0, 0)

    def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        x = x if is_even else functional.pad(x, (left, right, top, bottom))
        kernel = kernel.permute(3, 2, 0, 1)  # (h, w, in, out) -> (out, in, h, w)
        strides, dilation = layer.strides, layer.dilation_rate
        return functional.conv2d(x, kernel, bias, strides, both_sides, dilation, layer.groups)

    if layer.groups == 1 and _keeps_small_maps(layer, shape, small_maps.MOST_PIXELS):
        return _small_maps(layer, small_maps.full(*shape[1:3], layer.kernel_size), convolve)
    if _cuts_small_maps(layer, shape):
        return _small_maps(layer, small_maps.patches(*shape[1:3], layer.kernel_size), convolve)
    return _convolution(layer, convolve, channels_first=True)


def _depthwise_conv2d(layer: layers.DepthwiseConv2D, shape: Shape) -> TorchCall | None:
    padding = _padding(layer, shape)
    if padding is None or layer.activation not in LINEAR:
        return None
    before, both_sides = padding
    # Where one pixel more is wanted after the maps than before them, both sides get as many, and
    # the kernel zeros where it then begins too early: a fifth of the time that padding maps takes.
    zeros = tuple(map(operator.sub, both_sides, before))
    if any(zeros) and set(layer.dilation_rate) != {1}:
        return None
    channels, multiplier = layer.kernel.shape[2:]

    def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        # (h, w, in, multiplier) -> (in * multiplier, 1, h, w)
        kernel = kernel.permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1)
        if any(zeros):
            kernel = functional.pad(kernel, (zeros[1], 0, zeros[0], 0))
        strides, dilation = layer.strides, layer.dilation_rate
        return functional.conv2d(x, kernel, bias, strides, both_sides, dilation, channels)

    most = min(
        small_maps.MOST_PIXELS_DEPTHWISE,
        small_maps.MOST_PIXELS_A_TAP * math.prod(layer.kernel_size),
    )
    if multiplier == 1 and _keeps_small_maps(layer, shape, most):
        return _small_maps(layer, small_maps.depthwise(*shape[1:3], layer.kernel_size), convolve)
    return _convolution(layer, convolve, channels_first=True)


def _convolution(layer: layers.Layer, convolve: Convolve, channels_first: bool) -> TorchCall:
    def call(x: Tensor, training: bool) -> Tensor:
        return convolve(x, layer.kernel.value, layer.bias.value if layer.use_bias else None)

    return TorchCall(call, channels_first, overwritable=True, convolve=convolve)


def _keeps_small_maps(layer: layers.Layer, shape: Shape, most_pixels: int) -> bool:
    """Whether a convolution gives maps of the same few pixels: a case for `small_maps`."""
    return (
        layer.padding == "same"
        and None not in shape[1:3]
        and math.prod(shape[1:3]) <= most_pixels
        and set(layer.strides) == set(layer.dilation_rate) == {1}
        and layer.kernel_size > (1, 1)
    )


def _cuts_small_maps(layer: layers.Conv2D, shape: Shape) -> bool:
    """Whether a convolution takes maps of few pixels in patches that do not overlap."""
    return (
        layer.padding == "valid"
        and layer.groups == 1
        and None not in shape[1:3]
        and math.prod(shape[1:3]) <= small_maps.MOST_PIXELS_PATCHES
        and tuple(layer.strides) == tuple(layer.kernel_size) != (1, 1)
        and set(layer.dilation_rate) == {1}
    )


def _small_maps(
    layer: layers.Layer, convolution: small_maps.Convolution, torchs_own: Convolve
) -> TorchCall:
    """By products where they are faster: not on a GPU, where they took up to five times as long."""

    def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type not in PRODUCTS_ON:
            # (n, h, w, c) -> (n, c, h, w) and back
            return torchs_own(x.permute(0, 3, 1, 2), kernel, bias).permute(0, 2, 3, 1)
        y = convolution(x, kernel)
        return y if bias is None else y + bias

    return _convolution(layer, convolve, channels_first=False)


def _padding(layer: layers.Layer, shape: Shape) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Zeros before and after maps, each (rows, columns); None where the size has to be known.

    Padding `same` gives ceil(size / stride) pixels. What is missing for the last of them is padded,
    half before and half after, and an odd pixel after.
    """
    if layer.padding == "valid":
        return (0, 0), (0, 0)
    totals = []
    for size, kernel, stride, dilation in zip(
        shape[1:3], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    ):
        extent = (kernel - 1) * dilation + 1  # pixels from a kernel's first tap to its last
        if stride == 1:
            totals.append(extent - 1)
        elif size is None:
            return None
        else:
            last = (math.ceil(size / stride) - 1) * stride  # where the kernel begins last
            totals.append(max(0, last + extent - size))
    return tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)


def _max_pooling2d(layer: layers.MaxPooling2D, shape: Shape) -> TorchCall | None:
    if layer.padding != "valid":
        return None
    pooled = functools.partial(
        functional.max_pool2d, kernel_size=layer.pool_size, stride=layer.strides
    )
    return TorchCall(lambda x, training: pooled(x), channels_first=True, overwritable=True)


def _relu(layer: layers.ReLU, shape: Shape) -> TorchCall | None:
    if layer.negative_slope or layer.threshold:
        return None
    if (most := layer.max_value) is not None:  # ReLU6, for one
        return TorchCall(
            lambda x, training: functional.hardtanh(x, 0.0, most),
            channels_first=None,
            in_place=lambda x, training: functional.hardtanh(x, 0.0, most, inplace=True),
        )
    return TorchCall(
        lambda x, training: torch.relu(x),
        channels_first=None,
        in_place=lambda x, training: torch.relu_(x),
    )


def _add(layer: layers.Add, shape: Shape) -> TorchCall:
    def call(*terms: Tensor, training: bool) -> Tensor:
        return functools.reduce(operator.add, terms)

    return TorchCall(call, channels_first=None, overwritable=True)


def _batch_normalization(layer: layers.BatchNormalization, shape: Shape) -> TorchCall | None:
    if layer.axis not in (-1, 3) or len(shape) != 4 or layer.renorm or layer.synchronized:
        return None
    if not (layer.scale and layer.center):
        return None

    def call(x: Tensor, training: bool) -> Tensor:
        x = x.float()  # under mixed precision a convolution gives bfloat16
        moving_mean, moving_variance = layer.moving_mean.value, layer.moving_variance.value
        gamma, beta = layer.gamma.value, layer.beta.value
        if not (training and layer.trainable):  # in Keras a frozen layer runs on its statistics
            return batch_norm.normalise(
                x, gamma, beta, moving_mean, moving_variance, layer.epsilon, False
            )
        mean, variance = batch_norm.batch_statistics(x)
        with torch.no_grad():
            old, new = layer.momentum, 1 - layer.momentum
            layer.moving_mean.assign(moving_mean * old + mean * new)
            layer.moving_variance.assign(moving_variance * old + variance * new)
        return batch_norm.normalise(x, gamma, beta, mean, variance, layer.epsilon, True)

    return TorchCall(call, channels_first=True, overwritable=True)


def _rescaling(layer: layers.Rescaling, shape: Shape) -> TorchCall | None:
    if not all(isinstance(number, int | float) for number in (layer.scale, layer.offset)):
        return None

    def call(x: Tensor, training: bool) -> Tensor:
        scaled = x * layer.scale
        return scaled.add_(layer.offset) if layer.offset else scaled

    return TorchCall(call, channels_first=None)


def _flatten(layer: layers.Flatten, shape: Shape) -> TorchCall:
    # (n, h, w, c) -> (n, h * w * c)
    return TorchCall(lambda x, training: x.flatten(1), channels_first=False)


def _global_average_pooling2d(layer: layers.GlobalAveragePooling2D, shape: Shape) -> TorchCall:
    def call(x: Tensor, training: bool) -> Tensor:
        return x.mean((1, 2), keepdim=layer.keepdims)  # (n, h, w, c) -> (n, c)

    return TorchCall(call, channels_first=False, overwritable=True)


def _activation(layer: layers.Activation, shape: Shape) -> TorchCall:
    return TorchCall(lambda x, training: layer.activation(x), channels_first=False)


def _einsum_dense(layer: layers.EinsumDense, shape: Shape) -> TorchCall | None:
    if layer.equation != "nhwc,c->nhwc" or layer.bias is not None or layer.activation not in LINEAR:
        return None  # one factor a channel, as in ConvNeXt, is all that is known

    return TorchCall(
        lambda x, training: x * layer.kernel.value, channels_first=False, overwritable=True
    )


def _layer_normalization(layer: layers.LayerNormalization, shape: Shape) -> TorchCall | None:
    if layer.rms_scaling or list(layer.axis) not in ([-1], [len(shape) - 1]):
        return None

    def call(x: Tensor, training: bool) -> Tensor:
        gamma = layer.gamma.value if layer.scale else None
        beta = layer.beta.value if layer.center else None
        return functional.layer_norm(x, shape[-1:], gamma, beta, layer.epsilon)

    return TorchCall(call, channels_first=False, overwritable=True)


def _zero_padding2d(layer: layers.ZeroPadding2D, shape: Shape) -> TorchCall:
    (top, bottom), (left, right) = layer.padding
    padding = (left, right, top, bottom)
    return TorchCall(
        lambda x, training: functional.pad(x, padding), channels_first=True, overwritable=True
    )


def _dropout(layer: layers.Dropout, shape: Shape) -> TorchCall:
    on_gpu = _DropoutOnGpu(layer)

    def call(x: Tensor, training: bool) -> Tensor:
        if not training or not layer.rate:
            return x
        return on_gpu(x) if x.device.type == "cuda" else layer(x, training=True)

    return TorchCall(call, channels_first=False)


class _DropoutOnGpu:
    """What a dropout layer draws, to the last bit, without waiting for the GPU in each step.

    The layer's seed lies on the GPU, and Keras reads it there to seed what draws. Here the seed is
    counted on, and read only where something else has changed it since.
    """

    def __init__(self, layer: layers.Dropout) -> None:
        self._layer = layer
        self._counted: tuple[int, int] | None = None  # version of the seed's tensor, the seed then
        self._increment: Tensor | None = None  # of the seed generator's state by each drawing

    def __call__(self, x: Tensor) -> Tensor:
        """Drops some of x, (n, …), and scales up what stays."""
        seeds = getattr(self._layer, "seed_generator", None)
        if seeds is None or seeds._initial_seed is None or in_stateless_scope():
            return self._layer(x, training=True)
        state = seeds.state.value
        version, seed = self._counted or (None, 0)
        if version != state._version:
            seed = sum(state.tolist())
        if self._increment is None or self._increment.device != state.device:
            self._increment = torch.tensor([0, 1], dtype=state.dtype, device=state.device)
        with torch.no_grad():
            state.add_(self._increment)
        self._counted = (state._version, seed + 1)
        generator = torch.Generator(x.device).manual_seed(seed & 0xFFFFFFFF)
        shape = self._layer.noise_shape or (None,) * x.ndim
        shape = [size or own for size, own in zip(shape, x.shape, strict=True)]
        share = 1.0 - self._layer.rate  # of what stays
        mask = torch.bernoulli(torch.full(shape, share, device=x.device), generator=generator)
        x = x.float()  # under mixed precision it may be bfloat16
        return torch.where(mask.bool(), x / share, torch.zeros_like(x))


def _dense(layer: layers.Dense, shape: Shape) -> TorchCall | None:
    if layer.activation not in LINEAR:
        return None

    def call(x: Tensor, training: bool) -> Tensor:
        bias = layer.bias.value if layer.use_bias else None
        return functional.linear(x, layer.kernel.value.t(), bias)  # (in, out) -> (out, in)

    return TorchCall(call, channels_first=False, overwritable=True)


_TORCH_CALLS: dict[type, Callable[..., TorchCall | None]] = {
    layers.Activation: _activation,
    layers.Add: _add,
    layers.BatchNormalization: _batch_normalization,
    layers.Conv2D: _conv2d,
    layers.Dense: _dense,
    layers.DepthwiseConv2D: _depthwise_conv2d,
    layers.Dropout: _dropout,
    layers.EinsumDense: _einsum_dense,
    layers.Flatten: _flatten,
    layers.GlobalAveragePooling2D: _global_average_pooling2d,
    layers.LayerNormalization: _layer_normalization,
    layers.MaxPooling2D: _max_pooling2d,
    layers.ReLU: _relu,
    layers.Rescaling: _rescaling,
    layers.ZeroPadding2D: _zero_padding2d,
}
