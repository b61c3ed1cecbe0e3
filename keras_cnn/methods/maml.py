"""Model-agnostic meta-learning (Finn, Abbeel and Levine 2017, arXiv:1703.03400).

A task is a few classes under labels drawn for it, a few support images of each to learn them from,
and other images, the queries, to see what was learned. The inner loop takes some steps of gradient
descent on the support images; the outer loop moves the weights that the inner loops start from
down the gradient of the loss on the queries after those steps. Second-order MAML differentiates
through the inner steps; first-order MAML takes their gradients as constants.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_cnn.data import Split
from keras_cnn.deck import batch_mean
from keras_cnn.deck.detached_copies import DetachedCopies
from keras_cnn.errors import UserError
from keras_cnn.methods import Outcome, networks
from keras_cnn.models import saved
from keras_cnn.models.heads import LOGITS
from keras_cnn.recipe.measures import half_width
from keras_cnn.recipe.resolve import Run
from keras_cnn.recipe.settings import Maml
from keras_cnn.training import callbacks, gradients, optimizers
from keras_cnn.training.callbacks import Report

TEST_TASKS = 10
ADAPTATION_IMAGES = 50  # of a step: about as many as the support images of a task of all classes
Loss = Callable[[list], tuple[object, object]]


class Task(NamedTuple):
    """What one inner loop learns from, and what it is then asked.

    Attributes:
        support: Images (way * support_shots, …) float32, or their features, and labels (n,)
            int32 from 0 to way - 1.
        query: Likewise, of other images.
    """

    support: tuple[np.ndarray, np.ndarray]
    query: tuple[np.ndarray, np.ndarray]


def train(run: Run, train: Split, test: Split, class_names: list[str], report: Report) -> Outcome:
    """Meta-learns on tasks of the training images, then adapts to all of them at once.

    An epoch's record has the loss and accuracy on the queries, after the inner steps, of its
    training tasks, and of a few test tasks: support from the training images, queries from the
    test images, the same tasks in every epoch. After the last epoch the weights take
    `adaptation_steps` inner steps on the training images under their true labels, which makes the
    classifier. What the test tasks gave last is the measure `episode_accuracy`, too, with its
    interval.

    The network has as many outputs as there are classes, and a task of fewer uses the first
    `way`. With `shared_head` every inner loop begins with outputs that are all the mean of those,
    and so does the classifier, which without it does where tasks have fewer classes.

    A BatchNorm layer that trains normalises, under `task`, by the statistics of the support or
    query images at hand, and gets those of all training images, a mean over batches, at the end;
    under `stored` its running statistics stay as they were loaded.

    With `detached_copy` no gradient reaches the weights, as in the deck: each batch trains a copy,
    in training mode, which is tested on the same images and thrown away. The classifier is then
    the network as it was at the start, its head as it was drawn; the test figures are its own in
    every epoch.

    Args:
        run: What to do; `run.training` is a `Maml`.
        train: Images (n, h, w, 3) uint8 and labels (n,) to train on.
        test: The same, to evaluate on.
        class_names: In the order of the labels.
        report: Called with one record an epoch.

    Returns:
        The history, the test images' probabilities (n, classes), the model to save, and how far
        the weights moved (`weights_moved`, L2 norm, before the adaptation).

    Raises:
        UserError: A class has too few images for a task, or the network drops something at
            random.
    """
    settings: Maml = run.training
    if run.model.dropout or run.model.stochastic_depth:
        raise UserError("maml trains without dropout: set dropout and stochastic_depth to 0")
    graph = networks.classifier(run, len(class_names))
    model, train_inputs, test_inputs = networks.without_constant_part(graph, run, train, test)
    start = _values(model.trainable_variables)
    known = Split(train_inputs, train.labels)
    if settings.detached_copy:
        learner = DetachedCopies(model, settings, known, run.training_seed)
        unadapted = networks.loss_and_accuracy(
            networks.outputs(saved.classifier(graph), test.images), test.labels
        )
    else:
        asked = Split(test_inputs, test.labels)
        learner = _Tasks(model, settings, known, asked, class_names, run.training_seed)
    history = []
    measures: dict[str, float] = {}
    for epoch in range(settings.epochs):
        began = time.perf_counter()
        rate = callbacks.learning_rate_at(epoch, settings)
        train_loss, train_accuracy = learner.learn(epoch, rate)
        if settings.detached_copy:
            test_loss, test_accuracy = unadapted
        else:
            losses, accuracies = learner.test()
            test_loss, test_accuracy = losses.mean(), accuracies.mean()
        if epoch + 1 == settings.epochs:
            end = _values(model.trainable_variables)
            moved = sum(np.square(a - b).sum() for a, b in zip(end, start, strict=True))
            measures["weights_moved"] = math.sqrt(moved)
            if not settings.detached_copy:
                measures["episode_accuracy"] = float(accuracies.mean())
                measures["episode_interval"] = half_width(accuracies.std(ddof=1), len(accuracies))
                learner.become_classifier()
            classifier = saved.classifier(graph)
            probabilities = networks.outputs(classifier, test.images)
        record = {
            "epoch": epoch + 1,
            "learning_rate": rate,
            "train_loss": float(train_loss),
            "train_accuracy": float(train_accuracy),
            "test_loss": float(test_loss),
            "test_accuracy": float(test_accuracy),
            "seconds": time.perf_counter() - began,
        }
        history.append(record)
        report(record)
    return Outcome(history, probabilities, classifier, measures)


def adapted(
    loss: Loss, weights: list, steps: int, learning_rate: float, second_order: bool
) -> list:
    """The inner loop: gradient descent.

    Args:
        loss: Takes weights like `weights`; gives a scalar, and anything.
        weights: Tensors to start from.
        steps: How many.
        learning_rate: Rate of each step.
        second_order: What comes out can be differentiated through the steps' gradients; otherwise
            these are constants, and it depends on `weights` as if only shifted.

    Returns:
        Tensors like `weights`.
    """
    for _ in range(steps):
        _, _, slopes = gradients.value_and_gradients(loss, weights, differentiable=second_order)
        weights = [
            weight - learning_rate * slope for weight, slope in zip(weights, slopes, strict=True)
        ]
    return weights


def meta_gradients(
    support_loss: Loss,
    query_loss: Loss,
    weights: list,
    steps: int,
    learning_rate: float,
    second_order: bool,
    start: Callable[[list], list] | None = None,
) -> tuple[object, object, list]:
    """The gradient of the loss after the inner loop by the weights before it.

    Args:
        support_loss: What the inner loop descends, see `adapted`.
        query_loss: What its outcome is judged by.
        weights: As for `adapted`.
        steps: As for `adapted`.
        learning_rate: As for `adapted`.
        second_order: As for `adapted`.
        start: Makes of them what the inner loop begins with; None takes them as they are.

    Returns:
        The query loss, what else `query_loss` gave, and one gradient for each of `weights`.
    """

    def after_adaptation(before: list) -> tuple[object, object]:
        begun = before if start is None else start(before)
        return query_loss(adapted(support_loss, begun, steps, learning_rate, second_order))

    return gradients.value_and_gradients(after_adaptation, weights)


class _Tasks:
    """Meta-learns a model's weights on tasks.

    Args:
        model: Images or features to logits.
        settings: How.
        train: Images or features, and labels.
        test: Likewise.
        class_names: In the order of the labels.
        seed: Seeds the tasks.
    """

    def __init__(
        self,
        model: keras.Model,
        settings: Maml,
        train: Split,
        test: Split,
        class_names: list[str],
        seed: int,
    ) -> None:
        self._model = model
        head = {id(variable) for variable in model.get_layer(LOGITS).trainable_variables}
        self._of_head = [id(variable) in head for variable in model.trainable_variables]
        # `torch_fast` is twice as fast, but its BatchNorm is differentiated once only.
        self._twice_differentiable = keras.Model(model.input, model.output)
        self._settings = settings
        self._seed = seed
        self._way = min(settings.way or len(class_names), len(class_names))
        self._train, self._test = train, test
        shots = settings.support_shots + settings.query_shots
        self._train_members = _members(train.labels, class_names, shots, "support_shots and query_")
        self._test_members = _members(test.labels, class_names, 1, "query_")
        self._optimizer = optimizers.build(
            settings.optimizer, settings.learning_rate, settings.momentum, settings.l2
        )
        self._optimizer.build(self._model.trainable_variables)
        self._meta_gradients = gradients.compiled(self._of_task)
        self._after_adaptation = gradients.compiled(self._tested)
        self._gradients = gradients.compiled(self._of_images)
        self._test_tasks = [
            self._test_task(np.random.default_rng((seed, 0, task))) for task in range(TEST_TASKS)
        ]

    def learn(self, epoch: int, learning_rate: float) -> tuple[float, float]:
        """Takes an epoch's outer steps; mean loss and accuracy on the queries."""
        settings = self._settings
        self._optimizer.learning_rate = learning_rate
        rng = np.random.default_rng((self._seed, 1, epoch))
        figures = []
        for _ in range(settings.steps_an_epoch):
            total = None
            for _ in range(settings.tasks_a_step):
                loss, accuracy, slopes = self._meta_gradients(
                    *self._weights(), *_tensors(self._train_task(rng))
                )
                figures.append((_number(loss), _number(accuracy)))
                total = _sum(total, slopes)
            self._optimizer.apply(
                [slope / settings.tasks_a_step for slope in total], self._model.trainable_variables
            )
        return tuple(np.mean(figures, axis=0))

    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """Losses and accuracies (TEST_TASKS,) on the test tasks' queries."""
        figures = [
            [
                _number(figure)
                for figure in self._after_adaptation(*self._weights(), *_tensors(task))
            ]
            for task in self._test_tasks
        ]
        losses, accuracies = np.transpose(figures)
        return losses, accuracies

    def become_classifier(self) -> None:
        """Adapts the model's weights to the training images; statistics too, under `task`."""
        model, settings = self._model, self._settings
        if settings.shared_head or self._way < model.output.shape[-1]:
            shared = self._with_outputs_alike(model.trainable_variables)
            for variable, value in zip(model.trainable_variables, shared, strict=True):
                variable.assign(value)
        order = np.random.default_rng((self._seed, 2)).permutation(len(self._train.labels))
        for step in range(settings.adaptation_steps):
            chosen = np.take(
                order, range(step * ADAPTATION_IMAGES, (step + 1) * ADAPTATION_IMAGES), mode="wrap"
            )
            images = np.asarray(self._train.images[chosen], np.float32)
            labels = np.asarray(self._train.labels[chosen], np.int32)
            slopes = self._gradients(
                *self._weights(), *map(ops.convert_to_tensor, (images, labels))
            )
            for variable, slope in zip(model.trainable_variables, slopes, strict=True):
                variable.assign(variable - settings.inner_learning_rate * slope)
        if settings.batch_norm == "task":
            self._store_statistics()

    def _store_statistics(self) -> None:
        """Gives BatchNorm layers that train the mean statistics of batches of training images."""
        momenta = {
            id(variable): layer.momentum
            for layer in self._model.layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
            for variable in (layer.moving_mean, layer.moving_variance)
        }
        weights, state = self._weights()
        places = [
            (place, variable, 1 - momenta[id(variable)])
            for place, variable in enumerate(self._model.non_trainable_variables)
            if id(variable) in momenta
        ]
        for place, _, _ in places:
            # From zero, a running mean takes 1 - momentum of the batch's statistics.
            state[place] = ops.zeros_like(state[place])
        total = None
        for images, labels in self._batches():
            _, found = self._model.stateless_call(weights, state, images, training=True)
            share = labels.shape[0] / len(self._train.labels)
            of_batch = gradients.tensors(found[place] for place, _, _ in places)
            total = _sum(total, [share * value for value in of_batch])
        for (_, variable, taken), value in zip(places, total, strict=True):
            variable.assign(value / taken)

    def _batches(self) -> Iterator[tuple[object, object]]:
        """All training images and labels, as tensors, in batches of bounded size, classes mixed."""
        order = np.random.default_rng((self._seed, 3)).permutation(len(self._train.labels))
        size = networks.EVALUATION_BATCH_SIZE
        for chosen in np.split(order, range(size, len(order), size)):
            images = np.asarray(self._train.images[chosen], np.float32)
            labels = np.asarray(self._train.labels[chosen], np.int32)
            yield ops.convert_to_tensor(images), ops.convert_to_tensor(labels)

    def _weights(self) -> tuple[list, list]:
        return (
            gradients.tensors(self._model.trainable_variables),
            gradients.tensors(self._model.non_trainable_variables),
        )

    def _loss(
        self, model: keras.Model, state: list, images: object, labels: object, outputs: int
    ) -> Loss:
        """Cross-entropy and accuracy of weights on images, by the first outputs."""
        training = self._settings.batch_norm == "task"

        def loss(weights: list) -> tuple[object, object]:
            logits, _ = model.stateless_call(weights, state, images, training=training)
            logits = logits[:, :outputs]
            return (
                ops.mean(batch_mean.cross_entropy(labels, logits)),
                ops.mean(batch_mean.accuracy(labels, logits)),
            )

        return loss

    def _with_outputs_alike(self, weights: list) -> list:
        """The weights, but each output of the head the mean of the first `way`."""
        return [
            # (channels, classes) and (classes,)
            ops.broadcast_to(ops.mean(w[..., : self._way], axis=-1, keepdims=True), w.shape)
            if of_head
            else w
            for w, of_head in zip(weights, self._of_head, strict=True)
        ]

    def _of_task(self, weights: list, state: list, *task: object) -> tuple[object, object, list]:
        settings = self._settings
        model = self._twice_differentiable if settings.second_order else self._model
        support, query = self._losses(model, state, *task)
        return meta_gradients(
            support,
            query,
            weights,
            settings.inner_steps,
            settings.inner_learning_rate,
            settings.second_order,
            self._with_outputs_alike if settings.shared_head else None,
        )

    def _tested(self, weights: list, state: list, *task: object) -> tuple[object, object]:
        settings = self._settings
        support, query = self._losses(self._model, state, *task)
        steps, rate = settings.inner_steps, settings.inner_learning_rate
        before = self._with_outputs_alike(weights) if settings.shared_head else weights
        return query(adapted(support, before, steps, rate, second_order=False))

    def _losses(
        self,
        model: keras.Model,
        state: list,
        support: object,
        support_labels: object,
        query: object,
        query_labels: object,
    ) -> tuple[Loss, Loss]:
        return (
            self._loss(model, state, support, support_labels, self._way),
            self._loss(model, state, query, query_labels, self._way),
        )

    def _of_images(self, weights: list, state: list, images: object, labels: object) -> list:
        loss = self._loss(self._model, state, images, labels, self._model.output.shape[-1])
        return gradients.value_and_gradients(loss, weights)[2]

    def _train_task(self, rng: np.random.Generator) -> Task:
        shots = self._settings.support_shots
        chosen = self._classes(rng)
        drawn = _drawn(self._train_members, chosen, shots + self._settings.query_shots, rng)
        return Task(_taken(self._train, drawn[:, :shots]), _taken(self._train, drawn[:, shots:]))

    def _test_task(self, rng: np.random.Generator) -> Task:
        chosen = self._classes(rng)
        fewest = min(len(self._test_members[label]) for label in chosen)
        support = _drawn(self._train_members, chosen, self._settings.support_shots, rng)
        query = _drawn(self._test_members, chosen, min(self._settings.query_shots, fewest), rng)
        return Task(_taken(self._train, support), _taken(self._test, query))

    def _classes(self, rng: np.random.Generator) -> np.ndarray:
        """A task's classes (way,); a class's place is its label in the task."""
        return rng.permutation(len(self._train_members))[: self._way]


