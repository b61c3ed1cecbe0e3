"""Weights files that do not fit are refused, and nothing is half loaded."""

from __future__ import annotations

import pickle
import re

import keras
import numpy as np
import pytest
import torch
import torch_reference
from safetensors.torch import save_file

from keras_cnn import models
from keras_cnn.errors import UserError
from keras_cnn.pretrained import weights


@pytest.fixture(scope="module")
def states():
    return {
        name: torch_reference.reference(name).state_dict() for name in ("resnet18", "convnext_atto")
    }


@pytest.fixture(scope="module")
def backbones():
    return {name: models.backbone(name, 32) for name in ("resnet18", "convnext_atto")}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("resnet18", "layer2.0.downsample.1.running_var"),
        ("resnet18", "bn1.weight"),
        ("convnext_atto", "stages.2.blocks.5.gamma"),
        ("convnext_atto", "head.norm.bias"),
    ],
)
def test_a_missing_tensor_is_refused_and_nothing_is_assigned(
    name, key, states, backbones, tmp_path
):
    path = tmp_path / "weights.pth"
    torch.save({other: value for other, value in states[name].items() if other != key}, path)
    model = backbones[name]
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.weights]
    with pytest.raises(UserError, match="there is nothing for"):
        weights.load(model, path)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), old)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("resnet18", "layer4.2.conv1.weight"),
        ("resnet18", "layer1.0.attention"),
        ("resnet18", "conv3.weight"),
        ("convnext_atto", "stages.3.blocks.2.gamma"),
        ("convnext_atto", "stages.0.blocks.0.grn.weight"),
        ("convnext_atto", "norm_pre.weight"),
    ],
)
def test_a_tensor_left_over_is_refused_by_name(name, key, states, backbones, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({**states[name], key: torch.zeros(3)}, path)
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        weights.load(backbones[name], path)


def test_a_wrong_shape_and_another_model_are_refused(states, backbones, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({**states["resnet18"], "conv1.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(UserError, match="has shape"):
        weights.load(backbones["resnet18"], path)
    torch.save(states["resnet18"], path)
    with pytest.raises(UserError, match="convnext_atto"):
        weights.load(backbones["convnext_atto"], path)


def test_a_head_of_another_size_in_the_file_is_left_alone(states, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(states["convnext_atto"], path)
    model = models.classifier("convnext_atto", 7)
    head = keras.ops.convert_to_numpy(model.get_layer("head_logits").kernel).copy()
    weights.load(model, path)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(model.get_layer("head_logits").kernel), head
    )


def wrapped(state):
    """How training scripts and wrappers of networks write a state dict."""
    module = {f"module.{name}": tensor for name, tensor in state.items()}
    return {
        "model": {"epoch": 3, "model": state, "optimizer": {"lr": 0.1}},
        "moving average": {"ema": {"module": state}, "step": 7},
        "model_state_dict": {"model_state_dict": state, "loss": torch.tensor(1.0)},
        "lightning": {"state_dict": {f"model.{name}": t for name, t in state.items()}, "epoch": 1},
        "parameters": {
            name: torch.nn.Parameter(t, t.is_floating_point()) for name, t in state.items()
        },
        "parallel": module,
        "averaged": {"n_averaged": torch.tensor(7), **module},
        "compiled": {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
        "double": {name: tensor.double() for name, tensor in state.items()},
    }


@pytest.mark.parametrize("how", wrapped({}))
def test_checkpoints_of_every_shape_give_the_same_weights(how, states, backbones, tmp_path):
    model, path = backbones["resnet18"], tmp_path / "CHECKPOINT.PTH"
    torch.save(states["resnet18"], path)
    weights.load(model, path)
    expected = model.get_weights()
    torch.save(wrapped(states["resnet18"])[how], path)
    model.set_weights([0 * weight for weight in expected])
    weights.load(model, path)
    assert all(map(np.array_equal, expected, model.get_weights()))


def torchvisions(state):
    """A ConvNeXt's state dict by torchvision's names and shapes."""
    parts = {"conv_dw": "0", "norm": "2", "mlp.fc1": "3", "mlp.fc2": "5"}
    for name, tensor in state.items():
        if match := re.fullmatch(r"stages\.(\d)\.blocks\.(\d)\.(.+)\.(weight|bias)", name):
            stage, block, part, kind = match.groups()
            if tensor.ndim == 4 and "mlp" in part:
                tensor = tensor[:, :, 0, 0]  # torchvision has linear layers
            yield f"features.{2 * int(stage) + 1}.{block}.block.{parts[part]}.{kind}", tensor
        elif match := re.fullmatch(r"stages\.(\d)\.blocks\.(\d)\.gamma", name):
            stage, block = match.groups()
            yield f"features.{2 * int(stage) + 1}.{block}.layer_scale", tensor[:, None, None]
        elif match := re.fullmatch(r"stages\.(\d)\.downsample\.(.+)", name):
            yield f"features.{2 * int(match[1])}.{match[2]}", tensor
        else:
            yield (
                re.sub("^stem", "features.0", name)
                .replace("head.norm", "classifier.0")
                .replace("head.fc", "classifier.2"),
                tensor,
            )


def authors(state):
    """The same by the names of ConvNeXt's authors."""
    names = {
        "stem.": "downsample_layers.0.",
        ".blocks.": ".",
        "conv_dw": "dwconv",
        "mlp.fc": "pwconv",
        "head.norm": "norm",
        "head.fc": "head",
    }
    for name, tensor in state.items():
        name = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", name)
        for timms, theirs in names.items():
            name = name.replace(timms, theirs)
        yield name, tensor[:, :, 0, 0] if tensor.ndim == 4 and "pwconv" in name else tensor


@pytest.mark.parametrize("rename", [torchvisions, authors])
def test_a_convnext_may_have_torchvisions_names_or_its_authors(rename, states, backbones, tmp_path):
    model = backbones["convnext_atto"]
    save_file(states["convnext_atto"], tmp_path / "timm.safetensors")
    weights.load(model, tmp_path / "timm.safetensors")
    expected = model.get_weights()
    model.set_weights([0 * weight for weight in expected])
    renamed = dict(rename(states["convnext_atto"]))
    assert {"torchvisions": "features.5.3.layer_scale", "authors": "stages.2.3.pwconv1.bias"}[
        rename.__name__
    ] in renamed
    torch.save({"model": renamed}, tmp_path / "theirs.pth")
    weights.load(model, tmp_path / "theirs.pth")
    assert all(map(np.array_equal, expected, model.get_weights()))


def test_bfloat16_safetensors_are_read(states, backbones, tmp_path):
    path = tmp_path / "WEIGHTS.SAFETENSORS"
    save_file({k: v.bfloat16() for k, v in states["convnext_atto"].items()}, path)
    weights.load(backbones["convnext_atto"], path)
    kernel = keras.ops.convert_to_numpy(backbones["convnext_atto"].get_layer("stem_conv").kernel)
    expected = states["convnext_atto"]["stem.0.weight"].bfloat16().float().permute(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, expected.numpy())


ODD = {
    "no plain real numbers": (
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: tensor.to_sparse(),
    ),
    "not finite": (lambda tensor: tensor * float("nan"), lambda tensor: tensor / 0),
    "has shape": (
        lambda tensor: tensor[0],
        lambda tensor: tensor.flatten(),
        lambda tensor: tensor[None],
        lambda tensor: torch.zeros(1).expand(10**6, 10**6),
    ),
}


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.bias"])
@pytest.mark.parametrize(
    ("words", "act"), [(words, a) for words, acts in ODD.items() for a in acts]
)
def test_a_tensor_that_is_odd_is_refused(name, words, act, states, backbones, tmp_path):
    path = tmp_path / "weights.pth"
    if name == "bn1.bias" and "shape" in words:
        act = lambda tensor: tensor[None]  # noqa: E731
    torch.save({**states["resnet18"], name: act(states["resnet18"][name])}, path)
    before = backbones["resnet18"].get_weights()
    with pytest.raises(UserError, match=words):
        weights.load(backbones["resnet18"], path)
    assert all(map(np.array_equal, before, backbones["resnet18"].get_weights()))


@pytest.mark.parametrize("part", ["conv_dw.weight", "mlp.fc1.weight", "gamma", "norm.weight"])
@pytest.mark.parametrize("shape", [(), (3,), (160, 40, 3, 3), (2, 2, 2, 2, 2)])
def test_right_names_with_wrong_axes_are_refused(part, shape, states, backbones, tmp_path):
    path, name = tmp_path / "weights.safetensors", f"stages.0.blocks.1.{part}"
    save_file({**states["convnext_atto"], name: torch.ones(shape)}, path)
    with pytest.raises(UserError, match="has shape"):
        weights.load(backbones["convnext_atto"], path)


ENDLESS: dict[str, object] = {}
ENDLESS["model"] = ENDLESS


@pytest.mark.parametrize("content", [{}, [1, 2], 5, None, {"epoch": 3}, {"model": {}}, ENDLESS])
def test_a_torch_file_without_weights_by_name_is_refused(content, backbones, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(UserError, match="no weights by name"):
        weights.load(backbones["resnet18"], tmp_path / "weights.pth")


def test_a_pickle_that_runs_code_is_refused_unrun(backbones, tmp_path):
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"conv1.weight": Evil()}))
    with pytest.raises(UserError, match="not a torch weights file"):
        weights.load(backbones["resnet18"], path)
    torch.save({"conv1.weight": Evil()}, path)
    marker.unlink(missing_ok=True)
    with pytest.raises(UserError, match="not a torch weights file"):
        weights.load(backbones["resnet18"], path)
    assert not marker.exists()


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x02."])
def test_other_files_are_refused_in_one_line(ending, content, backbones, tmp_path):
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a torch weights file") as raised:
        weights.load(backbones["resnet18"], path)
    assert "\n" not in str(raised.value)
