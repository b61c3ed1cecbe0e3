"""A functional Keras model as plain torch calls on the same variables: no layout is copied.

Keras on torch transposes every image batch to channels-first memory and back around each
convolution and pooling layer, and transposes every kernel in each step. Here feature maps stay in
channels-last memory, seen by torch through strides alone, and kernels are stored so that torch
finds them channels-last too. The mathematics is that of the layers. Layers that are not known
here are called as they are.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import keras
import torch
from keras import layers
from torch.nn import functional

from keras_cnn.training import torch_batch_norm, torch_small_maps

if TYPE_CHECKING:
    from torch import Tensor

LINEAR = (None, keras.activations.linear)


class _Lowered(NamedTuple):
    """A layer as a torch call.

    Attributes:
        call: Takes the input tensors and whether the step trains.
        channels_first: Whether feature maps go in and come out as (n, c, h, w); memory stays
            channels-last. None takes and gives either.
        fresh: Whether the backward pass has no use for what comes out, so that the next layer may
            overwrite it.
    """

    call: Callable[..., Tensor]
    channels_first: bool | None
    fresh: bool = False


class _Step(NamedTuple):
    run: Callable[[dict[int, Tensor], bool], Tensor]
    output: int
    last_uses: tuple[int, ...]


class TorchGraph:
    """Runs a functional model's graph by torch calls.

    The model's variables are used, not copied: what is trained, assigned or frozen there holds
    here. Values and gradients are those of the model, but for the rounding of sums.

    Args:
        model: A functional model with one input and one output.
    """

    def __init__(self, model: keras.Model) -> None:
        (self._input,), (self._output,) = map(id, model.inputs), map(id, model.outputs)
        nodes = [
            node
            for depth in sorted(model._nodes_by_depth, reverse=True)
            for node in model._nodes_by_depth[depth]
            if not node.is_input
        ]
        uses = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
        uses[self._output] += 1
        postponed = _relus_before_pooling(nodes, uses)
        overwritable: set[int] = set()
        channels_first: set[int] = set()  # the tensors held as (n, c, h, w)
        self._steps: list[_Step] = []
        for node in nodes:
            inputs = [id(tensor) for tensor in node.input_tensors]
            lowered = _lowered(node, overwritable.issuperset(inputs))
            if id(node.outputs[0]) in postponed:
                lowered = _Lowered(_same, channels_first=None)
            elif postponed.intersection(inputs):
                lowered = lowered._replace(call=functools.partial(_rectified, lowered.call))
            if lowered is None:
                run = functools.partial(_run_layer, node, channels_first.intersection(inputs))
                first = False
            else:
                first = (
                    any(name in channels_first for name in inputs)
                    if lowered.channels_first is None
                    else lowered.channels_first
                )
                views = tuple(_view(name in channels_first, first) for name in inputs)
                run = functools.partial(_run_lowered, lowered.call, tuple(inputs), views)
            output = id(node.outputs[0])
            if first and len(node.outputs[0].shape) == 4:
                channels_first.add(output)
            if lowered is not None and lowered.fresh and uses[output] == 1:
                overwritable.add(output)
            self._steps.append(_Step(run, output, ()))
        self._output_view = _view(self._output in channels_first, False)
        self._forget_after_last_use(nodes)

    def __call__(self, images: Tensor, training: bool) -> Tensor:
        """The model's output for its input, as the model's own layers compute it."""
        tensors = {self._input: images.to(torch.float32)}
        for step in self._steps:
            tensors[step.output] = step.run(tensors, training)
            for name in step.last_uses:
                del tensors[name]
        return self._output_view(tensors[self._output])

    def _forget_after_last_use(self, nodes: list) -> None:
        seen = {self._output}
        for number in reversed(range(len(nodes))):
            names = {id(tensor) for tensor in nodes[number].input_tensors} - seen
            seen |= names
            self._steps[number] = self._steps[number]._replace(last_uses=tuple(names))


def store_kernels_channels_last(variables: list[keras.Variable]) -> None:
    """Lays convolution kernels out in memory as torch's channels-last convolution wants them.

    Only strides change: shape, values and identity of the variables stay, and so do the strides
    under `assign`, `set_weights` and optimizer updates.

    Args:
        variables: A model's or an optimizer's; those of four axes (h, w, in, out) are laid out.
    """
    for variable in variables:
        if len(variable.shape) == 4:
            stored = variable.value.data.permute(3, 2, 0, 1)  # (h, w, in, out) -> (out, in, h, w)
            stored = stored.contiguous(memory_format=torch.channels_last)
            variable.value.data = stored.permute(2, 3, 1, 0)


def _run_lowered(
    call: Callable,
    inputs: tuple[int, ...],
    views: tuple,
    tensors: dict[int, Tensor],
    training: bool,
) -> Tensor:
    return call(
        *(view(tensors[name]) for name, view in zip(inputs, views, strict=True)), training=training
    )


def _run_layer(
    node: object, channels_first: set[int], tensors: dict[int, Tensor], training: bool
) -> Tensor:
    if channels_first:
        tensors = {
            name: _channels_last(tensor) if name in channels_first else tensor
            for name, tensor in tensors.items()
        }
    args, kwargs = node.arguments.fill_in(tensors)
    if getattr(node.operation, "_call_has_training_arg", False):
        kwargs["training"] = training
    return node.operation(*args, **kwargs)


def _relus_before_pooling(nodes: list, uses: Counter) -> set[int]:
    """Outputs of the ReLUs that can wait until a max-pooling has left a quarter to rectify.

    The largest of rectified values is the rectified largest value, and the gradient goes the
    same way.
    """
    relus = {
        id(node.outputs[0])
        for node in nodes
        if type(node.operation) is layers.ReLU and _lowered(node, False) is not None
    }
    return {
        id(node.input_tensors[0])
        for node in nodes
        if type(node.operation) is layers.MaxPooling2D and _lowered(node, False) is not None
        if id(node.input_tensors[0]) in relus and uses[id(node.input_tensors[0])] == 1
    }


def _rectified(call: Callable, x: Tensor, training: bool) -> Tensor:
    return torch.relu_(call(x, training=training))


def _same(tensor: Tensor, training: bool | None = None) -> Tensor:
    return tensor


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1)  # (n, c, h, w) -> (n, h, w, c)


def _channels_first(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2)  # (n, h, w, c) -> (n, c, h, w)


def _view(held_first: bool, wanted_first: bool) -> Callable[[Tensor], Tensor]:
    if held_first == wanted_first:
        return _same
    return _channels_first if wanted_first else _channels_last


def _lowered(node: object, overwrite: bool) -> _Lowered | None:
    """A graph node's layer as a torch call, or None where it has to be called itself."""
    layer = node.operation
    lower = _LOWER.get(type(layer))
    plain = (
        lower is not None
        and layer.activity_regularizer is None
        and layer.compute_dtype == layer.variable_dtype == "float32"
        and len(node.outputs) == 1
        and getattr(layer, "data_format", "channels_last") == "channels_last"
        and not getattr(layer, "lora_enabled", False)
    )
    return lower(layer, node.input_tensors[0].shape, overwrite) if plain else None


