"""MAML: its gradients against finite differences and NumPy, and that it learns to learn."""

from __future__ import annotations

import keras
import method_runs
import numpy as np
import pytest
from keras import ops

from keras_cnn.data import Split
from keras_cnn.deck import maml_detached
from keras_cnn.errors import UserError
from keras_cnn.methods import maml
from keras_cnn.methods.settings import Maml
from keras_cnn.methods.tasks import Task, Tasks
from keras_cnn.models import freeze, heads, saved
from keras_cnn.training import batch_size, batch_statistics, gradients

CLASS_COUNT = 4
NAMES = ("circle", "square", "star", "cross")
RATE, STEPS = 0.1, 3


def regression(model, inputs, targets):
    """The mean squared error of weights of a model, as a function of the trainable ones."""
    state = gradients.tensors(model.non_trainable_variables)

    def loss(weights):
        outputs, _ = model.stateless_call(weights, state, inputs, training=False)
        return ops.mean(ops.square(outputs - targets)), ops.mean(outputs)

    return loss


def numpy_of(tensors):
    return [np.array(ops.convert_to_numpy(tensor)) for tensor in tensors]


def small_cnn(batch_norm=False):
    """A convolution, pooling and a dense layer: what MAML differentiates twice."""
    inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(3, 3, activation="tanh")(inputs)
    x = keras.layers.BatchNormalization()(x) if batch_norm else x
    x = keras.layers.AveragePooling2D(2)(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(x)))
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    return model


def small_cnn_losses(model, training):
    """Losses on support and query images drawn at random."""
    rng = np.random.default_rng(1)
    state = gradients.tensors(model.non_trainable_variables)

    def of(count):
        images = ops.convert_to_tensor(rng.normal(size=(count, 6, 6, 2)).astype("float32"))
        targets = ops.convert_to_tensor(rng.normal(size=(count, 1)).astype("float32"))

        def loss(weights):
            outputs, _ = model.stateless_call(weights, state, images, training=training)
            return ops.mean(ops.square(outputs - targets)), ops.mean(outputs)

        return loss

    return of(5), of(7)


def with_rows_alike(weights):
    """The dense layer's kernel with each row the mean of all: what an inner loop may begin with."""
    kernel = ops.broadcast_to(ops.mean(weights[-2], axis=0, keepdims=True), weights[-2].shape)
    return [*weights[:-2], kernel, weights[-1]]


def meta_gradients_of(model, losses, second_order, start=list):
    weights = gradients.tensors(model.trainable_variables)
    found = maml.meta_gradients(*losses, weights, STEPS, RATE, second_order, start)
    return float(ops.convert_to_numpy(found[0])), numpy_of(found[2])


@pytest.mark.every_backend
@pytest.mark.parametrize(
    ("batch_norm", "start"), [(False, list), (True, list), (False, with_rows_alike)]
)
def test_second_order_gradients_are_those_of_finite_differences(batch_norm, start):
    """Along random directions; BatchNorm by the statistics of the images at hand."""
    model = small_cnn(batch_norm)
    losses = small_cnn_losses(model, training=batch_norm)
    weights = numpy_of(gradients.tensors(model.trainable_variables))

    def after_adaptation(step, direction):
        moved = [weight + step * way for weight, way in zip(weights, direction, strict=True)]
        moved = [ops.convert_to_tensor(weight.astype("float32")) for weight in moved]
        loss = losses[1](maml.adapted(losses[0], start(moved), STEPS, RATE, second_order=False))[0]
        return float(ops.convert_to_numpy(ops.stop_gradient(loss)))

    value, second = meta_gradients_of(model, losses, second_order=True, start=start)
    _, first = meta_gradients_of(model, losses, second_order=False, start=start)
    assert value == pytest.approx(after_adaptation(0, weights), rel=1e-5)
    rng = np.random.default_rng(2)
    off_by = {"second": [], "first": []}
    for _ in range(3):
        direction = [rng.normal(size=weight.shape) for weight in weights]
        norm = np.sqrt(sum((way**2).sum() for way in direction))
        direction = [way / norm for way in direction]
        h = 1e-2
        ahead, behind = after_adaptation(h, direction), after_adaptation(-h, direction)
        differences = (ahead - behind) / (2 * h)
        for name, slopes in (("second", second), ("first", first)):
            along = sum((s * way).sum() for s, way in zip(slopes, direction, strict=True))
            off_by[name].append(abs(along - differences))
    scale = np.sqrt(sum((slope**2).sum() for slope in second))
    assert max(off_by["second"]) < 0.01 * scale
    assert max(off_by["first"]) > 0.05 * scale  # it is another gradient


