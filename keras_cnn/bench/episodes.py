"""Learning from episodes and tasks: ours, and what others compute, in plain torch.

Peers draw the same images, hold them scaled in memory, and step by a fused Adam.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn.data import Split

if TYPE_CHECKING:
    import keras
    import torch

CLASSES, IMAGES_A_CLASS, LEARNING_RATE = 10, 30, 1e-4
INNER_STEPS, INNER_RATE, TASKS_A_STEP = 5, 0.05, 4
Training = Callable[[], float]  # trains a while, returns its mean loss


@dataclass(frozen=True)
class Job:
    """How much a turn trains.

    Attributes:
        network: Its name; all of it trains.
        count: Episodes; of MAML, steps of the outer loop.
        way: Classes of an episode or task.
        support: Support images a class.
        query: Query images a class.
    """

    network: str
    count: int
    way: int = 5
    support: int = 5
    query: int = 10

    @property
    def images(self) -> int:
        """Of an episode or task."""
        return self.way * (self.support + self.query)


PROTOTYPICAL = Job("convnext_atto", count=10)
MAML = Job("fewshot_cnn", count=3, query=5)


def _images() -> Split:
    draw, count = np.random.default_rng(0), CLASSES * IMAGES_A_CLASS
    names = tuple(map(str, range(CLASSES)))
    pixels = draw.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return Split(pixels, np.arange(count) % CLASSES, names)


def _model(job: Job) -> keras.Model:
    from keras_cnn.bench import finetuning

    return finetuning.model(finetuning.Job(job.network, 0, 0, unfrozen_stages=None))


# --- prototypical networks ---------------------------------------------------------------------


def our_episodes(job: Job) -> Training:
    """Our way: an episode is one batch."""
    from keras_cnn import torch_fast
    from keras_cnn.methods import prototypical
    from keras_cnn.models import heads
    from keras_cnn.training import optimizers
    from keras_cnn.training.feed import BeginEpoch, Feed
    from keras_cnn.training.metrics import cross_entropy

    split = _images()
    embedder = torch_fast.fast(heads.embedder(_model(job)))
    loss = prototypical.of_queries(cross_entropy, job.way, job.support, "euclidean")
    embedder.compile(optimizer=optimizers.build("adam", LEARNING_RATE), loss=loss)
    draw = _draws(job, split)

    def train() -> float:
        feed = Feed(lambda epoch: next(draw), split.images)
        history = embedder.fit(feed, shuffle=False, verbose=0, callbacks=[BeginEpoch(feed)])
        return history.history["loss"][0]

    return train


def easyfsl_episodes(job: Job, channels_last: bool) -> Training:
    """As easyfsl's PrototypicalNetworks: support and query apart, minus the distances as logits."""
    import torch
    from torch import nn

    split = _images()
    inputs, network, optimizer = _torch_learner(job, split, channels_last)
    embedder = network[:-1]
    draw = _draws(job, split)

    def train() -> float:
        total = torch.zeros(())
        for indices, labels in next(draw):
            shown, targets = inputs[torch.from_numpy(indices)], torch.from_numpy(labels)
            first = job.way * job.support
            support, known = embedder(shown[:first]), targets[:first]
            means = torch.stack([support[known == label].mean(0) for label in range(job.way)])
            logits = -torch.cdist(embedder(shown[first:]), means)
            loss = nn.functional.cross_entropy(logits, targets[first:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
        return total.item() / job.count

    return train


def _draws(job: Job, split: Split) -> Iterator[list]:
    """A turn's episodes, turn by turn the same for all."""
    from keras_cnn.data import sampling

    rng = np.random.default_rng(1)
    while True:
        yield sampling.draw_episodes(
            split.labels, job.count, job.way, job.support, job.query, rng, split.class_names
        )


def _torch_learner(
    job: Job, split: Split, channels_last: bool = False
) -> tuple[torch.Tensor, torch.nn.Sequential, torch.optim.Optimizer]:
    """The images as the network wants them, the network, and what trains it."""
    import torch

    from keras_cnn.bench import torch_networks

    graph = _model(job)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = torch_networks.scaled(torch.from_numpy(split.images), graph)
    network = torch_networks.like(graph).to(memory_format=layout).train()
    # eps: Keras's
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE, eps=1e-7, fused=True)
    return images.contiguous(memory_format=layout), network, optimizer


# --- MAML --------------------------------------------------------------------------------------


def our_tasks(job: Job, second_order: bool) -> Training:
    """Our way."""
    from keras_cnn.methods.maml import MetaLearner
    from keras_cnn.methods.settings import Maml

    settings = Maml(
        inner_learning_rate=INNER_RATE,
        inner_steps=INNER_STEPS,
        second_order=second_order,
        way=job.way,
        head_start="learned",
        support_shots=job.support,
        query_shots=job.query,
        tasks_a_step=TASKS_A_STEP,
        steps_an_epoch=job.count,
    )
    split = _images()
    learner = MetaLearner(_model(job), settings, split, split, seed=0)
    return lambda: float(learner.learn(0, LEARNING_RATE)[0])


def functional_tasks(job: Job, second_order: bool) -> Training:
    """A loop over `torch.func.functional_call`."""
    import torch
    from torch.func import functional_call
    from torch.nn import functional

    def meta_loss(network: torch.nn.Module, task: list[torch.Tensor]) -> torch.Tensor:
        images, labels, queries, answers = task
        start = dict(network.named_parameters())
        weights = start
        for _ in range(INNER_STEPS):
            logits = functional_call(network, weights, images)[:, : job.way]
            loss = functional.cross_entropy(logits, labels)
            slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=second_order)
            weights = {
                name: weight - INNER_RATE * slope
                for (name, weight), slope in zip(weights.items(), slopes, strict=True)
            }
        logits = functional_call(network, weights, queries)[:, : job.way]
        loss = functional.cross_entropy(logits, answers) / TASKS_A_STEP
        loss.backward()
        return loss.detach() * TASKS_A_STEP

    return _outer_loop(job, meta_loss)