def _conv2d(layer: layers.Conv2D, shape: tuple, overwrite: bool) -> _Lowered | None:
    padding = _padding(layer, shape)
    if padding is None or layer.activation not in LINEAR:
        return None
    if layer.groups == 1 and _keeps_small_maps(layer, shape, torch_small_maps.MOST_PIXELS):
        return _small_maps(layer, torch_small_maps.full(*shape[1:3], layer.kernel_size))

    def call(x: Tensor, training: bool) -> Tensor:
        return functional.conv2d(
            x,
            layer.kernel.value.permute(3, 2, 0, 1),  # (h, w, in, out) -> (out, in, h, w)
            layer.bias.value if layer.use_bias else None,
            layer.strides,
            padding,
            layer.dilation_rate,
            layer.groups,
        )

    return _Lowered(call, channels_first=True, fresh=True)


def _depthwise_conv2d(
    layer: layers.DepthwiseConv2D, shape: tuple, overwrite: bool
) -> _Lowered | None:
    padding = _padding(layer, shape)
    if padding is None or layer.activation not in LINEAR:
        return None
    height, width, channels, multiplier = layer.kernel.shape
    most = torch_small_maps.MOST_PIXELS_DEPTHWISE
    if multiplier == 1 and _keeps_small_maps(layer, shape, most):
        return _small_maps(layer, torch_small_maps.depthwise(*shape[1:3], layer.kernel_size))

    def call(x: Tensor, training: bool) -> Tensor:
        # (h, w, in, multiplier) -> (in * multiplier, 1, h, w)
        kernel = layer.kernel.value.permute(2, 3, 0, 1)
        return functional.conv2d(
            x,
            kernel.reshape(channels * multiplier, 1, height, width),
            layer.bias.value if layer.use_bias else None,
            layer.strides,
            padding,
            layer.dilation_rate,
            channels,
        )

    return _Lowered(call, channels_first=True, fresh=True)


