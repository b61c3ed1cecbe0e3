"""Our networks as one would write them in plain torch, with the weights of a Keras model.

A layer's path is its name in Keras: `stage1.block2.conv1` has the weights of `stage1_block2_conv1`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    import keras


def like(model: keras.Model) -> nn.Sequential:
    """The network of a Keras model, with its weights: stem, stages, features and head.

    Args:
        model: From `models.classifier`, with a dense head; `fewshot_cnn` at 32 pixels.

    Returns:
        Images (n, 3, h, w), scaled as by `scaled`, to logits. What does not train in the model
        needs no gradient here.
    """
    head = next(layer for layer in model.layers if layer.name == "head_logits")
    parts = NETWORKS[model.name]()
    parts["head"] = _named(logits=nn.Linear(*head.kernel.shape))
    network = nn.Sequential(OrderedDict(parts))
    with torch.no_grad():
        _copy_weights(model, network)
    return network


def scaled(images: Tensor, model: keras.Model) -> Tensor:
    """Raw images uint8 (n, h, w, 3) as the network wants them: float32 (n, 3, h, w)."""
    layer = model.get_layer("stem_rescaling")
    return images.permute(0, 3, 1, 2).float() * layer.scale + layer.offset


def halves(network: nn.Sequential, unfrozen_stages: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The part up to the last stages, and from there; they share the network's weights."""
    count = len(network) - 2 - unfrozen_stages  # features and head come after the stages
    return network[:count], network[count:]


def _copy_weights(model: keras.Model, network: nn.Module) -> None:
    modules = {path.replace(".", "_"): module for path, module in network.named_modules()}
    for layer in model.layers:
        if not layer.weights:
            continue
        values = [torch.from_numpy(weight.numpy().copy()) for weight in layer.weights]
        module = modules[layer.name]
        names = ("weight", "bias", "running_mean", "running_var")[: len(values)]
        if layer.name == "features_dense":  # of flattened maps, channels first here
            values[0] = values[0].unflatten(0, (-1, 128)).transpose(0, 1).flatten(0, 1)
        for name, value in zip(names, values, strict=True):
            getattr(module, name).copy_(_torch_layout(value, module))
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(layer.trainable)


def _torch_layout(value: Tensor, module: nn.Module) -> Tensor:
    if value.ndim == 4:  # (h, w, in, out), of a depthwise one (h, w, c, 1)
        return value.permute((2, 3, 0, 1) if module.groups > 1 else (3, 2, 0, 1))
    return value.T if value.ndim == 2 else value


def _named(**modules: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(modules))


