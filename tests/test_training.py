"""`fast` models train as `keras.Model` does: the same numbers, on torch by other means."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from keras_cnn import environment, models
from keras_cnn.data import Split
from keras_cnn.deck.eval_mode import EvalModeSticks, StickyEvalMode
from keras_cnn.torch_fast import fast
from keras_cnn.training import feed, metrics, optimizers

ON_TORCH = keras.backend.backend() == "torch"
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype("uint8")
LABELS = np.random.default_rng(1).integers(0, 4, 40)


@pytest.fixture
def switched_on(monkeypatch):
    """For what is to be seen on the fast path alone."""
    monkeypatch.delenv("KERAS_CNN_PLAIN", raising=False)


def plain(graph):
    """The same graph on Keras's own steps."""
    return keras.Model(graph.input, graph.output)


def network(name):
    """New, with the same weights each time."""
    if name == "mixed":
        return mixed()
    if name == "small_maps":
        return small_maps()
    if name == "inverted":
        return inverted()
    if name == "convnext_atto":
        return models.classifier(name, 4, image_size=32, seed=3, stochastic_depth=0.2)
    return models.classifier(name, 4, image_size=16, dropout=0.4, seed=3, hidden_units=4)


def mixed():
    """Uneven padding, a strided, a dilated and a fused layer, a shortcut, a layer used twice."""
    inputs = keras.Input((16, 16, 3))
    start = {"kernel_initializer": keras.initializers.GlorotUniform(5)}
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    x = layers.Conv2D(4, 3, strides=2, padding="same", **start)(x)  # 0 before, 1 after
    y = layers.Conv2D(4, 3, dilation_rate=2, padding="same", **start)(x)
    y = layers.Conv2D(4, 3, padding="same", activation="relu", **start)(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.BatchNormalization(scale=False)(x)
    again = layers.Conv2D(4, 1, **start)
    x = layers.MaxPooling2D(2)(layers.ReLU()(again(layers.ReLU()(again(x)))))
    x = layers.ReLU(max_value=6.0)(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(4, **start)(layers.Flatten()(x)))


def small_maps():
    """Convolutions of 4x4, 2x2 and 1x1 maps, all channels or one by one, with and without bias."""
    inputs = keras.Input((16, 16, 3))
    start = {"kernel_initializer": keras.initializers.GlorotUniform(5)}
    x = layers.MaxPooling2D(4)(layers.Conv2D(4, 3, padding="same", **start)(inputs))
    for pixels in (4, 2, 1):
        x = layers.DepthwiseConv2D(
            7, padding="same", depthwise_initializer=keras.initializers.GlorotUniform(6)
        )(x)
        x = layers.Conv2D(5, 3, padding="same", use_bias=pixels == 2, **start)(x)
        x = layers.ReLU()(layers.LayerNormalization()(x))
        if pixels > 1:
            x = layers.MaxPooling2D(2)(x)
    return keras.Model(inputs, layers.Dense(4, **start)(layers.Flatten()(x)))


def inverted():
    """Depthwise and 1x1 convolutions whose norms, one of them frozen, go into their kernels."""
    inputs = keras.Input((16, 16, 3))
    start = keras.initializers.GlorotUniform(5)
    bare = {"padding": "same", "use_bias": False}

    def normalised(x, trainable=True):  # most of it between 0 and 6, some beyond
        x = layers.BatchNormalization(
            gamma_initializer=keras.initializers.Constant(3),
            beta_initializer=keras.initializers.Constant(2),
            trainable=trainable,
        )(x)
        return layers.ReLU(max_value=6.0)(x)

    x = normalised(layers.Conv2D(4, 3, strides=2, kernel_initializer=start, **bare)(inputs))
    x = normalised(layers.Conv2D(6, 1, kernel_initializer=start, **bare)(x))
    x = layers.DepthwiseConv2D(  # 8x8 maps: 1 before, 2 after
        5, strides=2, depth_multiplier=2, depthwise_initializer=start, **bare
    )(x)
    y = normalised(x)
    y = normalised(layers.Conv2D(12, 1, kernel_initializer=start, **bare)(y), trainable=False)
    y = layers.DepthwiseConv2D(3, depthwise_initializer=start, **bare)(y)
    x = layers.Add()([x, layers.BatchNormalization()(y)])
    x = layers.MaxPooling2D(2)(layers.ReLU(max_value=1.0)(x))
    return keras.Model(inputs, layers.Dense(4, kernel_initializer=start)(layers.Flatten()(x)))


def fitted(make, name, epochs=3, optimizer="sgd", measured=("accuracy",), extra=(), l2=0.01):
    graph = network(name)
    model = make(graph)
    model.compile(
        optimizer=optimizers.build(optimizer, 1e-3, 0.9 if optimizer == "sgd" else 0.0, l2),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=list(measured),
    )
    size = graph.inputs[0].shape[1]
    images = IMAGES.repeat(size // 16, 1).repeat(size // 16, 2)
    batches = feed.shuffled(Split(images, LABELS), 16, seed=7)  # batches of 16, 16 and 8
    history = model.fit(
        batches,
        epochs=epochs,
        shuffle=False,
        validation_data=feed.in_order(Split(images, LABELS), 40),
        callbacks=[feed.BeginEpoch(batches), *extra],
        verbose=0,
    )
    return model, history.history


def weights(model):
    return [keras.ops.convert_to_numpy(weight) for weight in model.weights]


@pytest.mark.usefixtures("switched_on")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("name", ["baseline", "enhanced", "mixed", "small_maps", "inverted"])
def test_trains_as_keras_does(name, optimizer):
    stock, expected = fitted(plain, name, optimizer=optimizer)
    model, found = fitted(fast, name, optimizer=optimizer)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-6, err_msg=key)
    for ours, theirs in zip(weights(model), weights(stock), strict=True):
        np.testing.assert_allclose(
            ours, theirs, rtol=1e-5, atol=1e-4 if optimizer == "adam" else 1e-5
        )


@pytest.mark.every_backend
def test_fit_gives_the_same_history():
    _, expected = fitted(plain, "baseline", epochs=1)
    _, found = fitted(fast, "baseline", epochs=1)
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5, err_msg=key)