@pytest.mark.every_backend
def test_a_linear_model_has_the_gradients_of_pencil_and_paper():
    """Least squares: each inner step multiplies by I - rate * H, and so does each step back."""
    rng = np.random.default_rng(3)
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False)(inputs))
    x, z = rng.normal(size=(6, 3)).astype("float32"), rng.normal(size=(5, 3)).astype("float32")
    y, t = rng.normal(size=(6, 1)).astype("float32"), rng.normal(size=(5, 1)).astype("float32")
    tensors = [ops.convert_to_tensor(array) for array in (x, y, z, t)]
    losses = regression(model, *tensors[:2]), regression(model, *tensors[2:])

    (weight,) = numpy_of(model.trainable_variables)
    for _ in range(STEPS):
        weight = weight - RATE * 2 / 6 * x.T @ (x @ weight - y)
    first = 2 / 5 * z.T @ (z @ weight - t)
    hessian = 2 / 6 * x.T @ x
    second = np.linalg.matrix_power(np.eye(3) - RATE * hessian, STEPS) @ first
    assert np.abs(first - second).max() > 0.05

    for expected, second_order in ((first, False), (second, True)):
        value, (found,) = meta_gradients_of(model, losses, second_order)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert value == pytest.approx(((z @ weight - t) ** 2).mean(), rel=1e-5)


@pytest.mark.every_backend
def test_gradients_of_what_does_not_matter_are_zero():
    weights = [ops.convert_to_tensor(np.float32([2.0])), ops.convert_to_tensor(np.float32([3.0]))]
    value, rest, slopes = gradients.value_and_gradients(
        lambda w: (ops.sum(w[0] ** 2), w[0] + 1), weights
    )
    assert float(ops.convert_to_numpy(value)) == 4
    assert float(ops.convert_to_numpy(ops.stop_gradient(rest))[0]) == 3
    np.testing.assert_array_equal(np.concatenate(numpy_of(slopes)), [4, 0])


