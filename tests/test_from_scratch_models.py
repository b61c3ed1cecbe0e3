"""The networks from scratch against the deck's parameter counts and plain torch networks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from torch import nn

from keras_cnn import models
from keras_cnn.models import heads
from keras_cnn.models.initializers import layer_seed, torch_initializers, torch_uniform

BASELINE_PARAMETERS = {
    10: 9_420,
    15: 16_150,
    20: 24_230,
    30: 44_440,
    32: 49_130,
    40: 70_050,
    50: 101_060,
    60: 137_470,
    70: 179_280,
    80: 226_490,
}
ENHANCED_PARAMETERS = {
    10: 29_000,
    20: 113_790,
    30: 254_380,
    40: 450_770,
    50: 702_960,
    60: 1_010_950,
    64: 1_149_770,
    70: 1_374_740,
    80: 1_794_330,
    90: 2_269_720,
    100: 2_800_910,
    128: 4_585_098,
}
SIZE = 16
NAMES = ("baseline", "enhanced")


def network(name, hidden_units=None, size=SIZE, dropout=0.0, seed=0):
    return models.classifier(name, 10, size, dropout=dropout, seed=seed, hidden_units=hidden_units)


def parameters_that_train(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@pytest.mark.parametrize(("hidden_units", "parameters"), BASELINE_PARAMETERS.items())
def test_baseline_has_the_decks_parameters(hidden_units, parameters):
    model = network("baseline", hidden_units, 32)
    assert parameters_that_train(model) == model.count_params() == parameters


@pytest.mark.parametrize(("hidden_units", "parameters"), ENHANCED_PARAMETERS.items())
def test_enhanced_has_the_decks_parameters(hidden_units, parameters):
    model = network("enhanced", hidden_units, 32)
    assert parameters_that_train(model) == parameters
    assert model.count_params() == parameters + 2 * 2 * 7 * hidden_units  # running statistics


def torch_networks():
    """Each network in plain torch, for images of 16 pixels; narrow where the deck varies width."""

    def stage(convolutions, size=3, norm=False):
        for inputs, outputs in convolutions:
            yield nn.Conv2d(inputs, outputs, size, padding=size // 2)
            yield nn.ReLU()
            if norm:
                yield nn.BatchNorm2d(outputs)
        yield nn.MaxPool2d(2)

    torch.manual_seed(0)
    layers = {
        "baseline": [*stage([(3, 6), (6, 6)]), *stage([(6, 6), (6, 6)]), nn.Flatten()],
        "enhanced": [
            *stage([(3, 4), (4, 4)], norm=True),
            *stage([(4, 8), (8, 8)], norm=True),
            *stage([(8, 16), (16, 16)], norm=True),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ],
        "fewshot_cnn": [*stage([(3, 32)]), *stage([(32, 64)]), *stage([(64, 128)]), nn.Flatten()],
        "siamese_cnn": [*stage([(3, 64)], 5), *stage([(64, 128)], 5), nn.Flatten()],
    }
    layers["baseline"].append(nn.Linear(6 * 4 * 4, 10))
    layers["enhanced"].append(nn.Linear(16, 10))
    layers["fewshot_cnn"] += [nn.Linear(128 * 2 * 2, 256), nn.ReLU(), nn.Linear(256, 10)]
    layers["siamese_cnn"].append(nn.Linear(128 * 4 * 4, 128))
    for module in layers["enhanced"]:
        if isinstance(module, nn.BatchNorm2d):
            with torch.no_grad():
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
                module.running_mean.uniform_(0, 0.5)
                module.running_var.uniform_(0.3, 1)
    return {name: nn.Sequential(*modules).eval() for name, modules in layers.items()}


def with_torchs_weights(name, reference):
    """Our network with the weights of the torch network."""
    model = network(name, {"baseline": 6, "enhanced": 4}.get(name), dropout=0.5)
    if name == "siamese_cnn":
        model = heads.embedder(model, 128)
    targets = iter([layer for layer in model.layers if layer.weights])
    channels = 3
    for module in reference:
        if not list(module.parameters()):
            continue
        # Copies: JAX would share the memory, and torch's training step writes to it.
        weight, *others = (v.numpy().copy() for v in [*module.state_dict().values()][:4])
        if isinstance(module, nn.Conv2d):
            channels, weight = len(weight), weight.transpose(2, 3, 1, 0)
        elif isinstance(module, nn.Linear):
            side = round((weight.shape[1] / channels) ** 0.5)  # Keras flattens channels last
            if channels * side**2 == weight.shape[1] and side > 1:
                maps = weight.reshape(-1, channels, side, side)
                weight = maps.transpose(0, 2, 3, 1).reshape(weight.shape)
            weight = weight.T
            channels = weight.shape[1]
        next(targets).set_weights([weight, *others])
    return model


def images(count=8):
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.every_backend
@pytest.mark.parametrize("name", ["baseline", "enhanced", "fewshot_cnn", "siamese_cnn"])
def test_raw_images_give_what_the_torch_network_gives(name):
    reference = torch_networks()[name]
    model = with_torchs_weights(name, reference)
    ours = model(keras.ops.convert_to_tensor(images()), training=False)
    pixels = torch.tensor(images().transpose(0, 3, 1, 2) / 255)
    with torch.no_grad():
        scaled = (pixels - 0.5) / 0.5 if name == "fewshot_cnn" else pixels
        expected = reference(scaled.float()).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(keras.ops.convert_to_numpy(ours), expected, atol=1e-5)


@pytest.mark.every_backend
def test_a_training_step_moves_batchnorms_statistics_as_torchs_does():
    """Means alike; variances by the biased one of the batch, where torch takes n/(n - 1) of it."""
    reference = torch_networks()["enhanced"]
    model = with_torchs_weights("enhanced", reference)
    scaled = torch.tensor(images().transpose(0, 3, 1, 2) / 255).float()
    expected = [module for module in reference if isinstance(module, nn.BatchNorm2d)]
    before = [module.running_var.numpy().copy() for module in expected]
    reference.train()(scaled)
    model(keras.ops.convert_to_tensor(images()), training=True)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for number, (norm, module) in enumerate(zip(norms, expected, strict=True)):
        found = keras.ops.convert_to_numpy(norm.moving_mean)
        np.testing.assert_allclose(found, module.running_mean.numpy(), atol=1e-5)
        values = len(images()) * (SIZE // 2 ** (number // 2)) ** 2  # two norms before each pooling
        kept = 0.9 * before[number]
        biased = kept + (module.running_var.numpy() - kept) * (values - 1) / values
        found = keras.ops.convert_to_numpy(norm.moving_variance)
        np.testing.assert_allclose(found, biased, atol=1e-5)
        assert np.abs(module.running_var.numpy() - before[number]).max() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_layers_begin_as_torchs(name):
    model = network(name, 24, 32)
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            continue
        kernel, bias = (keras.ops.convert_to_numpy(weight) for weight in layer.weights)
        *around, inputs, outputs = kernel.shape
        if around:
            reference = nn.Conv2d(inputs, outputs, tuple(around))
        else:
            reference = nn.Linear(inputs, outputs)
        for ours, theirs in ((kernel, reference.weight), (bias, reference.bias)):
            assert same_uniform(ours, theirs.detach().numpy()), layer.name


def same_uniform(ours, theirs):
    """Whether two samples fill the same symmetric range evenly, as far as their sizes can tell."""
    few = 1 / np.sqrt(ours.size)
    ends = np.abs(ours).max() / np.abs(theirs).max()
    spread = ours.std() / theirs.std()
    return (
        ours.size == theirs.size
        and abs(ends - 1) < max(0.005, 3 * few)
        and abs(spread - 1) < 3 * few
        and abs(ours.mean()) < 4 * few * theirs.std()
    )


def test_bounds_and_variance_of_torchs_layers():
    torch.manual_seed(0)
    cases = [
        (27, (3, 3, 3, 4000), nn.Conv2d(3, 4000, 3)),
        (512, (512, 300), nn.Linear(512, 300)),
        # torch counts one channel for a depthwise kernel
        (49, (7, 7, 3000, 1), nn.Conv2d(3000, 3000, 7, groups=3000)),
    ]
    for fan_in, shape, reference in cases:
        kernel = keras.ops.convert_to_numpy(torch_uniform(fan_in, 1)(shape))
        bias = keras.ops.convert_to_numpy(torch_uniform(fan_in, 2)((shape[-1] * 10_000,)))
        theirs = reference.weight.detach().numpy()
        for ours in (kernel, bias):
            assert np.abs(ours).max() <= fan_in**-0.5
            assert np.abs(ours).max() == pytest.approx(np.abs(theirs).max(), rel=1e-3)
            assert ours.var() == pytest.approx(theirs.var(), rel=0.02)
        assert np.abs(reference.bias.detach().numpy()).max() <= fan_in**-0.5


@pytest.mark.every_backend
@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_weights(name):
    first, again, other = (
        [keras.ops.convert_to_numpy(w) for w in network(name, 8, 32, seed=seed).weights]
        for seed in (1, 1, 2)
    )
    drawn = [index for index, weight in enumerate(first) if weight.std() > 0]  # not BatchNorm's
    assert len(drawn) == {"baseline": 10, "enhanced": 14}[name]
    for index in drawn:
        np.testing.assert_array_equal(first[index], again[index])
        assert np.abs(first[index] - other[index]).max() > 0.01


def test_no_two_tensors_repeat_one_anothers_numbers():
    drawn = [
        keras.ops.convert_to_numpy(initializer((100,)))
        for name in ("stage1_conv1", "stage1_conv2")
        for initializer in torch_initializers(9, 0, name).values()
    ]
    for one in range(4):
        for other in range(one):
            assert abs(np.corrcoef(drawn[one], drawn[other])[0, 1]) < 0.5


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_in_training_alone(name):
    images_ = keras.ops.convert_to_tensor(images())
    for rate, acts in ((0.5, True), (0.0, False)):
        model = network(name, 8, dropout=rate)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False  # it would differ in training by itself
        still, training = (
            keras.ops.convert_to_numpy(model(images_, training=flag)) for flag in (False, True)
        )
        assert (np.abs(still - training).max() > 1e-3) == acts


@pytest.mark.parametrize(("name", "stages"), [("baseline", 2), ("enhanced", 3)])
def test_layers_are_named_by_stage(name, stages):
    names = [layer.name for layer in network(name, 4, dropout=0.5).layers[1:]]
    numbered = [f"stage{number}" for number in range(1, stages + 1)]
    groups = dict.fromkeys(each.split("_")[0] for each in names)
    assert [*groups] == ["stem", *numbered, "features", "head"]
    assert names[-2:] == ["head_dropout", "head_logits"]


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("name", "layer"),
    [("baseline", "stage1_conv1"), ("convnext_atto", "stage1_block1_depthwise")],
)
def test_initial_weights_are_numpys_so_the_same_on_every_backend(name, layer):
    model = models.classifier(name, 10, seed=4)
    kernel = keras.ops.convert_to_numpy(model.get_layer(layer).kernel)
    random = np.random.default_rng(layer_seed(4, f"{layer}_kernel"))
    if name == "baseline":
        expected = random.uniform(-(27**-0.5), 27**-0.5, (3, 3, 3, 32))
        np.testing.assert_allclose(kernel, expected, atol=1e-7)
    else:
        assert np.abs(kernel).max() <= 0.04 and kernel.std() == pytest.approx(0.0176, rel=0.1)
        assert (np.abs(kernel) > 0.03).any()
        inside = np.abs(first := random.standard_normal((7, 7, 40, 1))) <= 2
        np.testing.assert_allclose(kernel[inside], 0.02 * first[inside], atol=1e-7)
