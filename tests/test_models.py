"""Backbones against plain torch, heads against NumPy."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
import torch_reference
from keras import layers
from safetensors.torch import save_file

from keras_cnn import models
from keras_cnn.deck import supervised_as_run
from keras_cnn.errors import UserError
from keras_cnn.models import heads
from keras_cnn.pretrained import weights

FAMILIES = ("resnet18", "convnext_atto", "convnext_tiny")
# Keras's count with statistics, without the classifier; with 1,000 classes timm and torchvision
# publish 28,589,128 for ConvNeXt-Tiny, 3,695,520 for -Atto and 11,689,512 without statistics for
# ResNet-18.
CLASSIFIER_PARAMETERS = {
    "resnet18": 11_689_512 + 2 * 4_800,
    "convnext_atto": 3_695_520,
    "convnext_tiny": 28_589_128,
}


def images(size, count=3):
    return np.random.default_rng(size).integers(0, 256, (count, size, size, 3)).astype("uint8")


@pytest.fixture(scope="module")
def weight_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    made = {}
    for name in FAMILIES:
        network = torch_reference.reference(name)
        if name == "resnet18":
            made[name] = network, folder / "resnet18.pth"
            torch.save(network.state_dict(), made[name][1])
        else:
            made[name] = network, folder / f"{name}.safetensors"
            save_file(network.state_dict(), made[name][1])
    return made


def families_and_sizes():
    """All on torch; on the others one of each family: size and width are no backend's."""
    for name in FAMILIES:
        for size in (32, 64, 224):
            once = size == 32 and name != "convnext_tiny"
            yield pytest.param(name, size, marks=[pytest.mark.every_backend] if once else [])


@pytest.mark.parametrize(("name", "size"), [*families_and_sizes()])
def test_features_equal_plain_torch_of_the_same_weights(name, size, weight_files):
    network, path = weight_files[name]
    model = models.backbone(name, size)
    weights.load(model, path)
    given = images(size)
    expected = torch_reference.features(network, given)
    assert expected.std() > 0.1
    np.testing.assert_allclose(model.predict(given, verbose=0), expected, atol=1e-4)


def kerascv_resnet18(image_size):
    """keras-cv's ResNet-18 with torch's padding and BatchNorm settings put in."""
    import keras_cv

    original = keras_cv.models.ResNetBackbone(
        stackwise_filters=[64, 128, 256, 512],
        stackwise_blocks=[2, 2, 2, 2],
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=False,
        block_type="basic_block",
        input_shape=(image_size, image_size, 3),
    )

    def padding(layer):
        if not isinstance(layer, layers.Conv2D | layers.MaxPooling2D) or layer.strides == (1, 1):
            return 0
        return (layer.kernel_size if isinstance(layer, layers.Conv2D) else layer.pool_size)[0] // 2

    def torch_like(layer):
        config = layer.get_config()
        if isinstance(layer, layers.BatchNormalization):
            config |= {"epsilon": 1e-5, "momentum": 0.9}
        if padding(layer):
            config |= {"padding": "valid"}
        return type(layer).from_config(config)

    def padded(layer, x, mask=None):
        return layer(layers.ZeroPadding2D(padding(layer))(x) if padding(layer) else x)

    # A plain functional model: cloning a Backbone would look for its presets.
    graph = keras.Model(original.input, original.output)
    clone = keras.models.clone_model(graph, clone_function=torch_like, call_function=padded)
    return keras.Model(clone.input, layers.GlobalAveragePooling2D()(clone.output))


@pytest.mark.every_backend
def test_resnet_is_kerascvs_with_torchs_padding():
    ours, theirs = models.backbone("resnet18", 64), kerascv_resnet18(64)
    assert ours.count_params() == theirs.count_params() == 11_186_112
    random = np.random.default_rng(0)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):  # in the same order
        assert (mine.name, mine.shape) == (other.name, other.shape)
        spread = 0.1 if len(mine.shape) == 1 else np.sqrt(2 / np.prod(mine.shape[:-1]))
        values = random.normal(float(len(mine.shape) == 1), spread, mine.shape)
        mine.assign(values)
        other.assign(values)
    given = images(64)
    expected = theirs.predict(given * np.float32(1 / 127.5) - 1, verbose=0)
    found = ours.predict(given, verbose=0)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * float(expected.std()))