def _members(
    labels: np.ndarray, class_names: list[str], fewest: int, setting: str
) -> list[np.ndarray]:
    """The indices of each class's images, of which a task needs at least so many."""
    members = [np.flatnonzero(labels == label) for label in range(len(class_names))]
    for name, indices in zip(class_names, members, strict=True):
        if len(indices) < fewest:
            raise UserError(
                f"a task needs {fewest} images a class, class {name!r} has {len(indices)}: "
                f"lower {setting}shots"
            )
    return members


def _drawn(
    members: list[np.ndarray], classes: np.ndarray, shots: int, rng: np.random.Generator
) -> np.ndarray:
    """Indices of different images (classes, shots)."""
    return np.stack([rng.choice(members[label], shots, replace=False) for label in classes])


def _taken(split: Split, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (classes * shots, …) and their labels in the task, of indices (classes, shots)."""
    labels = np.repeat(np.arange(indices.shape[0], dtype=np.int32), indices.shape[1])
    return np.asarray(split.images[indices.reshape(-1)], np.float32), labels


def _tensors(task: Task) -> list:
    return [ops.convert_to_tensor(array) for array in (*task.support, *task.query)]


def _values(variables: list) -> list[np.ndarray]:
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]


def _number(tensor: object) -> float:
    return float(ops.convert_to_numpy(tensor))


def _sum(total: list | None, terms: list) -> list:
    return terms if total is None else [a + b for a, b in zip(total, terms, strict=True)]