def _keeps_small_maps(layer: layers.Layer, shape: tuple, most_pixels: int) -> bool:
    """Whether a convolution gives maps of the same few pixels."""
    return (
        layer.padding == "same"
        and None not in shape[1:3]
        and math.prod(shape[1:3]) <= most_pixels
        and set(layer.strides) == set(layer.dilation_rate) == {1}
        and layer.kernel_size > (1, 1)
    )


def _small_maps(layer: layers.Layer, convolution: Callable) -> _Lowered:
    def call(x: Tensor, training: bool) -> Tensor:
        y = convolution(x, layer.kernel.value)
        return y + layer.bias.value if layer.use_bias else y

    return _Lowered(call, channels_first=False, fresh=True)


def _padding(layer: layers.Layer, shape: tuple) -> tuple[int, int] | None:
    """What torch pads on both sides of each axis; None where Keras pads unevenly."""
    if layer.padding == "valid":
        return (0, 0)
    padding = []
    for size, kernel, stride, dilation in zip(
        shape[1:3], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    ):
        reach = (kernel - 1) * dilation + 1
        if stride == 1:
            total = reach - 1
        elif size is None:
            return None
        else:
            total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        if total % 2:
            return None
        padding.append(total // 2)
    return tuple(padding)


def _max_pooling2d(layer: layers.MaxPooling2D, shape: tuple, overwrite: bool) -> _Lowered | None:
    if layer.padding != "valid":
        return None

    def call(x: Tensor, training: bool) -> Tensor:
        return functional.max_pool2d(x, layer.pool_size, layer.strides)

    return _Lowered(call, channels_first=True, fresh=True)


def _relu(layer: layers.ReLU, shape: tuple, overwrite: bool) -> _Lowered | None:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        return None
    apply = torch.relu_ if overwrite else torch.relu

    def call(x: Tensor, training: bool) -> Tensor:
        return apply(x)

    return _Lowered(call, channels_first=None)


def _add(layer: layers.Add, shape: tuple, overwrite: bool) -> _Lowered | None:
    def call(*terms: Tensor, training: bool) -> Tensor:
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    return _Lowered(call, channels_first=None, fresh=True)


def _batch_normalization(
    layer: layers.BatchNormalization, shape: tuple, overwrite: bool
) -> _Lowered | None:
    if layer.axis not in (-1, 3) or len(shape) != 4 or layer.renorm or layer.synchronized:
        return None
    if not (layer.scale and layer.center):
        return None

    def call(x: Tensor, training: bool) -> Tensor:
        x = x.float()  # under mixed precision a convolution gives bfloat16
        mean, variance = layer.moving_mean.value, layer.moving_variance.value
        of_this_batch = training and layer.trainable
        if of_this_batch:
            moving_mean, moving_variance = mean, variance
            mean, variance = torch_batch_norm.batch_statistics(x)
            with torch.no_grad():
                kept, new = layer.momentum, 1 - layer.momentum
                layer.moving_mean.assign(moving_mean * kept + mean * new)
                layer.moving_variance.assign(moving_variance * kept + variance * new)
        gamma, beta = layer.gamma.value, layer.beta.value
        return torch_batch_norm.normalise(
            x, gamma, beta, mean, variance, layer.epsilon, of_this_batch
        )

    return _Lowered(call, channels_first=True, fresh=True)


def _rescaling(layer: layers.Rescaling, shape: tuple, overwrite: bool) -> _Lowered | None:
    if not all(isinstance(number, int | float) for number in (layer.scale, layer.offset)):
        return None

    def call(x: Tensor, training: bool) -> Tensor:
        scaled = x * layer.scale
        return scaled.add_(layer.offset) if layer.offset else scaled

    return _Lowered(call, channels_first=None)


def _flatten(layer: layers.Flatten, shape: tuple, overwrite: bool) -> _Lowered:
    def call(x: Tensor, training: bool) -> Tensor:
        return x.flatten(1)  # (n, h, w, c) -> (n, h * w * c)

    return _Lowered(call, channels_first=False)


def _global_average_pooling2d(
    layer: layers.GlobalAveragePooling2D, shape: tuple, overwrite: bool
) -> _Lowered:
    def call(x: Tensor, training: bool) -> Tensor:
        return x.mean((1, 2), keepdim=layer.keepdims)  # (n, h, w, c) -> (n, c)

    return _Lowered(call, channels_first=False, fresh=True)


def _activation(layer: layers.Activation, shape: tuple, overwrite: bool) -> _Lowered:
    def call(x: Tensor, training: bool) -> Tensor:
        return layer.activation(x)

    return _Lowered(call, channels_first=False)


def _einsum_dense(layer: layers.EinsumDense, shape: tuple, overwrite: bool) -> _Lowered | None:
    if layer.equation != "nhwc,c->nhwc" or layer.bias is not None or layer.activation not in LINEAR:
        return None  # one factor a channel is known alone

    def call(x: Tensor, training: bool) -> Tensor:
        return x * layer.kernel.value

    return _Lowered(call, channels_first=False, fresh=True)


def _layer_normalization(
    layer: layers.LayerNormalization, shape: tuple, overwrite: bool
) -> _Lowered | None:
    if layer.rms_scaling or list(layer.axis) not in ([-1], [len(shape) - 1]):
        return None

    def call(x: Tensor, training: bool) -> Tensor:
        gamma = layer.gamma.value if layer.scale else None
        beta = layer.beta.value if layer.center else None
        return functional.layer_norm(x, shape[-1:], gamma, beta, layer.epsilon)

    return _Lowered(call, channels_first=False, fresh=True)


def _zero_padding2d(layer: layers.ZeroPadding2D, shape: tuple, overwrite: bool) -> _Lowered:
    (top, bottom), (left, right) = layer.padding

    def call(x: Tensor, training: bool) -> Tensor:
        return functional.pad(x, (left, right, top, bottom))

    return _Lowered(call, channels_first=True, fresh=True)


def _dropout(layer: layers.Dropout, shape: tuple, overwrite: bool) -> _Lowered | None:
    def call(x: Tensor, training: bool) -> Tensor:
        return layer(x, training=True) if training and layer.rate else x

    return _Lowered(call, channels_first=False)


def _dense(layer: layers.Dense, shape: tuple, overwrite: bool) -> _Lowered | None:
    if layer.activation not in LINEAR:
        return None

    def call(x: Tensor, training: bool) -> Tensor:
        bias = layer.bias.value if layer.use_bias else None
        return functional.linear(x, layer.kernel.value.t(), bias)  # (in, out) -> (out, in)

    return _Lowered(call, channels_first=False, fresh=True)


_LOWER: dict[type, Callable[..., _Lowered | None]] = {
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