def small_network(batch_norm=False, head="dense", seed=213, dropout=0.0, smooth=False):
    """Two stages, named as the backbones name theirs."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    for stage, width in enumerate((8, 16), start=1):
        kernel = keras.initializers.HeNormal(seed=seed + stage)
        x = keras.layers.Conv2D(
            width, 3, padding="same", kernel_initializer=kernel, name=f"stage{stage}_conv"
        )(x)
        if batch_norm:
            x = keras.layers.BatchNormalization(name=f"stage{stage}_norm")(x)
        x = keras.layers.Activation("tanh" if smooth else "relu", name=f"stage{stage}_act")(x)
        pool = keras.layers.AveragePooling2D if smooth else keras.layers.MaxPooling2D
        x = pool(2, name=f"stage{stage}_pool")(x)
    x = keras.layers.Flatten(name="features_flatten")(x)
    return keras.Model(inputs, heads.logits(x, CLASS_COUNT, head, dropout, seed))


def pictures(shots, seed):
    """Four classes of 8 x 8 pictures: a bright quarter, each elsewhere, in noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(shots * CLASS_COUNT) % CLASS_COUNT
    images = rng.integers(0, 100, (len(labels), 8, 8, 3))
    for image, label in zip(images, labels, strict=True):
        row, column = 4 * (label // 2), 4 * (label % 2)
        image[row : row + 4, column : column + 4] += 120
    return Split(images.astype(np.uint8), labels.astype(np.int64), NAMES)


SMALL = {
    "epochs": 2,
    "steps_an_epoch": 5,
    "tasks_a_step": 2,
    "support_shots": 2,
    "query_shots": 3,
    "inner_steps": 2,
    "learning_rate": 0.01,
    "inner_learning_rate": 0.05,
    "adaptation_steps": 5,
    "second_order": True,
}
# Compiling is most of what a test takes, and the more steps, the longer.
SHORTEST = {"epochs": 1, "steps_an_epoch": 1, "inner_steps": 1, "adaptation_steps": 1}


def trained(network=None, test=None, **settings):
    network, test = network or small_network(), test or pictures(10, 2)
    settings = SMALL | settings
    return method_runs.trained(maml.train, network, pictures(12, 1), test, **settings)


@pytest.mark.every_backend
@pytest.mark.parametrize("second_order", [True, False])
def test_it_learns_and_gives_back_what_it_promises(tmp_path, second_order):
    result = trained(second_order=second_order, epochs=4, schedule="step", schedule_epochs=2)
    first, last = result.history[0], result.history[-1]
    rates = [record["learning_rate"] for record in result.history]
    assert rates == pytest.approx(2 * [1e-2] + 2 * [5e-3])
    assert last["train_loss"] < 0.9 * first["train_loss"]
    assert result.history[-2]["test_loss"] < 0.9 * first["test_loss"]
    assert result.measures["episode_accuracy"] > 0.5  # chance is 0.25
    assert result.measures["weights_moved"] > 0.01

    assert result.measures["test_accuracy_over_images"] > 0.5
    assert last["test_accuracy"] == result.measures["episode_accuracy"]  # of tasks, as before
    assert last["test_loss"] < 0.9 * first["test_loss"]
    method_runs.assert_saved_whole(result, pictures(10, 2).images, tmp_path)


@pytest.mark.parametrize("head", ["dense", "cosine"])
def test_after_tasks_of_fewer_classes_all_outputs_start_alike(head):
    """With next to no adaptation every class is as likely as any other."""
    result = trained(small_network(head=head), way=2, inner_learning_rate=1e-9, **SHORTEST)
    np.testing.assert_allclose(result.probabilities, 1 / CLASS_COUNT, atol=1e-5)
    adapting = {"adaptation_steps": 20, "inner_learning_rate": 0.1}
    adapted = trained(small_network(head=head), epochs=1, way=2, **adapting)
    assert adapted.measures["test_accuracy_over_images"] > 0.4


def statistics(model):
    norms = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert len(norms) == 2
    return [numpy_of([norm.moving_mean, norm.moving_variance]) for norm in norms]


@pytest.mark.every_backend
def test_stored_statistics_stand_still_and_a_tasks_own_end_as_those_of_the_shots():
    stored, model = (
        trained(small_network(batch_norm=True), batch_norm=norm, **SHORTEST).model
        for norm in ("stored", "task")
    )
    for mean, variance in statistics(stored):
        np.testing.assert_array_equal(mean, 0)
        np.testing.assert_array_equal(variance, 1)
    mean, variance = statistics(model)[0]
    before = keras.Model(model.input, model.get_layer("stage1_conv").output)
    seen = before.predict(pictures(12, 1).images, verbose=0)  # (n, h, w, c)
    np.testing.assert_allclose(mean, seen.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(variance, seen.var((0, 1, 2)), rtol=1e-3)


@pytest.mark.every_backend
def test_stored_statistics_are_the_mean_over_batches_by_their_size():
    model = small_network(batch_norm=True)
    images = pictures(12, 1).images[:40]
    for _ in range(2):  # what was stored before plays no part
        batch_statistics.store(model, images, 16)
    before = keras.Model(model.input, model.get_layer("stage1_conv").output)
    seen = before.predict(images, verbose=0)  # (n, h, w, c)
    batches = seen[:16], seen[16:32], seen[32:]
    mean, variance = statistics(model)[0]
    for found, figure in ((mean, np.mean), (variance, np.var)):
        of_batches = [figure(batch, axis=(0, 1, 2)) for batch in batches]
        expected = np.average(of_batches, axis=0, weights=[16, 16, 8])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_statistics_are_of_batches_in_which_classes_are_mixed():
    """A user's folder comes class by class: batches of one class each would lack their spread."""
    model, each = small_network(batch_norm=True), batch_size.MOST
    labels = np.repeat(np.arange(CLASS_COUNT), each)
    shades = np.broadcast_to(60 * labels[:, None, None, None], (len(labels), 8, 8, 3))
    train = Split(shades.astype(np.uint8), labels, NAMES)
    maml.train(model, train, train, **SMALL | {"epochs": 1, "batch_norm": "task"})
    before = keras.Model(model.input, model.get_layer("stage1_conv").output)
    seen = before.predict(train.images, verbose=0)
    _, variance = statistics(model)[0]
    np.testing.assert_allclose(variance, seen.var((0, 1, 2)), rtol=0.05)
    by_class = np.mean([part.var((0, 1, 2)) for part in np.split(seen, CLASS_COUNT)], axis=0)
    assert by_class.sum() < 0.5 * variance.sum()


def test_frozen_stages_stay_as_they_are():
    network = small_network()
    freeze.freeze_stages(network, 1)
    model, unlearned = trained(network, epochs=1).model, small_network()
    for name, same in (("stage1_conv", True), ("stage2_conv", False), ("head_logits", False)):
        kernels = [numpy_of([m.get_layer(name).kernel])[0] for m in (model, unlearned)]
        assert np.array_equal(*kernels) == same, name


@pytest.mark.every_backend
@pytest.mark.parametrize("batch_norm", [False, True])
def test_detached_copies_leave_every_weight_as_it_was(batch_norm):
    """As the deck ran it: high train accuracy on the copies, an untrained network at the end."""
    result = method_runs.trained(
        maml_detached.train,
        small_network(batch_norm),
        pictures(12, 1),
        pictures(10, 2),
        batch_size=20,
        inner_steps=20,
        copy_learning_rate=0.02,
        epochs=1,
    )
    untouched = saved.classifier(small_network(batch_norm))
    for after, before in zip(result.model.weights, untouched.weights, strict=True):
        np.testing.assert_array_equal(*numpy_of([after, before]), err_msg=after.path)
    assert result.measures.keys() == {"test_accuracy_over_images", "weights_moved"}
    assert result.measures["weights_moved"] == 0
    record = result.history[-1]
    assert record["train_accuracy"] > 0.9
    expected = untouched.predict(pictures(10, 2).images, verbose=0)
    np.testing.assert_allclose(result.probabilities, expected, atol=1e-5)
    assert record["test_accuracy"] == result.measures["test_accuracy_over_images"] < 0.5


def numbered(split, first):
    """The split with its images numbered from `first`: each pixel is its image's number."""
    numbers = first + np.arange(len(split.labels))
    return Split(numbers[:, None, None, None] * np.ones((1, 8, 8, 3)), split.labels, NAMES)


@pytest.mark.parametrize(("of_test", "queries"), [(False, range(48)), (True, range(100, 140))])
def test_tasks_have_disjoint_images_and_permuted_labels(of_test, queries):
    """Support comes from the training images, 0 to 47; queries of test tasks from 100 to 139."""
    train, test = numbered(pictures(12, 1), 0), numbered(pictures(10, 2), 100)
    classes = np.concatenate([train.labels, np.full(52, -1), test.labels])
    tasks = Tasks(train, test, way=3, support_shots=2, query_shots=3)
    draw = tasks.test_task if of_test else tasks.training_task
    rng, orders = np.random.default_rng(0), set()
    for _ in range(20):
        task = draw(rng)
        support, query = (images[:, 0, 0, 0].astype(int) for images, _ in task)
        assert len({*support, *query}) == 3 * (2 + 3)  # no image twice
        assert {*support} <= {*range(48)} and {*query} <= {*queries}
        of_support, of_query = (
            [set(classes[images[labels == label]]) for label in range(3)]
            for images, (_, labels) in zip((support, query), task, strict=True)
        )
        assert of_support == of_query
        orders.add(tuple(of_label for (of_label,) in of_support))  # one class a label
    assert len(orders) > 10  # of 24


def meta_learner(network, **settings):
    train = pictures(12, 1)
    learner = maml.MetaLearner(network, Maml(**SMALL | settings), train, train, seed=0)
    task = Tasks(train, train, settings["way"], 2, 3).training_task(np.random.default_rng(0))
    return learner, task


@pytest.mark.every_backend
@pytest.mark.parametrize("head", ["dense", "cosine"])
def test_an_inner_loop_that_begins_with_prototypes_begins_with_the_nearest_class_mean(head):
    network = small_network(head=head)
    learner, task = meta_learner(network, way=3, head_start="prototypes")
    weights, state = learner._weights()
    begun = learner._head_start.of_task(weights, state, *maml._tensors(task)[:2])
    logits = network.stateless_call(begun, state, ops.convert_to_tensor(task.query[0]))[0]

    features = keras.Model(network.input, heads.features(network))
    support, queries = (features.predict(part[0], verbose=0) for part in task)
    if head == "cosine":
        support = support / np.linalg.norm(support, axis=1, keepdims=True)
    means = np.stack([support[task.support[1] == label].mean(axis=0) for label in range(3)])
    if head == "cosine":
        lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(means, axis=1)
        expected = queries @ means.T / lengths
    else:
        apart = np.square(queries[:, None] - means).sum(axis=2)
        expected = np.square(queries).sum(axis=1, keepdims=True) - apart
    np.testing.assert_allclose(ops.convert_to_numpy(logits)[:, :3], expected, rtol=1e-4, atol=1e-5)

    rates = {"learning_rate": 1e-9, "inner_learning_rate": 1e-9}
    unadapted = trained(network, head_start="prototypes", **rates, **SHORTEST)
    assert unadapted.measures["test_accuracy_over_images"] > 0.9  # random features do


@pytest.fixture(scope="module", params=["alike", "prototypes", "learned"])
def of_each_start(request):
    """A way for a head to start, and with it a learner, which compiles once, and a task."""
    network, start = small_network(smooth=True), request.param
    return start, *meta_learner(network, way=3, head_start=start, inner_learning_rate=0.2)


@pytest.mark.every_backend
def test_only_a_learned_head_minds_which_label_a_class_was_drawn(of_each_start):
    head_start, learner, task = of_each_start
    renamed = Task(*((shown, (labels + 1) % 3) for shown, labels in task))
    losses, slopes = [], []
    for one in (task, renamed):
        loss, _, found = learner._task_gradients(*learner._weights(), *maml._tensors(one))
        losses.append(float(ops.convert_to_numpy(loss)))
        slopes.append(numpy_of(found))
    assert (losses[0] == pytest.approx(losses[1], rel=1e-4)) == (head_start != "learned")
    *_, kernel, bias = slopes[0]
    for head in (kernel, bias):  # an output is learned with the others of the task, or by itself
        assert np.allclose(head[..., :3], head[..., :1], atol=1e-6) == (head_start != "learned")
        assert not head[..., 3:].any()
        assert head_start != "prototypes" or not head.any()  # the learned head plays no part


@pytest.mark.every_backend
def test_the_outer_gradient_is_that_of_finite_differences_also_through_the_heads_start(
    of_each_start,
):
    _, learner, task = of_each_start
    weights, state = learner._weights()
    tensors = maml._tensors(task)
    slopes = numpy_of(learner._task_gradients(weights, state, *tensors)[2])
    directions = [slope / max(np.linalg.norm(slope), 1e-12) for slope in slopes]

    def loss(step):
        pairs = zip(numpy_of(weights), directions, strict=True)
        moved = [ops.convert_to_tensor((w + step * way).astype("float32")) for w, way in pairs]
        return maml._number(learner._after_adaptation(moved, state, *tensors)[0])

    differences = (loss(1e-3) - loss(-1e-3)) / 2e-3
    assert differences == pytest.approx(sum(map(np.linalg.norm, slopes)), rel=0.01)


def test_test_figures_are_of_the_test_images_alone():
    """These carry their neighbours' labels, so whoever learned the training images is wrong."""
    test = pictures(10, 2)
    neighbours = Split(test.images, (test.labels + 1) % CLASS_COUNT, NAMES)
    result = trained(test=neighbours, epochs=4)
    last = result.history[-1]
    assert last["train_accuracy"] > 0.5
    assert result.measures["episode_accuracy"] == last["test_accuracy"] < 0.2


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(UserError, match="a task needs 13 images a class, class 'circle' has 12"):
        trained(support_shots=8, query_shots=5)


@pytest.mark.parametrize("method", [maml, maml_detached])
def test_dropout_is_refused(method):
    with pytest.raises(UserError, match="without dropout"):
        method.train(small_network(dropout=0.5), pictures(12, 1), pictures(10, 2))
