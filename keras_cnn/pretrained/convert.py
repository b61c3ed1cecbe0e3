"""torch weights files for our backbones: names and layouts."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn.errors import UserError
from keras_cnn.models import archive
from keras_cnn.pretrained.stored import Stored, Weights

if TYPE_CHECKING:
    import torch

# Under which a checkpoint has its state dict, the first that is there; and what wrappers of a
# network (DataParallel, torch.compile, Lightning) put ahead of its names.
STATES = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params"),
    *("state_dict_ema", "model_ema", "ema"),
)
DEEPEST = 5  # state dicts in one another
WRAPPERS = r"^((module|_orig_mod|model|net|network|backbone)\.)+"
RESNET_PARTS = {
    "conv1": "conv1",
    "bn1": "norm1",
    "conv2": "conv2",
    "bn2": "norm2",
    "downsample.0": "shortcut_conv",
    "downsample.1": "shortcut_norm",
}
CONVNEXT_PARTS = {
    "conv_dw": "depthwise",
    "norm": "norm",
    "mlp.fc1": "expand",
    "mlp.fc2": "project",
    "scale": "scale",
}
CONVNEXT_FIXED = {"stem.0": "stem_conv", "stem.1": "stem_norm", "head.norm": "features_norm"}
EFFICIENTNET_PARTS = {
    "_expand_conv": "expand_conv",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project_conv",
    "_bn2": "project_norm",
}
# Names by ConvNeXt's authors, and timm's for the same.
AUTHORS_NAMES = {
    r"downsample_layers\.0\.": r"stem.",
    r"downsample_layers\.(\d)\.": r"stages.\1.downsample.",
    r"stages\.(\d)\.(\d+)\.": r"stages.\1.blocks.\2.",
    r"norm\.": r"head.norm.",
}
AUTHORS_PARTS = {"dwconv": "conv_dw", "pwconv1": "mlp.fc1", "pwconv2": "mlp.fc2"}
TORCHVISIONS_PARTS = {
    "block.0": "conv_dw",
    "block.2": "norm",
    "block.3": "mlp.fc1",
    "block.5": "mlp.fc2",
    "layer_scale": "gamma",
}
# In the order that Keras has a layer's weights in: kernel and bias, or gamma, beta and statistics.
KINDS = ("weight", "bias", "running_mean", "running_var")
UNUSED = re.compile(
    r"(_?fc|head|head\.fc|classifier(\.\d)?)\.(weight|bias)|n_averaged|.*num_batches_tracked"
)
# What torch and safetensors raise for content that is damaged or made up.
FAULTS = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, MemoryError),
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError),
    struct.error,
)


@contextmanager
def opened(path: Path) -> Iterator[Weights]:
    """The weights in a torch file, but those of the classifier it was trained with.

    Args:
        path: torchvision's `.pth` (a state dict, or a checkpoint with one inside) or a
            `.safetensors`, by the names of torchvision, timm or ConvNeXt's authors; of an
            EfficientNet-Lite, by those of efficientnet_lite_pytorch.

    Yields:
        For each weight the name of our layer and its place among the layer's weights (the name in
        the file and -1 where we know none), and how it lies in the file.

    Raises:
        UserError: The file cannot be read.
    """
    tensors = _tensors(path)
    layer_of = _naming(tensors)
    weights: Weights = {}
    for written, tensor in tensors.items():
        name = _timms_name(written) if layer_of is _convnext_layer else written
        if UNUSED.fullmatch(name):
            continue
        at, _, kind = name.rpartition(".")
        if re.fullmatch(r"stages\.\d\.blocks\.\d+", at) and kind == "gamma":  # the layer scale
            at, kind = f"{at}.scale", "weight"
        layer = layer_of(at) if kind in KINDS else None
        tensor = _keras_layout(tensor, layer or "")
        where = (layer, KINDS.index(kind)) if layer else (written, -1)
        weights[where] = Stored(written, tuple(tensor.shape), partial(_values, tensor))
    yield weights


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name; runs nothing that the file may hold.

    Raises:
        UserError: It is neither a `.safetensors` file nor a torch file of tensors only.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix.lower() == ".safetensors":
            content = load_file(path)
        else:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as members:
                    archive.check(members, path)
            with warnings.catch_warnings(action="ignore"):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, *FAULTS):
        raise UserError(
            f"{path}: not a torch weights file (a state_dict: tensors alone) or .safetensors, or a "
            "damaged one"
        ) from None
    tensors = _state_dict(content)
    if not tensors:
        raise UserError(f"{path}: has no weights by name: give a file with a state dict")
    for name, tensor in tensors.items():
        plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta)
        if not plain or tensor.is_complex():
            raise UserError(f"{path}: {name} holds no plain real numbers: not used")
    return tensors


def _state_dict(content: object) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by the network's own names; empty where there are none."""
    import torch

    for _ in range(DEEPEST):  # bounded: one may hold itself
        inner = content if isinstance(content, Mapping) else {}
        states = [inner[key] for key in STATES if isinstance(inner.get(key), Mapping)]
        if not states:
            break
        content = states[0]
    return {
        re.sub(WRAPPERS, "", str(name)): value
        for name, value in inner.items()
        if isinstance(value, torch.Tensor)
    }


