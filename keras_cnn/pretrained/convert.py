"""torch weights files for our backbones: names and layouts."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_cnn.errors import UserError

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
# In the order that Keras has a layer's weights in: kernel and bias, or gamma, beta and statistics.
KINDS = ("weight", "bias", "running_mean", "running_var")
UNUSED = re.compile(r"(fc|head\.fc|classifier)\.|.*num_batches_tracked$")


def read(path: Path) -> dict[tuple[str, int], tuple[str, np.ndarray]]:
    """The weights in a torch file, but those of the classifier it was trained with.

    Args:
        path: torchvision's `.pth` (a state dict) or timm's `.safetensors`.

    Returns:
        For each weight the name of our layer and its place among the layer's weights (the name in
        the file and -1 where we know none), then its name in the file and its values, in Keras's
        layout.

    Raises:
        UserError: The file cannot be read.
    """
    tensors = read_torch_file(path)
    our_layer = _resnet_layer if "layer1.0.conv1.weight" in tensors else _convnext_layer
    arrays = {}
    for name, tensor in tensors.items():
        if UNUSED.match(name):
            continue
        at, _, kind = name.rpartition(".")
        if re.fullmatch(r"stages\.\d\.blocks\.\d+", at) and kind == "gamma":  # the layer scale
            at, kind = f"{at}.scale", "weight"
        layer = our_layer(at) if kind in KINDS else None
        where = (layer, KINDS.index(kind)) if layer else (name, -1)
        arrays[where] = name, _keras_layout(tensor, where[0])
    return arrays


def read_torch_file(path: Path) -> Mapping[str, np.ndarray]:
    """The tensors of a file by name, as float32; runs nothing that the file may hold.

    Raises:
        UserError: It is neither a `.safetensors` file nor a torch file of tensors only.
    """
    import torch
    from safetensors.numpy import load_file

    try:
        if path.suffix == ".safetensors":
            return {name: array.astype(np.float32) for name, array in load_file(path).items()}
        content = torch.load(path, map_location="cpu", weights_only=True)
        content = content.get("state_dict", content)
        return {name: tensor.float().numpy() for name, tensor in content.items()}
    except Exception as error:  # a damaged file can raise almost anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's text suggests to run it
            reason = "it is damaged, or holds more than tensors"
        raise UserError(f"{path}: not a torch weights file or .safetensors ({reason})") from None


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


def _keras_layout(tensor: np.ndarray, layer: str) -> np.ndarray:
    """Torch's axes in Keras's order, as the layer of this name has them."""
    if layer.endswith(("_expand", "_project")):
        # (out, in) -> (in, out); timm's smaller ConvNeXts have 1x1 convolutions: (out, in, 1, 1)
        return tensor.reshape(tensor.shape[:2]).T
    if tensor.ndim != 4:
        return tensor
    if layer.endswith("_depthwise"):
        return tensor.transpose(2, 3, 0, 1)  # (c, 1, h, w) -> (h, w, c, 1)
    return tensor.transpose(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
