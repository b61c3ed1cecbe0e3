"""Our optimizers against torch's own, on every backend."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch

from keras_cnn.methods.settings import Descent
from keras_cnn.training import optimizers, schedule

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


def scheduled(kind, learning_rate, epochs):
    return Descent(learning_rate=learning_rate, schedule=kind, schedule_epochs=epochs)


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
@pytest.mark.parametrize("kind", ["constant", "step", "cosine"])
@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_updates_equal_torchs(name, kind, l2):
    start = np.random.default_rng(0).normal(size=12).astype("float32")
    settings = scheduled(kind, 0.02, 10)
    rates = [schedule.learning_rate_at(step, settings) for step in range(STEPS)]
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


@pytest.mark.every_backend
def test_averaged_adamw_equals_torchs_and_its_average_numpys():
    start = np.random.default_rng(0).normal(size=12).astype("float32")
    parameter = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.AdamW([parameter], 0.02, weight_decay=0.1, eps=1e-7)
    variable = keras.Variable(start)
    optimizer = optimizers.averaged_adamw(0.02, weight_decay=0.1, average_decay=0.8)
    average = None
    for _ in range(STEPS):
        gradient = gradient_of(parameter.detach().numpy())
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        parameter.grad = torch.tensor(gradient)
        reference.step()
        values = parameter.detach().numpy().astype("float64")
        average = values if average is None else 0.8 * average + 0.2 * values
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(variable), parameter.detach().numpy(), atol=1e-5
    )
    optimizer.finalize_variable_values([variable])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), average, atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's fused kernel")
@pytest.mark.parametrize("kind", [keras.optimizers.Adam, keras.optimizers.AdamW])
@pytest.mark.parametrize("has_gaps", [False, True])
def test_the_fused_update_is_keras_own_whatever_lies_how_in_memory(kind, has_gaps):
    from keras_cnn.torch_fast import adam, graph

    generator = np.random.default_rng(0)
    start = generator.normal(size=(3, 3, 4, 5)).astype("float32")
    gradients = [
        np.float32(10.0) ** -power * generator.normal(size=start.shape).astype("float32")
        for power in (0, 3, 6, 8)  # epsilon matters for the last
    ]
    found = []
    for own in (True, False):
        base = type(kind())
        options = {"use_ema": True, "ema_momentum": 0.7}
        optimizer = (base if own else adam.fused(base))(1e-2, **options)
        variable = keras.Variable(start)
        if not own:
            if has_gaps:  # every second of twice as many numbers
                variable.value.data = variable.value.data.repeat_interleave(2, dim=-1)[..., ::2]
            else:
                graph.store_kernels_channels_last([variable])
            assert not variable.value.is_contiguous()
        for gradient in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        found.append([keras.ops.convert_to_numpy(value) for value in optimizer.variables])
        found[-1].append(keras.ops.convert_to_numpy(variable))
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-7)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="torch's fused kernel")
def test_the_fused_update_counts_on_from_what_the_variable_was_set_to():
    """The count is kept beside the variable, and a checkpoint sets that."""
    from keras_cnn.torch_fast import adam

    base = type(keras.optimizers.Adam())
    weights, gradient = [], keras.ops.convert_to_tensor(np.float32([0.3, -2.0]))
    for kind in (base, adam.fused(base)):
        optimizer, variable = kind(1e-2), keras.Variable(np.float32([1.0, 2.0]))
        for _ in range(3):
            optimizer.apply([gradient], [variable])
        optimizer.iterations.assign(0)
        for _ in range(2):
            optimizer.apply([gradient], [variable])
        assert int(optimizer.iterations) == 2
        weights.append(keras.ops.convert_to_numpy(variable))
    np.testing.assert_allclose(*weights, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("step", lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.5)),
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=5)),
    ],
)
def test_schedules_equal_torchs_past_their_period(kind, make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    for epoch in range(14):
        expected = optimizer.param_groups[0]["lr"]
        found = schedule.learning_rate_at(epoch, scheduled(kind, 0.3, 5))
        assert found == pytest.approx(expected, abs=1e-9)
        optimizer.step()
        scheduler.step()