def test_training_statistics_equal_torchs(weight_files):
    """One BatchNorm step: torch's momentum and epsilon; its running variance is unbiased."""
    network, path = weight_files["resnet18"]
    model = models.backbone("resnet18", 32)
    weights.load(model, path)
    given = images(32, 8)
    network.train()
    x = (torch.tensor(given).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = network(x).numpy()
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model(given, training=True)), expected, atol=1e-3
    )
    norm = model.get_layer("stem_norm")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(norm.moving_mean), network.bn1.running_mean.numpy(), atol=1e-5
    )
    network.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_parameter_counts_are_the_published_ones(name):
    assert models.classifier(name, 1000).count_params() == CLASSIFIER_PARAMETERS[name]


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_the_seed_decides_the_weights_and_nothing_else_does(name):
    def weights(seed):
        model = models.classifier(name, 10, seed=seed)
        return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}

    first, again, other = weights(1), weights(1), weights(2)
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[path], again[path]) for path in first)
    kernels = [path for path in first if path.endswith("kernel") and "scale" not in path]
    assert kernels and not any(np.array_equal(first[path], other[path]) for path in kernels)
    # no two layers of one model begin alike either
    starts = [first[path].reshape(-1)[:4].tobytes() for path in kernels]
    assert len(set(starts)) == len(starts)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_every_trainable_weight_gets_a_gradient(name):
    model = models.classifier(name, 3)
    logits = model(images(32, 4), training=True)
    logits.square().sum().backward()
    for weight in model.trainable_weights:
        assert weight.value.grad is not None and weight.value.grad.abs().sum() > 0, weight.path


@pytest.mark.every_backend
def test_cosine_logits_equal_numpys():
    features = keras.Input((6,))
    model = keras.Model(features, heads.logits(features, 4, "cosine", 0.0, 3))
    given = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    kernel = keras.ops.convert_to_numpy(model.get_layer("head_logits").kernel)
    unit = given / np.linalg.norm(given, axis=1, keepdims=True)
    expected = unit @ (kernel / np.linalg.norm(kernel, axis=0))
    np.testing.assert_allclose(model.predict(given, verbose=0), expected, atol=1e-5)
    plain = heads.plain_head(model)
    assert {type(layer).__module__.split(".")[0] for layer in plain.layers} == {"keras"}
    np.testing.assert_allclose(plain.predict(given, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "cosine"])
def test_a_new_head_begins_as_torchs_linear(kind):
    features = keras.Input((400,))
    model = keras.Model(features, heads.logits(features, 50, kind, 0.0, 3))
    for weight in model.weights:
        values = keras.ops.convert_to_numpy(weight)
        bound = 1 / np.sqrt(400)
        assert np.abs(values).max() <= bound
        assert values.std() == pytest.approx(bound / np.sqrt(3), rel=0.2)


@pytest.mark.every_backend
def test_dropout_stands_where_it_is_asked_for():
    """Before the dense layer it zeroes features; after the logits it zeroes logits."""
    features = keras.Input((64,))
    given = np.ones((200, 64), "float32")
    before = keras.Model(features, heads.logits(features, 5, "dense", 0.5, 3))
    after = supervised_as_run.with_dropout_on_logits(before)
    zeros = []
    for model in (before, after):
        found = keras.ops.convert_to_numpy(model(given, training=True))
        zeros.append(float((found == 0).mean()))
        assert len(np.unique(found[:, 0])) > 1  # drawn anew for each image
        silent = keras.ops.convert_to_numpy(model(given, training=False))
        assert (silent != 0).all() and np.allclose(silent, silent[:1])
    assert zeros == [0, pytest.approx(0.5, abs=0.08)]


def test_stochastic_depth_drops_whole_branches_of_single_images():
    model = models.backbone("convnext_atto", 32, stochastic_depth=0.5, seed=1)
    drops = [layer for layer in model.layers if layer.name.endswith("_drop")]
    rates = [layer.rate for layer in drops]
    assert rates == pytest.approx([0.5 * block / 11 for block in range(1, 12)])
    dropped = drops[-1](np.ones((500, 1, 1, 8), "float32"), training=True)
    whole = keras.ops.convert_to_numpy(dropped).reshape(500, 8)
    assert set(np.unique(whole)) == {0.0, 2.0}
    assert (whole == whole[:, :1]).all()
    assert (whole[:, 0] == 0).mean() == pytest.approx(0.5, abs=0.1)


def test_a_wrong_name_or_size_says_what_would_be_right():
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        models.backbone("resnet81", 32)
    with pytest.raises(UserError, match="at least 32 pixels"):
        models.backbone("convnext_atto", 16)
    with pytest.raises(UserError, match="resnet18 has no stochastic_depth"):
        models.backbone("resnet18", 32, stochastic_depth=0.1)


def test_building_and_saving_networks_imports_no_tensorflow_and_leaves_it_to_be_found(tmp_path):
    (tmp_path / "tensorflow.py").touch()
    code = f"""
import json, sys, keras_cnn
from pathlib import Path
from keras_cnn import models
from keras_cnn.models import saved
for name in ("resnet18", "convnext_atto"):
    model = saved.classifier(models.classifier(name, 10))
    saved.save(model, Path({str(tmp_path)!r}, name + ".keras"), {{}})
before = "tensorflow" in sys.modules
sys.path.insert(0, {str(tmp_path)!r})  # an empty one is as good, and imported at once
from keras.src.utils.module_utils import tensorflow
print(json.dumps([before, tensorflow.available]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.strip().splitlines()[-1]) == [False, True]
