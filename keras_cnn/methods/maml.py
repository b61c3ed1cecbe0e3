"""Model-agnostic meta-learning (Finn, Abbeel and Levine 2017, arXiv:1703.03400).

A task is a few classes under labels drawn for it, a few support images of each to learn them from,
and other images, the queries, to see what was learned. With the losses L of a task's support and
query images, the inner loop takes some steps of gradient descent on the support,

    w' = w - inner_learning_rate * grad L_support(w)          (inner_steps times)

and the outer loop moves the weights that inner loops start from down the gradient, by w, of
L_query(w'). Second-order MAML differentiates through the inner steps; first-order MAML takes their
gradients as constants.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_cnn import torch_fast
from keras_cnn.data import Split
from keras_cnn.errors import UserError
from keras_cnn.methods.head_start import HeadStart, with_embeddings
from keras_cnn.methods.interface import Learned, Report, method
from keras_cnn.methods.settings import Maml
from keras_cnn.methods.tasks import Task, Tasks
from keras_cnn.models import heads
from keras_cnn.training import (
    batch_size,
    batch_statistics,
    evaluation,
    frozen,
    gradients,
    optimizers,
    schedule,
)
from keras_cnn.training.gradients import Tensor
from keras_cnn.training.history import record
from keras_cnn.training.metrics import cross_entropy, hits

VERSION = 2  # raised when a change makes the same settings give another result
TEST_TASKS = 10
ADAPTATION_IMAGES = 50  # of a step: about as many as the support images of a task of all classes
Loss = Callable[[list[Tensor]], tuple[Tensor, Tensor]]


@method(Maml)
def train(
    network: keras.Model, train: Split, test: Split, settings: Maml, seed: int, report: Report
) -> Learned:
    """Meta-learns on tasks of the training images, then adapts to all of them at once.

    A record has the loss and accuracy on the queries, after the inner steps, of the epoch's
    training tasks, and of a few test tasks: support from the training images, queries from the
    test images, the same in every epoch. After the last epoch the weights take `adaptation_steps`
    inner steps on the training images under their true labels, which makes the classifier.

    The network has as many outputs as there are classes; a task of fewer uses the first `way`.

        network = models.classifier("fewshot_cnn", class_count=10)
        trained = methods.maml.train(network, train, test, way=5, inner_learning_rate=0.1)

    Returns:
        The history, the adapted network, the accuracy on the test tasks with its interval, and how
        far the weights moved (`weights_moved`, L2 norm, before the adaptation).

    Raises:
        UserError: A class has too few images for a task, or the network drops something at random.
    """
    if heads.dropout_rate(network):
        raise UserError("maml trains without dropout: set dropout and stochastic_depth to 0")
    learner = MetaLearner(network, settings, train, test, seed)
    start = gradients.arrays(network.trainable_variables)
    history = []
    for epoch in range(settings.epochs):
        began = time.perf_counter()
        rate = schedule.learning_rate_at(epoch, settings)
        trained = learner.learn(epoch, rate)
        losses, accuracies = learner.test()
        tested = losses.mean(), accuracies.mean()
        history.append(record(epoch + 1, rate, trained, tested, time.perf_counter() - began))
        report(history[-1])
    moved = gradients.distance(start, gradients.arrays(network.trainable_variables))
    learner.adapt_to_all_classes()
    measures = {"weights_moved": moved, **evaluation.episode_measures(accuracies)}
    return Learned(history, network, measures)


def adapted(
    loss: Loss, weights: list[Tensor], steps: int, learning_rate: float, second_order: bool
) -> list[Tensor]:
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
        _, _, inner = gradients.value_and_gradients(loss, weights, differentiable=second_order)
        weights = [w - learning_rate * gradient for w, gradient in zip(weights, inner, strict=True)]
    return weights


def meta_gradients(
    support_loss: Loss,
    query_loss: Loss,
    weights: list[Tensor],
    steps: int,
    learning_rate: float,
    second_order: bool,
    start: Callable[[list[Tensor]], list[Tensor]] = list,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The gradient of the loss after the inner loop by the weights before it.

    Args:
        support_loss: What the inner loop descends, see `adapted`.
        query_loss: What its outcome is judged by.
        weights: As for `adapted`; likewise the next three.
        steps: How many.
        learning_rate: Rate of each step.
        second_order: Differentiate through the steps.
        start: Makes of `weights` what the inner loop begins with.

    Returns:
        The query loss, what else `query_loss` gave, and one gradient for each of `weights`.
    """

    def after_adaptation(before: list[Tensor]) -> tuple[Tensor, Tensor]:
        inner = adapted(support_loss, start(before), steps, learning_rate, second_order)
        return query_loss(inner)

    return gradients.value_and_gradients(after_adaptation, weights)


