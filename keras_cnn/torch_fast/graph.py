"""A functional Keras model as plain torch calls on the same variables: no layout is copied.

Keras holds feature maps as (n, h, w, c) and torch's convolutions take (n, c, h, w), so Keras on
torch transposes every image batch around each convolution and pooling layer, and every kernel in
each step. Here

- memory is always channels-last, as Keras has it. `permute` gives torch the other order of axes:
  a *view*, which copies nothing, and which torch recognises as its channels-last format;
- a tensor between two layers is held in whichever order of axes its layer gave, and turned (again
  by a view) only where the next layer wants the other;
- kernels stay (h, w, in, out) for Keras, but lie in memory so that torch's view of them is
  channels-last too (`store_kernels_channels_last`).

The mathematics is that of the layers. `layer_calls` has the torch call of each kind of layer;
layers that it does not know are called as they are.

In this module a tensor of the graph is named by the `id` of its Keras symbol, its *key*.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import keras
import torch
from keras import layers
from torch import Tensor

from keras_cnn.torch_fast import norms_in_kernels
from keras_cnn.torch_fast.layer_calls import Node, TorchCall, torch_call

Tensors = dict[int, Tensor]  # by key


class _Step(NamedTuple):
    """One node of the graph."""

    run: Callable[[Tensors, bool], Tensor]  # of the tensors there are, and whether it trains
    output: int  # its key
    last_uses: tuple[int, ...]  # keys of the tensors that no later step needs


class TorchGraph:
    """Runs a functional model's graph by torch calls.

    The model's variables are used, not copied: what is trained, assigned or frozen there holds
    here. Values and gradients are those of the model, but for the rounding of sums.

    Args:
        model: A functional model with one input and one output.

    Raises:
        ValueError: It has more of them.
    """

    def __init__(self, model: keras.Model) -> None:
        if len(model.inputs) != 1 or len(model.outputs) != 1:
            raise ValueError("several inputs or outputs")
        (self._input,), (self._output,) = map(id, model.inputs), map(id, model.outputs)
        nodes = [
            node
            for depth in sorted(model._nodes_by_depth, reverse=True)  # the output is at depth 0
            for node in model._nodes_by_depth[depth]
            if not node.is_input
        ]
        uses = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
        uses[self._output] += 1
        calls = [torch_call(node) for node in nodes]
        calls = norms_in_kernels.fold(nodes, calls, uses)
        calls = _with_relus_after_pooling(nodes, calls, uses)
        last_uses = _last_uses(nodes, self._output)
        # What has become of the tensors made so far:
        channels_first: set[int] = set()  # held as (n, c, h, w)
        overwritable: set[int] = set()  # needed neither by another layer nor by the backward pass
        self._steps: list[_Step] = []
        for node, call, forgotten in zip(nodes, calls, last_uses, strict=True):
            output = id(node.outputs[0])
            if call is None:
                run, gives_channels_first = _layer_step(node, channels_first), False
            else:
                run, gives_channels_first = _call_step(node, call, channels_first, overwritable)
                if call.overwritable and uses[output] == 1:
                    overwritable.add(output)
            if gives_channels_first and len(node.outputs[0].shape) == 4:
                channels_first.add(output)
            self._steps.append(_Step(run, output, forgotten))
        self._output_view = _view(self._output in channels_first, False)

    def __call__(self, images: Tensor, training: bool) -> Tensor:
        """The model's output for its input, as the model's own layers compute it.

        Args:
            images: (n, …), of any dtype.
            training: Whether dropout drops and BatchNorm takes the batch's statistics.

        Returns:
            (n, …), in Keras's order of axes.
        """
        tensors = {self._input: images.to(torch.float32)}
        for step in self._steps:
            tensors[step.output] = step.run(tensors, training)
            for key in step.last_uses:
                del tensors[key]
        return self._output_view(tensors[self._output])


def store_kernels_channels_last(variables: Sequence[keras.Variable]) -> None:
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


def _call_step(
    node: Node, call: TorchCall, channels_first: set[int], overwritable: set[int]
) -> tuple[Callable[[Tensors, bool], Tensor], bool]:
    """A node's torch call between views, and whether its output is held as (n, c, h, w)."""
    keys = tuple(id(tensor) for tensor in node.input_tensors)
    # A call that takes either order gets channels-first as soon as one input is held so.
    wants_channels_first = (
        any(key in channels_first for key in keys)
        if call.channels_first is None
        else call.channels_first
    )
    views = tuple(_view(key in channels_first, wants_channels_first) for key in keys)
    overwrites = call.in_place is not None and overwritable.issuperset(keys)
    function = call.in_place if overwrites else call.call

    def run(tensors: Tensors, training: bool) -> Tensor:
        inputs = (view(tensors[key]) for key, view in zip(keys, views, strict=True))
        return function(*inputs, training=training)

    return run, wants_channels_first


