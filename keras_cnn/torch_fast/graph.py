"""A functional Keras model as plain torch calls on the same variables: no layout is copied.

Keras on torch transposes every image batch to channels-first memory and back around each
convolution and pooling layer, and transposes every kernel in each step. Here feature maps stay in
channels-last memory, seen by torch through strides alone, and kernels are stored so that torch
finds them channels-last too. The mathematics is that of the layers. Layers that are not known
here are called as they are.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import keras
import torch
from keras import layers

from keras_cnn.torch_fast import lower
from keras_cnn.torch_fast.lower import Lowered

if TYPE_CHECKING:
    from torch import Tensor


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
            lowered = lower.lowered(node)
            if id(node.outputs[0]) in postponed:
                lowered = Lowered(_same, channels_first=None)
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
                overwrites = lowered.in_place and overwritable.issuperset(inputs)
                call = lowered.in_place if overwrites else lowered.call
                run = functools.partial(_run_lowered, call, tuple(inputs), views)
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
        if type(node.operation) is layers.ReLU and lower.lowered(node) is not None
    }
    return {
        id(node.input_tensors[0])
        for node in nodes
        if type(node.operation) is layers.MaxPooling2D and lower.lowered(node) is not None
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
