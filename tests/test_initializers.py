"""Initial weights by NumPy against Keras's own draws from the same initializers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import initializers, layers

from keras_cnn.models.initializers import Undrawn, draw

KERNEL = (3, 3, 40, 200)
RANDOM = {
    "random_normal": initializers.RandomNormal(mean=0.3, stddev=0.2, seed=1),
    "truncated_normal": initializers.TruncatedNormal(mean=-0.2, stddev=0.1, seed=1),
    "random_uniform": initializers.RandomUniform(-0.1, 0.4, seed=1),
    "glorot_uniform": initializers.GlorotUniform(1),
    "glorot_normal": initializers.GlorotNormal(1),
    "he_uniform": initializers.HeUniform(1),
    "he_normal": initializers.HeNormal(1),
    "lecun_uniform": initializers.LecunUniform(1),
    "lecun_normal": initializers.LecunNormal(1),
    "axes": initializers.VarianceScaling(seed=1, input_axes=(0, 3), output_axes=(2,)),
    **{
        f"{mode}_{distribution}": initializers.VarianceScaling(1.5, mode, distribution, seed=1)
        for mode in ("fan_in", "fan_out", "fan_avg")
        for distribution in ("uniform", "truncated_normal", "untruncated_normal")
    },
}


def drawn(layer, shape, seed=4):
    """The weights, by name, of a layer in a model whose initial weights are drawn."""
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    draw(model, seed)
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def convolution(initializer):
    layer = layers.Conv2D(KERNEL[-1], 3, kernel_initializer=initializer, name="conv")
    return drawn(layer, (8, 8, KERNEL[2]))["conv/kernel"]


@pytest.mark.parametrize("name", RANDOM)
def test_mean_spread_and_range_are_those_of_kerass_draws(name):
    ours, kerass = convolution(RANDOM[name]), keras.ops.convert_to_numpy(RANDOM[name](KERNEL))
    assert ours.shape == kerass.shape == KERNEL and not np.array_equal(ours, kerass)
    error = 5 * float(kerass.std()) / kerass.size**0.5  # five standard errors of a mean
    assert ours.mean() == pytest.approx(kerass.mean(), abs=2**0.5 * error)
    assert ours.std() == pytest.approx(kerass.std(), rel=0.02)
    if "untruncated" not in name and name != "random_normal":
        for end in (np.min, np.max):
            assert end(ours) == pytest.approx(end(kerass), abs=0.02 * float(np.ptp(kerass)))
    middle = [0.1, 0.25, 0.5, 0.75, 0.9]
    found, expected = np.quantile(ours, middle), np.quantile(kerass, middle)
    np.testing.assert_allclose(found, expected, atol=0.04 * kerass.std())


@pytest.mark.parametrize("name", ["glorot_uniform", "he_normal", "fan_out_untruncated_normal"])
@pytest.mark.parametrize("shape", [(30_000,), (300, 200), (5, 60, 200), (2, 2, 2, 30, 200)])
def test_fans_are_kerass_for_every_rank(name, shape):
    class Own(layers.Layer):
        def build(self, input_shape):
            self.weight_initializer = RANDOM[name]
            self.weight = self.add_weight(shape=shape, initializer="zeros", name="weight")

        def call(self, x):
            return x

    (ours,) = drawn(Own(), (3,)).values()
    kerass = keras.ops.convert_to_numpy(RANDOM[name](shape))
    assert ours.std() == pytest.approx(kerass.std(), rel=0.03)


@pytest.mark.parametrize(("inputs", "units"), [(30, 20), (20, 30), (25, 25)])
def test_orthogonal_rows_or_columns_have_the_length_of_the_gain(inputs, units):
    layer = layers.Dense(units, kernel_initializer=initializers.Orthogonal(1.5), name="dense")
    kernel = drawn(layer, (inputs,))["dense/kernel"]
    product = kernel.T @ kernel if inputs >= units else kernel @ kernel.T
    np.testing.assert_allclose(product, 1.5**2 * np.eye(min(inputs, units)), atol=1e-5)
    convolution_ = convolution(initializers.Orthogonal()).reshape(-1, KERNEL[-1])
    np.testing.assert_allclose(convolution_.T @ convolution_, np.eye(KERNEL[-1]), atol=1e-5)


def test_constants_and_what_is_not_known_stay_as_they_are():
    class Own(initializers.RandomNormal):
        def __call__(self, shape, dtype=None):
            return keras.ops.full(shape, 7.0, dtype)

    for initializer, expected in (
        ("zeros", np.zeros((4, 4))),
        ("ones", np.ones((4, 4))),
        (initializers.Constant(0.5), np.full((4, 4), 0.5)),
        (initializers.Identity(2.0), 2 * np.eye(4)),
        (lambda shape, dtype=None: keras.ops.full(shape, 3.0, dtype), np.full((4, 4), 3.0)),
        (Own(), np.full((4, 4), 7.0)),
    ):
        layer = layers.Dense(4, kernel_initializer=initializer, name="dense")
        np.testing.assert_array_equal(drawn(layer, (4,))["dense/kernel"], expected)


def many_kinds():
    """A model of layers of many kinds, some inside others, none of them named."""
    keras.utils.set_random_seed(1)
    images = keras.Input((8, 8, 4))
    x = layers.SeparableConv2D(6, 3, bias_initializer="random_normal")(images)
    x = layers.DepthwiseConv2D(3, depthwise_initializer="orthogonal")(x)
    x = layers.Conv2DTranspose(5, 2)(x)
    x = layers.PReLU(alpha_initializer="random_uniform")(x)
    x = layers.BatchNormalization(gamma_initializer="random_normal")(x)
    x = layers.Reshape((25, 5))(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    inner = keras.Sequential([keras.Input((25, 6)), layers.Conv1D(4, 3), layers.Dense(3)])
    return keras.Model(images, layers.LSTM(4)(inner(x)))


def values(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.mark.every_backend
def test_every_weight_of_every_kind_of_layer_is_the_same_on_every_backend():
    model = many_kinds()
    before = values(model)
    draw(model, 3)
    after = values(model)
    for weight, old, new in zip(model.weights, before, after, strict=True):
        moved = not np.array_equal(old, new)
        assert moved == (np.unique(old).size > 2), weight.path  # constants do not
    numbers = np.concatenate([new.reshape(-1) for new in after]).astype(np.float64)
    positions = np.linspace(-1, 1, numbers.size)
    assert (numbers.size, numbers @ positions) == (938, pytest.approx(-0.225295, abs=1e-5))


def test_neither_models_built_before_nor_other_layers_decide_what_is_drawn():
    first, second = many_kinds(), many_kinds()  # Keras numbers the second's layers on
    assert first.layers[1].name != second.layers[1].name
    for model in (first, second):
        draw(model, 3)
    assert all(map(np.array_equal, values(first), values(second)))
    draw(second, 5)
    assert not np.array_equal(values(first)[0], values(second)[0])
    kernels = [value.reshape(-1)[:3].tobytes() for value in values(first) if value.std() > 0]
    assert len(set(kernels)) == len(kernels), "no two begin alike"


def test_weights_that_only_our_draw_gives_are_those_of_the_initializer_that_is_named():
    named = RANDOM["truncated_normal"]
    np.testing.assert_array_equal(convolution(Undrawn(named)), convolution(named))
    layer = layers.Dense(3, kernel_initializer=Undrawn(named), name="dense")
    drawn(layer, (5,))
    assert type(layer.kernel_initializer) is initializers.TruncatedNormal
    saved = layer.get_config()["kernel_initializer"]
    assert saved == layers.Dense(3, kernel_initializer=named).get_config()["kernel_initializer"]


def test_layers_that_are_not_chosen_keep_their_weights():
    first, second = (layers.Dense(4, name=name) for name in ("first", "second"))
    inputs = keras.Input((4,))
    model = keras.Model(inputs, second(first(inputs)))
    before = model.get_weights()
    draw(model, 1, [second])
    after = model.get_weights()
    assert np.array_equal(before[0], after[0]) and not np.array_equal(before[2], after[2])
    draw(model, 1)
    np.testing.assert_array_equal(model.get_weights()[2], after[2])
