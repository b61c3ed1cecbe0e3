"""torch weights into our backbones: names and layouts.

A file must hold each weight the backbone has, of the right shape, and nothing the backbone does
not know but the classifier it was trained with.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import keras
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
}
BATCH_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def load_torch_weights(model: keras.Model, path: Path) -> None:
    """Gives a backbone the weights of a torch file; a head keeps its own.

    Args:
        model: From `models.classifier` or `models.backbone`.
        path: torchvision's `.pth` (a state dict) or timm's `.safetensors`.

    Raises:
        UserError: The file cannot be read, lacks a weight, or holds one that fits nowhere.
    """
    tensors = read_torch_file(path)
    rename = _resnet_name if "layer1.0.conv1.weight" in tensors else _convnext_name
    found: dict[tuple[str, str], tuple[str, np.ndarray]] = {}
    for key, tensor in tensors.items():
        if re.match(r"(fc|head\.fc|classifier)\.|.*num_batches_tracked$", key):
            continue
        at = rename(key)
        if at is None:
            raise UserError(f"{path}: {key!r} is no weight of {model.name}")
        found[at] = key, tensor
    assignments = []
    for layer in model.layers:
        if layer.name.startswith("head_"):
            continue
        for variable in layer.weights:
            at = layer.name, variable.name
            if at not in found:
                raise UserError(f"{path}: there is nothing for {model.name}'s {variable.path}")
            key, tensor = found.pop(at)
            converted = _keras_layout(tensor, layer)
            if converted.shape != tuple(variable.shape):
                raise UserError(
                    f"{path}: {key!r} has shape {tensor.shape}, which does not fit {model.name}'s "
                    f"{variable.path} {tuple(variable.shape)}"
                )
            assignments.append((variable, converted))
    if found:
        raise UserError(f"{path}: {next(iter(found.values()))[0]!r} is no weight of {model.name}")
    for variable, converted in assignments:
        variable.assign(converted)


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


def _resnet_name(key: str) -> tuple[str, str] | None:
    """Torchvision's `layer2.0.bn1.weight` is `("stage2_block1_norm1", "gamma")`."""
    match = re.fullmatch(r"(?:layer(\d)\.(\d)\.)?(conv\d|bn\d|downsample\.\d)\.(\w+)", key)
    if match is None:
        return None
    stage, block, part, kind = match.groups()
    if stage is None:
        part = {"conv1": "stem_conv", "bn1": "stem_norm"}.get(part)
    else:
        part = f"stage{stage}_block{int(block) + 1}_{RESNET_PARTS.get(part)}"
    names = BATCH_NORM if "norm" in str(part) else {"weight": "kernel"}
    return (part, names[kind]) if part and kind in names else None


def _convnext_name(key: str) -> tuple[str, str] | None:
    """Timm's `stages.0.blocks.1.mlp.fc1.weight` is `("stage1_block2_expand", "kernel")`."""
    fixed = {"stem.0": "stem_conv", "stem.1": "stem_norm", "head.norm": "features_norm"}
    at, _, kind = key.rpartition(".")
    if match := re.fullmatch(r"stages\.(\d)\.blocks\.(\d+)", at):
        if kind != "gamma":
            return None
        return f"{_block(*match.groups())}_scale", "kernel"
    if match := re.fullmatch(r"stages\.(\d)\.blocks\.(\d+)\.(.+)", at):
        stage, block, part = match.groups()
        name = f"{_block(stage, block)}_{CONVNEXT_PARTS.get(part)}"
    elif match := re.fullmatch(r"stages\.(\d)\.downsample\.([01])", at):
        stage, index = match.groups()
        name = f"stage{int(stage) + 1}_downsample_{('norm', 'conv')[int(index)]}"
    else:
        name = fixed.get(at, "")
    if kind not in ("weight", "bias") or not name:
        return None
    return name, {"weight": "gamma", "bias": "beta"}[kind] if name.endswith("norm") else (
        "kernel" if kind == "weight" else "bias"
    )


def _block(stage: str, block: str) -> str:
    return f"stage{int(stage) + 1}_block{int(block) + 1}"


def _keras_layout(tensor: np.ndarray, layer: keras.layers.Layer) -> np.ndarray:
    """Torch's axes in Keras's order."""
    if tensor.ndim == 1:
        return tensor
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return tensor.transpose(2, 3, 0, 1)  # (c, 1, h, w) -> (h, w, c, 1)
    if isinstance(layer, keras.layers.Dense):
        # timm's smaller ConvNeXts write these as 1x1 convolutions: (out, in, 1, 1)
        return tensor.reshape(tensor.shape[:2]).T  # (out, in) -> (in, out)
    return tensor.transpose(2, 3, 1, 0)  # (out, in, h, w) -> (h, w, in, out)
