"""Our optimizers against torch's own, on every backend."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch

from keras_cnn.training import callbacks, optimizers

STEPS = 25


def gradient_of(weights):
    """Of a badly conditioned quadratic: 0.5 * sum(scale * (weights - 1)**2)."""
    return np.linspace(0.1, 3.0, weights.size).astype("float32") * (weights - 1)


def ours(optimizer, start, rates):
    variable = keras.Variable(start)
    for rate in rates:
        optimizer.learning_rate.assign(rate)
        gradient = gradient_of(keras.ops.convert_to_numpy(variable))
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return keras.ops.convert_to_numpy(variable)


def torchs(make, start, rates):
    parameter = torch.nn.Parameter(torch.tensor(start))
    optimizer = make([parameter])
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.tensor(gradient_of(parameter.detach().numpy()))
        optimizer.step()
    return parameter.detach().numpy()


@pytest.mark.every_backend
@pytest.mark.parametrize("l2", [0.0, 0.05])
@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_updates_equal_torchs(name, schedule, l2):
    start = np.random.default_rng(0).normal(size=12).astype("float32")
    rates = [callbacks.learning_rate_at(step, 0.02, schedule, 10, 0.5) for step in range(STEPS)]
    if name == "adam":
        reference = torchs(lambda p: torch.optim.Adam(p, 0.02, weight_decay=l2), start, rates)
        found = ours(optimizers.build("adam", 0.02, l2=l2), start, rates)
    else:
        reference = torchs(
            lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, weight_decay=l2), start, rates
        )
        found = ours(optimizers.build("sgd", 0.02, momentum=0.9, l2=l2), start, rates)
    # weights move by about 0.4; Keras computes Adam's bias correction in float32
    np.testing.assert_allclose(found, reference, atol=1e-5)


def test_l2_changes_the_result():
    start = np.ones(3, "float32") * 2
    plain = ours(optimizers.build("sgd", 0.1), start, [0.1] * 5)
    penalised = ours(optimizers.build("sgd", 0.1, l2=0.5), start, [0.1] * 5)
    assert np.abs(plain - penalised).max() > 0.05


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        ("step", lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.5)),
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=5)),
    ],
)
def test_schedules_equal_torchs_past_their_period(schedule, make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    for epoch in range(14):
        expected = optimizer.param_groups[0]["lr"]
        found = callbacks.learning_rate_at(epoch, 0.3, schedule, 5, 0.5)
        assert found == pytest.approx(expected, abs=1e-9)
        optimizer.step()
        scheduler.step()