def test_twice_the_same_to_the_last_bit():
    environment.seed_everything(0)
    (first, one), (second, two) = fitted(fast, "enhanced"), fitted(fast, "enhanced")
    assert one == two
    for a, b in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("switched_on")
@pytest.mark.skipif(not ON_TORCH, reason="other backends run Keras's own steps")
@pytest.mark.parametrize(
    "name", ["baseline", "enhanced", "mixed", "small_maps", "inverted", "convnext_atto"]
)
@pytest.mark.parametrize("products_on", [("cpu",), ()])
def test_outputs_and_gradients_are_those_of_the_layers(monkeypatch, name, products_on):
    """Also as on a GPU, where small maps take torch's own convolution."""
    import torch

    from keras_cnn.torch_fast import layer_calls

    monkeypatch.setattr(layer_calls, "PRODUCTS_ON", products_on)
    found = []
    for make in (plain, fast):
        graph = network(name)  # anew: a training pass moves statistics and draws dropout
        model = make(graph)
        times = graph.inputs[0].shape[1] // 16
        images = IMAGES[:8].repeat(times, 1).repeat(times, 2)
        given = keras.ops.convert_to_tensor(images.astype("float32"))
        logits = model(given, training=True)
        labels = keras.ops.convert_to_tensor(LABELS[:8])
        loss = torch.nn.functional.cross_entropy(logits, labels)
        variables = [variable.value for variable in model.trainable_variables]
        gradients = torch.autograd.grad(loss, variables)
        inferred = model(given, training=False)
        found.append([logits.detach(), *gradients, inferred.detach()])
    for ours, theirs in zip(found[1], found[0], strict=True):
        scale = max(float(theirs.abs().max()), 1e-3)
        torch.testing.assert_close(ours / scale, theirs / scale, rtol=0, atol=3e-5)