class MetaLearner:
    """A network whose weights are learned on tasks.

    Args:
        network: Images to logits.
        settings: How.
        train: Images and labels.
        test: Likewise.
        seed: Seeds the tasks.
    """

    def __init__(
        self, network: keras.Model, settings: Maml, train: Split, test: Split, seed: int
    ) -> None:
        both, train, test = frozen.skip_constant_part(with_embeddings(network), train, test)
        plain, embedder = (keras.Model(both.input, output) for output in both.outputs[:2])
        self._model = model = torch_fast.fast(plain)
        # The fast model's BatchNorm can be differentiated once only.
        needs_plain = settings.second_order and any(
            isinstance(layer, keras.layers.BatchNormalization) for layer in plain.layers
        )
        self._learner = plain if needs_plain else model
        self._settings, self._train, self._seed = settings, train, seed
        classes = model.output.shape[-1]
        self._way = min(settings.way or classes, classes)
        self._training = settings.batch_norm == "task"
        self._head_start = HeadStart(
            model,
            embedder if needs_plain else torch_fast.fast(embedder),
            settings.head_start,
            self._way,
            self._training,
        )
        self._inner = settings.inner_steps, settings.inner_learning_rate
        self._tasks = Tasks(train, test, self._way, settings.support_shots, settings.query_shots)
        streams = (np.random.default_rng((seed, 0, task)) for task in range(TEST_TASKS))
        self._test_tasks = [self._tasks.test_task(rng) for rng in streams]
        self._optimizer = optimizers.build(
            settings.optimizer, settings.learning_rate, settings.momentum, settings.l2
        )
        self._optimizer.build(model.trainable_variables)
        self._task_gradients = gradients.compiled(self._of_task)
        self._after_adaptation = gradients.compiled(self._adapted_and_tested)
        self._image_gradients = gradients.compiled(self._of_images)

    def learn(self, epoch: int, learning_rate: float) -> tuple[float, float]:
        """Takes an epoch's outer steps; mean loss and accuracy on the queries."""
        settings, figures = self._settings, []
        self._optimizer.learning_rate = learning_rate
        rng = np.random.default_rng((self._seed, 1, epoch))
        for _ in range(settings.steps_an_epoch):
            total = None
            for _ in range(settings.tasks_a_step):
                task = _tensors(self._tasks.training_task(rng))
                loss, accuracy, outer = self._task_gradients(*self._weights(), *task)
                figures.append((_number(loss), _number(accuracy)))
                total = [a + b for a, b in zip(total, outer, strict=True)] if total else outer
            mean = [gradient / settings.tasks_a_step for gradient in total]
            self._optimizer.apply(mean, self._model.trainable_variables)
        return tuple(np.mean(figures, axis=0))

    def test(self) -> tuple[np.ndarray, np.ndarray]:
        """Losses and accuracies (TEST_TASKS,) on the test tasks' queries."""
        figures = [
            [_number(x) for x in self._after_adaptation(*self._weights(), *_tensors(task))]
            for task in self._test_tasks
        ]
        losses, accuracies = np.transpose(figures)
        return losses, accuracies

    def adapt_to_all_classes(self) -> None:
        """Takes inner steps on all training images; under `task` stores their statistics."""
        model, settings, train = self._model, self._settings, self._train
        self._store_statistics()
        weights = self._weights()[0]
        start = self._head_start.of_all_classes(weights, train)
        for variable, weight, value in zip(model.trainable_variables, weights, start, strict=True):
            if value is not weight:  # of the head; JAX may have reused the other arrays' memory
                variable.assign(value)
        order = np.random.default_rng((self._seed, 2)).permutation(len(train.labels))
        for step in range(settings.adaptation_steps):
            cut = range(step * ADAPTATION_IMAGES, (step + 1) * ADAPTATION_IMAGES)
            chosen = np.take(order, cut, mode="wrap")
            images = ops.convert_to_tensor(np.asarray(train.images[chosen], np.float32))
            labels = ops.convert_to_tensor(np.asarray(train.labels[chosen], np.int32))
            inner = self._image_gradients(*self._weights(), images, labels)
            for variable, gradient in zip(model.trainable_variables, inner, strict=True):
                variable.assign(variable - settings.inner_learning_rate * gradient)
        self._store_statistics()

    def _store_statistics(self) -> None:
        """Stores the training images' statistics where tasks are normalised by their own."""
        if self._training:
            images, rng = self._train.images, np.random.default_rng((self._seed, 3))
            shuffled = images[rng.permutation(len(images))]
            batch_statistics.store(self._model, shuffled, batch_size.MOST)

    def _weights(self) -> tuple[list[Tensor], list[Tensor]]:
        model = self._model
        return tuple(
            map(gradients.tensors, (model.trainable_variables, model.non_trainable_variables))
        )

    def _loss(
        self, model: keras.Model, state: list[Tensor], images: Tensor, labels: Tensor, outputs: int
    ) -> Loss:
        """Cross-entropy and accuracy of weights on images, by the first outputs."""

        def loss(weights: list[Tensor]) -> tuple[Tensor, Tensor]:
            logits, _ = model.stateless_call(weights, state, images, training=self._training)
            logits = logits[:, :outputs]
            return ops.mean(cross_entropy(labels, logits)), ops.mean(hits(labels, logits))

        return loss

    def _of_task(self, weights: list[Tensor], state: list[Tensor], *task: Tensor) -> tuple:
        second_order = self._settings.second_order
        losses = (
            self._loss(self._learner, state, *part, self._way) for part in (task[:2], task[2:])
        )
        start = functools.partial(
            self._head_start.of_task, state=state, images=task[0], labels=task[1]
        )
        return meta_gradients(*losses, weights, *self._inner, second_order, start)

    def _adapted_and_tested(
        self, weights: list[Tensor], state: list[Tensor], *task: Tensor
    ) -> tuple[Tensor, Tensor]:
        parts = (task[:2], task[2:])
        support, query = (self._loss(self._model, state, *part, self._way) for part in parts)
        start = self._head_start.of_task(weights, state, *task[:2])
        return query(adapted(support, start, *self._inner, second_order=False))

    def _of_images(
        self, weights: list[Tensor], state: list[Tensor], images: Tensor, labels: Tensor
    ) -> list[Tensor]:
        loss = self._loss(self._model, state, images, labels, self._model.output.shape[-1])
        return gradients.value_and_gradients(loss, weights)[2]


def _tensors(task: Task) -> list[Tensor]:
    return [ops.convert_to_tensor(array) for array in (*task.support, *task.query)]


def _number(tensor: Tensor) -> float:
    return float(ops.convert_to_numpy(tensor))
