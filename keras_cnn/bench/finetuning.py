"""Fine-tuning the last stages of a backbone on few images: ours, and loops in plain torch.

A turn is the whole job from images on: what the frozen stages give for them, where that is kept,
and then all epochs. Weights, images, batch size and steps are the same for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn.data import Split

if TYPE_CHECKING:
    import keras

LEARNING_RATE = 1e-4
CLASSES = 10
EVALUATED_TOGETHER = 256  # images that go through the frozen stages at a time
Training = Callable[[], list[float]]  # trains through all epochs, returns each one's mean loss


@dataclass(frozen=True)
class Job:
    """What is to be trained.

    Attributes:
        network: Its name.
        images: How many.
        epochs: Passes over them.
        image_size: Height and width in pixels.
        batch_size: Images a step.
        unfrozen_stages: As for `models.classifier`.
    """

    network: str
    images: int
    epochs: int
    image_size: int = 32
    batch_size: int = 16
    unfrozen_stages: int = 2

    @property
    def passes(self) -> int:
        """Images that training steps get through."""
        return self.images * self.epochs


JOBS = {
    "convnext": Job("convnext_atto", images=320, epochs=3),
    "resnet": Job("resnet18", images=320, epochs=3),
    "efficientnet": Job("efficientnet_lite0", images=48, epochs=3, image_size=224),
}


def images(job: Job) -> Split:
    """Noise, and labels."""
    draw = np.random.default_rng(0)
    shape = (job.images, job.image_size, job.image_size, 3)
    return Split(draw.integers(0, 256, shape, np.uint8), draw.integers(0, CLASSES, job.images))


def model(job: Job) -> keras.Model:
    """The network with a new head; weights are the same in each call."""
    import keras

    from keras_cnn import models

    graph = models.classifier(
        job.network, CLASSES, job.image_size, unfrozen_stages=job.unfrozen_stages
    )
    for layer in graph.layers:  # at their initial 1e-6 a ConvNeXt's blocks add next to nothing
        if isinstance(layer, keras.layers.EinsumDense):
            layer.kernel.assign(keras.ops.full_like(layer.kernel, 0.3))
    return graph


def ours(job: Job) -> Training:
    """Our way: the frozen stages run once, the others are fed what these gave."""
    import keras

    from keras_cnn import torch_fast
    from keras_cnn.models.freeze import constant_part
    from keras_cnn.training import evaluation, feed, optimizers

    graph, split = model(job), images(job)
    constant, features = constant_part(graph)
    frozen = evaluation.evaluator(constant)
    rest = torch_fast.fast(keras.Model(features, graph.output))
    rest.compile(
        optimizer=optimizers.build("adam", LEARNING_RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )

    def train() -> list[float]:
        kept = Split(frozen(split.images), split.labels)
        batches = feed.shuffled(kept, job.batch_size, seed=0)
        history = rest.fit(
            batches,
            epochs=job.epochs,
            shuffle=False,
            verbose=0,
            callbacks=[feed.BeginEpoch(batches)],
        )
        return history.history["loss"]

    return train


def torch_loop(job: Job, keeps_features: bool, channels_last: bool) -> Training:
    """The loop one would write by hand, at its best: images scaled in memory, a fused optimizer.

    Args:
        job: What to train.
        keeps_features: The frozen stages run once, as ours do; else in each step, without
            gradients.
        channels_last: How maps lie in memory.
    """
    import torch
    from torch import nn

    from keras_cnn.bench import torch_networks
    from keras_cnn.training.feed import on_device

    graph, split = model(job), images(job)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    raw, targets = on_device(split.images), on_device(split.labels)  # where Keras puts them
    inputs = torch_networks.scaled(raw, graph).contiguous(memory_format=layout)
    network = torch_networks.like(graph).to(inputs.device, memory_format=layout)
    frozen, rest = torch_networks.halves(network, job.unfrozen_stages)
    frozen.eval()
    rest.train()
    trained = [weight for weight in rest.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(trained, LEARNING_RATE, eps=1e-7, fused=True)  # eps: Keras's

    @torch.no_grad()
    def constant(given: torch.Tensor) -> torch.Tensor:
        return frozen(given)

    def train() -> list[float]:
        losses, given, before = [], inputs, constant
        if keeps_features:
            given = torch.cat([constant(part) for part in inputs.split(EVALUATED_TOGETHER)])
            before = nn.Identity()
        for _ in range(job.epochs):
            total = torch.zeros((), device=targets.device)
            for chosen in torch.randperm(len(targets), device=targets.device).split(job.batch_size):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(rest(before(given[chosen])), targets[chosen])
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(chosen)  # a number would have to be waited for
            losses.append(total.item() / job.images)
        return losses

    return train