def higher_tasks(job: Job, second_order: bool) -> Training:
    """A loop over `higher.innerloop_ctx`, as its authors write MAML."""
    import higher
    import torch
    from torch.nn import functional

    def meta_loss(network: torch.nn.Module, task: list[torch.Tensor]) -> torch.Tensor:
        images, labels, queries, answers = task
        inner = torch.optim.SGD(network.parameters(), INNER_RATE)
        with higher.innerloop_ctx(
            network, inner, copy_initial_weights=False, track_higher_grads=second_order
        ) as (copy, steps):
            for _ in range(INNER_STEPS):
                steps.step(functional.cross_entropy(copy(images)[:, : job.way], labels))
            loss = functional.cross_entropy(copy(queries)[:, : job.way], answers) / TASKS_A_STEP
            if second_order:
                loss.backward()
            else:  # the gradient by the adapted weights is that of the first order
                slopes = torch.autograd.grad(loss, list(copy.parameters()))
                for weight, slope in zip(network.parameters(), slopes, strict=True):
                    weight.grad = slope if weight.grad is None else weight.grad + slope
        return loss.detach() * TASKS_A_STEP

    return _outer_loop(job, meta_loss)


def _outer_loop(
    job: Job, meta_loss: Callable[[torch.nn.Module, list[torch.Tensor]], torch.Tensor]
) -> Training:
    """Steps of Adam on the gradients that `meta_loss` adds up in the network, task by task."""
    import torch

    from keras_cnn.methods.tasks import Tasks

    split = _images()
    inputs, network, optimizer = _torch_learner(job, split)
    split = Split(inputs.numpy(), split.labels, split.class_names)
    tasks = Tasks(split, split, job.way, job.support, job.query)

    def train() -> float:
        rng, losses = np.random.default_rng((0, 1, 0)), []
        for _ in range(job.count):
            optimizer.zero_grad()
            for _ in range(TASKS_A_STEP):
                task = tasks.training_task(rng)
                arrays = (task.support[0], task.support[1], task.query[0], task.query[1])
                images, labels, queries, answers = map(torch.from_numpy, arrays)
                losses.append(meta_loss(network, [images, labels.long(), queries, answers.long()]))
            optimizer.step()
        return torch.stack(losses).mean().item()

    return train