@pytest.mark.usefixtures("switched_on")
@pytest.mark.skipif(not ON_TORCH, reason="torch's mixed precision")
@pytest.mark.parametrize("name", ["small_maps", "inverted"])
def test_mixed_precision_trains_alike_on_float32_weights(name):
    found = {}
    for mixed_precision in (False, True):
        graph = network(name)
        model = fast(graph, mixed_precision)
        before = weights(model)
        model.compile(
            optimizer=optimizers.build("sgd", 0.01),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(feed.in_order(Split(IMAGES, LABELS), 40), epochs=1, verbose=0)  # one step
        assert {str(weight.dtype) for weight in weights(model)} == {"float32"}
        found[mixed_precision] = [b - a for a, b in zip(before, weights(model), strict=True)]
        np.testing.assert_array_equal(  # evaluation is in float32
            model.predict(IMAGES, verbose=0),
            fast(graph).predict(IMAGES, verbose=0),
        )
    size = max(np.abs(step).max() for step in found[False])
    errors = [np.abs(a - b).max() / size for a, b in zip(*found.values(), strict=True)]
    assert 0 < max(errors) < 0.03  # bfloat16 has eight bits


@pytest.mark.usefixtures("switched_on")
@pytest.mark.skipif(not ON_TORCH, reason="a matter of torch's strides")
def test_kernels_are_never_copied_and_stay_so():
    import torch

    model, _ = fitted(fast, "enhanced", epochs=1)
    model.set_weights(model.get_weights())
    kernels = [v for v in (*model.variables, *model.optimizer.variables) if len(v.shape) == 4]
    assert len(kernels) == 12  # six kernels and their momenta
    for kernel in kernels:
        as_torch_wants = kernel.value.permute(3, 2, 0, 1)
        assert as_torch_wants.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not ON_TORCH, reason="a matter of torch's sums")
@pytest.mark.parametrize("uses_batch_statistics", [True, False])
@pytest.mark.parametrize(
    ("grouped_on", "size", "atol"), [(("cpu",), (64, 32, 32, 8), 3e-6), ((), (8, 6, 5, 8), 1e-5)]
)
def test_batch_normalisation_equals_double_precision(
    uses_batch_statistics, grouped_on, size, atol, monkeypatch
):
    """Also by torch's own sums, as on a GPU; on the processor these are not as exact."""
    import torch

    from keras_cnn.torch_fast import batch_norm

    monkeypatch.setattr(batch_norm, "GROUPED_ON", grouped_on)
    torch.manual_seed(0)
    device = keras.ops.zeros(()).device
    x = torch.relu(torch.randn(size) + 1).to(device).permute(0, 3, 1, 2)
    gamma, beta, mean = (torch.randn(8).to(device) for _ in range(3))
    gradient, variance = torch.randn(size).to(device), torch.rand(8).to(device)
    if uses_batch_statistics:
        mean, variance = batch_norm.batch_statistics(x)
    x, gamma, beta = (tensor.requires_grad_() for tensor in (x, gamma, beta))
    y = batch_norm.normalise(x, gamma, beta, mean, variance, 1e-5, uses_batch_statistics)
    found = [y, *torch.autograd.grad(y, (x, gamma, beta), gradient.permute(0, 3, 1, 2))]
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, gamma, beta)]
    expected = torch.nn.functional.batch_norm(
        wide[0], mean.double(), variance.double(), wide[1], wide[2], uses_batch_statistics
    )
    double = gradient.permute(0, 3, 1, 2).double()
    expected = [expected, *torch.autograd.grad(expected, wide, double)]
    for ours, exact in zip(found, expected, strict=True):
        ours, exact = ours.detach(), exact.detach()
        assert float((ours - exact).abs().max() / exact.abs().max()) < atol
    if uses_batch_statistics and grouped_on:
        exact = x.detach().double()
        torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=0)
        spread = exact.var((0, 2, 3), correction=0)
        torch.testing.assert_close(variance.double(), spread, rtol=2e-6, atol=0)