def _values(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().float().numpy()


def _timms_name(name: str) -> str:
    """A ConvNeXt's name as timm writes it, from torchvision's or the authors'."""
    if match := re.match(r"features\.(\d)\.(\d+)\.((?:block\.)?\w+)(.*)", name):
        place, index, part, kind = int(match[1]), match[2], match[3], match[4]
        if place == 0:
            return f"stem.{index}.{part}"
        if place % 2 == 0:
            return f"stages.{place // 2}.downsample.{index}.{part}"
        part = TORCHVISIONS_PARTS.get(part, part)
        return f"stages.{place // 2}.blocks.{index}.{part}{kind}"
    if match := re.match(r"classifier\.0\.(\w+)$", name):
        return f"head.norm.{match[1]}"
    for authors, timms in AUTHORS_NAMES.items():
        name = re.sub(f"^{authors}", timms, name)
    return re.sub(r"dwconv|pwconv[12]", lambda match: AUTHORS_PARTS[match[0]], name)


def _naming(tensors: Mapping[str, torch.Tensor]) -> Callable[[str], str | None]:
    """What gives our name for a layer of a file with these tensors, None where we have none."""
    if "layer1.0.conv1.weight" in tensors:
        return _resnet_layer
    if "_conv_stem.weight" in tensors:
        return partial(_efficientnet_layer, _efficientnet_blocks(tensors))
    return _convnext_layer


def _efficientnet_blocks(tensors: Mapping[str, torch.Tensor]) -> list[tuple[int, int]]:
    """Stage and block, from 1 on, of each of a file's blocks: with a stage the width changes."""
    blocks: list[tuple[int, int]] = []
    stage = block = 0
    width = ()
    while (kernel := tensors.get(f"_blocks.{len(blocks)}._project_conv.weight")) is not None:
        before, width = width, kernel.shape[:1]
        stage, block = (stage, block + 1) if width == before else (stage + 1, 1)
        blocks.append((stage, block))
    return blocks


def _efficientnet_layer(blocks: Sequence[tuple[int, int]], at: str) -> str | None:
    """`_blocks.2._bn1` is our `stage2_block2_depthwise_norm`."""
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", at)
    if match is None:
        last = f"stage{blocks[-1][0]}_last" if blocks else "last"
        ends = {"_conv_stem": "stem_conv", "_bn0": "stem_norm"}
        return (ends | {"_conv_head": f"{last}_conv", "_bn1": f"{last}_norm"}).get(at)
    number, part = int(match[1]), EFFICIENTNET_PARTS.get(match[2])
    if number >= len(blocks) or part is None:
        return None
    stage, block = blocks[number]
    return f"stage{stage}_block{block}_{part}"


def _resnet_layer(at: str) -> str | None:
    """Torchvision's `layer2.0.bn1` is our `stage2_block1_norm1`."""
    match = re.fullmatch(r"layer(\d)\.(\d)\.(conv\d|bn\d|downsample\.\d)", at)
    if match is None:
        return {"conv1": "stem_conv", "bn1": "stem_norm"}.get(at)
    stage, block, part = match.groups()
    return f"stage{stage}_block{int(block) + 1}_{RESNET_PARTS.get(part)}"


def _convnext_layer(at: str) -> str | None:
    """Timm's `stages.0.blocks.1.mlp.fc1` is our `stage1_block2_expand`."""
    match = re.fullmatch(r"stages\.(\d)\.(blocks|downsample)\.(\d+)(?:\.(.+))?", at)
    if match is None:
        return CONVNEXT_FIXED.get(at)
    stage, group, index, part = match.groups()
    if group == "downsample":
        name = f"downsample_{('norm', 'conv')[int(index)]}"
    else:
        name = f"block{int(index) + 1}_{CONVNEXT_PARTS.get(part)}"
    return f"stage{int(stage) + 1}_{name}"


def _keras_layout(tensor: torch.Tensor, layer: str) -> torch.Tensor:
    """Torch's axes in Keras's order, as the layer of this name has them; others as they are."""
    if layer.endswith("_scale") and tensor.shape[1:] == (1, 1):  # as torchvision has it
        return tensor[:, 0, 0]
    if layer.endswith(("_expand", "_project")):
        # (out, in); timm's smaller ConvNeXts have 1x1 convolutions: (out, in, 1, 1)
        matrix = tensor[:, :, 0, 0] if tensor.ndim == 4 and tensor.shape[2:] == (1, 1) else tensor
        return matrix.T if matrix.ndim == 2 else tensor
    if tensor.ndim != 4:
        return tensor
    if layer.endswith("_depthwise"):
        return tensor.permute(2, 3, 0, 1)  # (c, 1, h, w) -> (h, w, c, 1)
    return tensor.permute(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
