"""Weights files that do not fit are refused, and nothing is half loaded."""

from __future__ import annotations

import pickle

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
