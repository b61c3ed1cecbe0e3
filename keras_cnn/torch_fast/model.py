"""Keras's `fit` and `evaluate` on torch with lean steps: metrics are read once an epoch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import keras
import torch
from torch import Tensor
from torch.nn import functional

from keras_cnn.torch_fast import graph
from keras_cnn.torch_fast.graph import TorchGraph

MOST_PENDING_BATCHES = 64  # bounds the logits kept: 64 batches of 64 x 1,000 are 16 MB


class FastSteps:
    """Stands before Keras's functional model among a class's bases, and makes its steps fast.

    The graph runs as a `TorchGraph`, and metrics are computed from many batches at a time, so the
    logs of a batch are empty. Everything else (variables, callbacks, history, evaluation,
    mathematics) is Keras's. Batches with sample weights take Keras's own step.

    Attributes:
        torch_graph: The model's graph.
        mixed_precision: Whether training steps multiply in bfloat16.
    """

    torch_graph: TorchGraph
    mixed_precision = False
    _pending: _PendingBatches | None = None

    def call(self, inputs: Tensor, training: bool | None = None, mask: object = None) -> Tensor:
        """Runs the graph, (n, …) to (n, …)."""
        # Keras also calls a model to learn its shapes, on symbols or on tensors without values.
        if not isinstance(inputs, Tensor):
            return super().call(inputs, training=training, mask=mask)
        if inputs.is_meta and None not in self.output_shape[1:]:  # known without a layer's call
            return inputs.new_empty((len(inputs), *self.output_shape[1:]), dtype=torch.float32)
        if inputs.is_meta:
            return super().call(inputs, training=training, mask=mask)
        return self.torch_graph(inputs, bool(training))

    def make_train_function(self, force: bool = False) -> None:
        """Makes the training step."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        if self.jit_compile:
            return
        self._pending = _PendingBatches()
        weights = self.trainable_weights
        graph.store_kernels_channels_last(self.variables)
        graph.store_kernels_channels_last(self.optimizer.variables)
        keras_step = self.train_function
        loss_of = self._plain_cross_entropy() or functools.partial(self.compute_loss, training=True)

        def step(data: list) -> dict:
            batch = data[0]
            if len(batch) != 2 or not weights:
                return keras_step(data)
            images, labels = map(keras.ops.convert_to_tensor, batch)  # a loader's are on the CPU
            # Not by `__call__`, whose checks and conversions take longer than some layers.
            with torch.autocast(images.device.type, torch.bfloat16, enabled=self.mixed_precision):
                logits = self.call(images, training=True).float()
            loss = loss_of(images, labels, logits)
            scaled = self.optimizer.scale_loss(loss)
            gradients = torch.autograd.grad(
                scaled, [weight.value for weight in weights], allow_unused=True
            )
            with torch.no_grad(), _counted_in_place(self.optimizer):
                self.optimizer.apply(gradients, weights)
            self._add_pending(labels, logits.detach(), loss.detach())
            return {}

        self.train_function = step

    def make_test_function(self, force: bool = False) -> None:
        """Makes the evaluation step."""
        if self.test_function is not None and not force:
            return
        super().make_test_function(force)
        if self.jit_compile:
            return
        self._pending = self._pending or _PendingBatches()
        keras_step = self.test_function

        def step(data: list) -> dict:
            batch = data[0]
            if len(batch) != 2:
                return keras_step(data)
            images, labels = map(keras.ops.convert_to_tensor, batch)
            with torch.inference_mode():
                logits = self.call(images, training=False)
                loss = self.compute_loss(images, labels, logits, training=False)
            self._add_pending(labels, logits, loss)
            return {}

        self.test_function = step

    def reset_metrics(self) -> None:
        """Forgets all batches."""
        if self._pending is not None:
            self._pending = _PendingBatches()
        super().reset_metrics()

    def get_metrics_result(self) -> dict:
        """The metrics over all batches since they were reset."""
        self._update_metrics()
        return super().get_metrics_result()

    def _get_metrics_result_or_logs(self, logs: dict) -> dict:
        # `fit` and `evaluate` ask here for an epoch's logs; a lean step has given none.
        return super()._get_metrics_result_or_logs(logs) if logs else self.get_metrics_result()

    def _add_pending(self, labels: Tensor, logits: Tensor, loss: Tensor) -> None:
        pending = self._pending
        pending.labels.append(labels)
        pending.logits.append(logits)
        pending.losses.append(loss)
        if len(pending.losses) == MOST_PENDING_BATCHES:
            self._update_metrics()

    def _update_metrics(self) -> None:
        """Computes the metrics from the pending batches, and forgets these."""
        pending = self._pending
        if pending is None or not pending.losses:
            return
        self._pending = _PendingBatches()
        with torch.no_grad():
            losses = torch.stack(pending.losses)
            sizes = [len(labels) for labels in pending.labels]
            self._loss_tracker.update_state(losses, sample_weight=losses.new_tensor(sizes))
            batches = zip(pending.labels, pending.logits, strict=True)
            if self._metrics_are_means_over_images():
                # A mean over images is the same however they are cut into batches.
                batches = [(torch.cat(pending.labels), torch.cat(pending.logits))]
            for labels, logits in batches:
                self.compute_metrics(None, labels, logits)

    def _metrics_are_means_over_images(self) -> bool:
        return all(
            isinstance(metric, keras.metrics.MeanMetricWrapper)
            for group in self.metrics
            if group is not self._loss_tracker
            for metric in getattr(group, "metrics", [group])  # those given to `compile`
        )

    def _plain_cross_entropy(self) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
        """The compiled loss as one torch call on images, labels and logits, if it is that plain."""
        loss, losses = self.loss, keras.losses
        plain = (
            type(loss) is losses.SparseCategoricalCrossentropy and loss.ignore_class is None
        ) or (type(loss) is losses.CategoricalCrossentropy and loss.label_smoothing == 0)
        if not plain or not loss.from_logits or loss.reduction != "sum_over_batch_size":
            return None
        if self.losses:  # penalties
            return None
        return lambda images, labels, logits: functional.cross_entropy(logits, labels)


@dataclass
class _PendingBatches:
    """Batches that the metrics have yet to be computed from: tensors, in the order of steps."""

    labels: list[Tensor] = field(default_factory=list)  # (batch,) or (batch, classes)
    logits: list[Tensor] = field(default_factory=list)  # (batch, classes)
    losses: list[Tensor] = field(default_factory=list)  # ()


@contextlib.contextmanager
def _counted_in_place(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """While it lasts the optimizer's steps are counted where the count lies."""
    # Keras makes a tensor of the 1 to be added, and to bring that to a GPU means to wait for it.
    counter = optimizer._iterations
    counter.assign_add = lambda value: counter.value.add_(value)
    try:
        yield
    finally:
        del counter.assign_add