class _Pooled(nn.Module):
    """The mean of each map: (n, c, h, w) to (n, c)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


# --- ResNet-18 -----------------------------------------------------------------------------------


def _resnet18() -> dict[str, nn.Module]:
    conv = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
    pool = nn.MaxPool2d(3, 2, 1)
    parts = {"stem": _named(conv=conv, norm=nn.BatchNorm2d(64), relu=nn.ReLU(), pool=pool)}
    channels = 64
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        first = _ResidualBlock(channels, width, stride=1 if stage == 1 else 2)
        parts[f"stage{stage}"] = _named(block1=first, block2=_ResidualBlock(width, width, 1))
        channels = width
    return parts | {"features": _Pooled()}


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride > 1:
            conv = nn.Conv2d(channels, width, 1, stride, bias=False)
            self.shortcut = _named(conv=conv, norm=nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x), inplace=True)


# --- ConvNeXt ------------------------------------------------------------------------------------


def _convnext_atto() -> dict[str, nn.Module]:
    depths, widths = (2, 2, 6, 2), (40, 80, 160, 320)
    parts = {"stem": _named(conv=nn.Conv2d(3, widths[0], 4, 4), norm=_NormOfChannels(widths[0]))}
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
        blocks = {f"block{number}": _ConvNextBlock(width) for number in range(1, depth + 1)}
        if stage > 1:
            before = widths[stage - 2]
            down = _named(norm=_NormOfChannels(before), conv=nn.Conv2d(before, width, 2, 2))
            blocks = {"downsample": down, **blocks}
        parts[f"stage{stage}"] = _named(**blocks)
    return parts | {"features": _named(pool=_Pooled(), norm=nn.LayerNorm(widths[-1], eps=1e-6))}


class _NormOfChannels(nn.LayerNorm):
    """Over the channels of (n, c, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Scale(nn.Module):
    """One learned factor a channel: (…, c) to (…, c)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class _ConvNextBlock(nn.Module):
    """Its dense layers on channels last, as the authors have it and torchvision does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.project = nn.Linear(4 * width, width)
        self.scale = _Scale(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale(self.project(functional.gelu(self.expand(y))))
        return x + y.permute(0, 3, 1, 2)


# --- EfficientNet-Lite0 --------------------------------------------------------------------------


def _efficientnet_lite0() -> dict[str, nn.Module]:
    depths, widths = (1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)
    sizes, strides = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
    parts: dict[str, nn.Module] = {"stem": _convolution(3, 32, size=3, stride=2)}
    channels = 32
    shapes = zip(depths, widths, sizes, strides, strict=True)
    for stage, (depth, width, size, stride) in enumerate(shapes, start=1):
        blocks = {}
        for block in range(1, depth + 1):
            expansion = 1 if stage == 1 else 6
            made = _InvertedBlock(channels, width, size, stride if block == 1 else 1, expansion)
            blocks[f"block{block}"], channels = made, width
        parts[f"stage{stage}"] = _named(**blocks)
    parts["stage7"].add_module("last", _convolution(320, 1280, size=1))
    return parts | {"features": _Pooled()}


def _convolution(
    channels: int, width: int, size: int, stride: int = 1, rectified: bool = True
) -> nn.Sequential:
    conv = _SamePadded(channels, width, size, stride, bias=False)
    norm = nn.BatchNorm2d(width, eps=1e-3, momentum=0.01)
    return _named(conv=conv, norm=norm, **({"relu": nn.ReLU6(inplace=True)} if rectified else {}))


class _SamePadded(nn.Conv2d):
    """Pads as TensorFlow does: where the stride is 2, more below and right."""

    def forward(self, x: Tensor) -> Tensor:
        whole = self.kernel_size[0] - self.stride[0]
        before = max(whole, 0) // 2
        if self.stride[0] == 1:
            return functional.conv2d(x, self.weight, None, 1, before, groups=self.groups)
        after = max(whole, 0) - before
        x = functional.pad(x, (before, after, before, after))
        return functional.conv2d(x, self.weight, None, self.stride, groups=self.groups)


class _InvertedBlock(nn.Module):
    def __init__(self, channels: int, width: int, size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = expansion * channels
        self.expand = _convolution(channels, inside, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _SamePadded(inside, inside, size, stride, groups=inside, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(inside, eps=1e-3, momentum=0.01)
        self.project = _convolution(inside, width, 1, rectified=False)
        self.adds = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise_norm(self.depthwise(self.expand(x)))
        y = self.project(functional.relu6(y, inplace=True))
        return x + y if self.adds else y


# --- the CNN for few images ----------------------------------------------------------------------


def _fewshot_cnn() -> dict[str, nn.Module]:
    parts: dict[str, nn.Module] = {}
    for stage, (channels, width) in enumerate(((3, 32), (32, 64), (64, 128)), start=1):
        conv = nn.Conv2d(channels, width, 3, padding=1)
        parts[f"stage{stage}"] = _named(conv=conv, relu=nn.ReLU(), pool=nn.MaxPool2d(2))
    dense = nn.Linear(128 * 4 * 4, 256)
    return parts | {"features": _named(flatten=nn.Flatten(), dense=dense, relu=nn.ReLU())}


NETWORKS: Mapping[str, Callable[[], dict[str, nn.Module]]] = {
    "convnext_atto": _convnext_atto,
    "resnet18": _resnet18,
    "efficientnet_lite0": _efficientnet_lite0,
    "fewshot_cnn": _fewshot_cnn,
}