def _layer_step(node: Node, channels_first: set[int]) -> Callable[[Tensors, bool], Tensor]:
    """The layer itself, called with its own arguments on tensors in Keras's order of axes."""
    keys = {id(tensor) for tensor in node.input_tensors}
    turned = channels_first & keys

    def run(tensors: Tensors, training: bool) -> Tensor:
        inputs = {
            key: _channels_last(tensors[key]) if key in turned else tensors[key] for key in keys
        }
        args, kwargs = node.arguments.fill_in(inputs)
        if getattr(node.operation, "_call_has_training_arg", False):
            kwargs["training"] = training
        return node.operation(*args, **kwargs)

    return run


def _with_relus_after_pooling(
    nodes: Sequence[Node], calls: Sequence[TorchCall | None], uses: Counter
) -> list[TorchCall | None]:
    """The calls, where a ReLU waits until a max-pooling has left a quarter to rectify."""
    # The largest of rectified values is the rectified largest value, and the gradient goes the
    # same way. So `pool(relu(x))` becomes `relu(pool(x))`: the ReLU's node hands its input on, and
    # the pooling's rectifies what it has found. The ReLU's output must be the pooling's alone.
    known = [(node, call) for node, call in zip(nodes, calls, strict=True) if call is not None]
    relus = {
        id(node.outputs[0]): call.in_place
        for node, call in known
        if type(node.operation) is layers.ReLU
    }
    postponed = {
        key: relus[key]
        for node, _ in known
        if type(node.operation) is layers.MaxPooling2D
        if (key := id(node.input_tensors[0])) in relus and uses[key] == 1
    }
    rewritten = []
    for node, call in zip(nodes, calls, strict=True):
        if id(node.outputs[0]) in postponed:
            call = TorchCall(_same, channels_first=None)
        elif relu := next(filter(None, (postponed.get(id(x)) for x in node.input_tensors)), None):
            call = dataclasses.replace(call, call=functools.partial(_rectified, call.call, relu))
        rewritten.append(call)
    return rewritten


def _rectified(
    call: Callable[..., Tensor], relu: Callable[..., Tensor], x: Tensor, training: bool
) -> Tensor:
    return relu(call(x, training=training), training=training)


def _last_uses(nodes: Sequence[Node], output: int) -> list[tuple[int, ...]]:
    """For each node the keys of the inputs that no later node takes, and `output` is not."""
    used_later = {output}
    last_uses = []
    for node in reversed(nodes):
        keys = {id(tensor) for tensor in node.input_tensors} - used_later
        used_later |= keys
        last_uses.append(tuple(keys))
    return last_uses[::-1]


def _view(is_channels_first: bool, wants_channels_first: bool) -> Callable[[Tensor], Tensor]:
    """What turns a tensor from the order of axes it is held in to the one that is wanted."""
    if is_channels_first == wants_channels_first:
        return _same
    return _channels_first if wants_channels_first else _channels_last


def _same(tensor: Tensor, training: bool | None = None) -> Tensor:
    return tensor


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 2, 3, 1)  # (n, c, h, w) -> (n, h, w, c)


def _channels_first(tensor: Tensor) -> Tensor:
    return tensor.permute(0, 3, 1, 2)  # (n, h, w, c) -> (n, c, h, w)
