"""The deck's few-shot CNN and siamese network against plain torch networks of the same weights."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch
from torch import nn

from keras_cnn import models
from keras_cnn.models import heads


def few_shot_cnn(size):
    def stage(channels, width):
        return [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]

    stages = [*stage(3, 32), *stage(32, 64), *stage(64, 128)]
    head = [nn.Linear(128 * (size // 8) ** 2, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, 10)]
    return nn.Sequential(*stages, nn.Flatten(), *head)


def siamese(size):
    def stage(channels, width):
        return [nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]

    head = [nn.Flatten(), nn.Linear(128 * (size // 4) ** 2, 128)]
    return nn.Sequential(*stage(3, 64), *stage(64, 128), *head)


def with_torchs_weights(model, reference):
    sources = [module for module in reference if list(module.parameters())]
    targets = [layer for layer in model.layers if layer.weights]
    channels = 3
    for source, target in zip(sources, targets, strict=True):
        weight, bias = (weight.detach().numpy().copy() for weight in source.parameters())
        if isinstance(source, nn.Conv2d):
            channels, kernel = len(weight), weight.transpose(2, 3, 1, 0)
        else:
            kernel = weight.T
            if weight.shape[1] > 256:  # of the flattened maps, whose channels Keras puts last
                side = round((weight.shape[1] / channels) ** 0.5)
                maps = weight.reshape(-1, channels, side, side)
                kernel = maps.transpose(0, 2, 3, 1).reshape(weight.shape).T
        target.set_weights([kernel, bias])
    return model


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("build", "reference", "size", "scaled"),
    [
        (
            lambda size: models.classifier("fewshot_cnn", 10, size, dropout=0.5),
            few_shot_cnn,
            32,
            lambda images: (images / 255 - 0.5) / 0.5,
        ),
        (
            lambda size: heads.embedder(models.classifier("siamese_cnn", 10, size), 128),
            siamese,
            64,
            lambda images: images / 255,
        ),
    ],
    ids=["fewshot_cnn", "siamese_cnn"],
)
def test_raw_images_give_what_the_torch_network_gives(build, reference, size, scaled):
    torch.manual_seed(0)
    network = reference(size).eval()
    model = with_torchs_weights(build(size), network)
    assert model.count_params() == sum(weight.numel() for weight in network.parameters())
    images = np.random.default_rng(1).integers(0, 256, (6, size, size, 3), dtype=np.uint8)
    found = model(keras.ops.convert_to_tensor(images), training=False)
    with torch.no_grad():
        pixels = torch.tensor(images.transpose(0, 3, 1, 2)).double()
        expected = network(scaled(pixels).float()).numpy()
    assert expected.std() > 0.01
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), expected, atol=1e-5)
