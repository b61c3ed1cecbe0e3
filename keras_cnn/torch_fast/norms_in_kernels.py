"""Batch normalisation by fixed statistics as part of the convolution before it, for `graph`.

Where BatchNorm does not take a batch's statistics (outside training, and in frozen layers) it is
`y * scale + shift` for each channel, with `scale = gamma / sqrt(variance + epsilon)` and
`shift = beta - mean * scale`. A convolution without bias is linear in its kernel, so that is the
convolution by `kernel * scale` with the bias `shift`, which goes over the maps once in place of
twice. The kernels are multiplied in each call (a few weights against many pixels), so that what is
trained or assigned holds, and gradients go to each of the four.

It is done for depthwise convolutions and for 1x1 convolutions of stride 1: their few products for
each value are as fast as a pass over the maps. What larger kernels compute takes many times as
long, and keeps its last bits.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import torch
from keras import layers
from torch import Tensor

from keras_cnn.torch_fast.layer_calls import Node, TorchCall


def fold(
    nodes: Sequence[Node], calls: Sequence[TorchCall | None], uses: Counter
) -> list[TorchCall | None]:
    """The calls, where a convolution does its norm's work while that takes no batch's statistics.

    Args:
        nodes: Of the graph.
        calls: Of each node.
        uses: How often each tensor is used, by key.
    """
    folded = list(calls)
    makers = {id(node.outputs[0]): place for place, node in enumerate(nodes)}
    for place, node in enumerate(nodes):
        norm, given = node.operation, id(node.input_tensors[0])
        before = makers.get(given)
        if type(norm) is not layers.BatchNormalization or calls[place] is None or before is None:
            continue
        call = calls[before]
        if call is not None and uses[given] == 1 and _is_light(nodes[before].operation):
            folded[before] = _with_norm(call, nodes[before].operation, norm)
            folded[place] = _if_not_folded(calls[place], norm)
    return folded


def _is_light(layer: layers.Layer) -> bool:
    if type(layer) is layers.DepthwiseConv2D:
        return not layer.use_bias
    pointwise = type(layer) is layers.Conv2D and {*layer.kernel_size, *layer.strides} == {1}
    return pointwise and not layer.use_bias


def _with_norm(call: TorchCall, layer: layers.Layer, norm: layers.BatchNormalization) -> TorchCall:
    is_depthwise = type(layer) is layers.DepthwiseConv2D

    def convolve(x: Tensor, training: bool) -> Tensor:
        if training and norm.trainable:
            return call.call(x, training=training)
        kernel = layer.kernel.value
        scale = norm.gamma.value * torch.rsqrt(norm.moving_variance.value + norm.epsilon)
        shift = norm.beta.value - norm.moving_mean.value * scale
        # (h, w, in, multiplier), whose channels are in * multiplier; or (h, w, in, out)
        each = scale.view(kernel.shape[2:]) if is_depthwise else scale
        return call.convolve(x, kernel * each, shift)

    return dataclasses.replace(call, call=convolve)


def _if_not_folded(call: TorchCall, norm: layers.BatchNormalization) -> TorchCall:
    def normalise(x: Tensor, training: bool) -> Tensor:
        # Under mixed precision a convolution gives bfloat16.
        return call.call(x, training=training) if training and norm.trainable else x.float()

    return dataclasses.replace(call, call=normalise)