@pytest.mark.skipif(not ON_TORCH, reason="torch's kernels")
def test_batch_statistics_on_devices_without_the_kernel(monkeypatch):
    """As on Apple's; the processor stands in for one."""
    import torch

    from keras_cnn.torch_fast import batch_norm

    torch.manual_seed(0)
    x = torch.randn(8, 6, 5, 4).permute(0, 3, 1, 2) + 1
    expected = batch_norm.batch_statistics(x)
    monkeypatch.setattr(batch_norm, "GROUPED_ON", ())
    monkeypatch.delattr(torch.ops.aten, "batch_norm_update_stats")
    for ours, theirs in zip(batch_norm.batch_statistics(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not ON_TORCH, reason="torch's generators")
@pytest.mark.parametrize("noise_shape", [None, (None, 1)])
def test_dropout_on_a_gpu_drops_what_the_layer_would(noise_shape):
    """The processor stands in for one."""
    from keras_cnn.torch_fast import layer_calls

    x = keras.ops.convert_to_tensor(np.ones((50, 30), "float32"))
    found = []
    for ours in (True, False):
        layer = layers.Dropout(0.4, noise_shape=noise_shape, seed=2**31 - 2)
        call = layer_calls._DropoutOnGpu(layer) if ours else layer
        drawn = [call(x) if ours else call(x, training=True) for _ in range(3)]
        layer.seed_generator.state.assign([7, 9])  # as a checkpoint does
        drawn += [call(x) if ours else call(x, training=True) for _ in range(2)]
        found.append([keras.ops.convert_to_numpy(y) for y in drawn])
        found[-1].append(keras.ops.convert_to_numpy(layer.seed_generator.state))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(found[0][0], found[0][1])


@pytest.mark.usefixtures("switched_on")
@pytest.mark.skipif(not ON_TORCH, reason="a matter of torch's lean step")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_brings_no_number_to_the_device_or_back(monkeypatch, optimizer):
    """A GPU would be waited for; the processor stands in for one."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from keras_cnn.torch_fast import adam

    monkeypatch.setattr(adam, "READS_RATE_ON", ())
    made, read = [], []
    as_tensor = torch.as_tensor

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._local_scalar_dense.default:
                read.append(func)
            return func(*args, **(kwargs or {}))

    def watched(data, *more, **options):
        if not isinstance(data, torch.Tensor):
            made.append(data)
        return as_tensor(data, *more, **options)

    graph = mixed()
    model = fast(graph)
    model.compile(
        optimizer=optimizers.build(optimizer, 1e-3, 0.9 if optimizer == "sgd" else 0.0, 0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    batches = feed.in_order(Split(IMAGES, LABELS), 40)
    model.fit(batches, epochs=1, verbose=0)
    batch = batches[0]
    model.train_function([batch])
    monkeypatch.setattr(torch, "as_tensor", watched)
    with Watch():
        model.train_function([batch])
    assert not made and not read


@pytest.mark.usefixtures("switched_on")
@pytest.mark.skipif(not ON_TORCH, reason="Keras brings no batch to another device elsewhere")
def test_batches_of_a_loader_are_brought_to_the_device(monkeypatch):
    """Where there is a GPU; a device without values stands in for one."""
    import torch

    model, _ = fitted(fast, "baseline", epochs=1)
    moved = []
    bring = keras.ops.convert_to_tensor
    monkeypatch.setattr(
        keras.ops, "convert_to_tensor", lambda x, *more: moved.append(x) or bring(x, *more)
    )
    images, labels = torch.zeros(4, 16, 16, 3, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    for step in (model.train_function, model.test_function):
        moved.clear()
        step([(images, labels)])
        assert moved[0] is images and moved[1] is labels


def test_batch_means_and_the_eval_mode_that_sticks():
    class Held(keras.Model):
        inference_mode = False

        def call(self, inputs, training=None, mask=None):
            training = False if self.inference_mode else training
            return super().call(inputs, training=training, mask=mask)

    def run(make):
        figures = [
            metrics.BatchMean(metrics.hits, "accuracy"),
            metrics.BatchMean(metrics.cross_entropy, "batch_loss"),
        ]
        return fitted(make, "enhanced", measured=figures, extra=[EvalModeSticks()])

    _, expected = run(lambda graph: Held(graph.inputs, graph.outputs))
    _, found = run(lambda graph: fast(graph, behaviour=StickyEvalMode))
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-6, err_msg=key)
    assert abs(expected["loss"][0] - expected["batch_loss"][0]) > 1e-4  # the last batch is smaller


@pytest.mark.usefixtures("switched_on")
@pytest.mark.skipif(not ON_TORCH, reason="other backends give logs with every batch")
def test_metrics_can_be_read_in_mid_epoch():
    seen = []

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(self.model.get_metrics_result()["loss"]))

    _, history = fitted(fast, "baseline", epochs=2, extra=[Reader()])
    assert len(seen) == 6
    assert seen[2] == pytest.approx(history["loss"][0], rel=1e-6)
    assert seen[5] == pytest.approx(history["loss"][1], rel=1e-6)
    assert len(set(seen)) == 6


@pytest.mark.skipif(not ON_TORCH, reason="other backends read the metrics in each step")
def test_many_batches_are_read_in_parts(monkeypatch):
    from keras_cnn.torch_fast import model

    monkeypatch.setattr(model, "MOST_PENDING_BATCHES", 2)
    _, in_parts = fitted(fast, "baseline")
    monkeypatch.undo()
    _, at_once = fitted(fast, "baseline")
    for key, values in at_once.items():
        np.testing.assert_allclose(in_parts[key], values, rtol=1e-6, err_msg=key)
