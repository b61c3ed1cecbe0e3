"""Keras `fit` without its waste on torch: plain torch calls, metrics read once an epoch."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator

import keras

UNREAD_BATCHES = 64  # bounds the logits kept: 64 batches of 64 x 1,000 are 16 MB


class TrainedModel(keras.Model):
    """A functional model that `fit` trains on torch as fast as a loop in plain torch would.

    On torch its graph runs as `graph.TorchGraph`, and metrics are computed from many
    batches at a time, so the logs of a batch are empty: a callback that wants them in mid-epoch
    asks `get_metrics_result`. Everything else (variables, callbacks, history, evaluation,
    mathematics) is that of `keras.Model`; on other backends all of it is.

    It has one input and one output. Sample weights take the way of `keras.Model`.

    Attributes:
        inference_mode: Whether dropout stays off and BatchNorm stays on its statistics also in
            training steps. A traced training step must be made anew after it changes.
        mixed_precision: Whether training steps on torch multiply in bfloat16; weights, sums, norms
            and all of evaluation stay float32.
    """

    inference_mode = False
    mixed_precision = False
    _graph = None
    _unread = None

    def call(self, inputs: object, training: bool | None = None, mask: object = None) -> object:
        """Runs the graph; `training` reaches it only while the model is not held."""
        training = False if self.inference_mode else training
        if not _is_real_torch(inputs):
            return super().call(inputs, training=training, mask=mask)
        if self._graph is None:
            from keras_cnn.torch_fast import graph

            self._graph = graph.TorchGraph(self)
        return self._graph(inputs, bool(training))

    def make_train_function(self, force: bool = False) -> None:
        """Makes the training step; on torch the lean one."""
        if self.train_function is not None and not force:
            return
        super().make_train_function(force)
        if not _on_torch() or self.jit_compile:
            return
        import torch

        from keras_cnn.torch_fast import graph

        self._unread = _Unread()
        weights = self.trainable_weights
        graph.store_kernels_channels_last(self.variables)
        graph.store_kernels_channels_last(self.optimizer.variables)
        whole_step = self.train_function
        loss_of = self._plain_cross_entropy() or functools.partial(self.compute_loss, training=True)

        def step(data: list) -> dict:
            batch = data[0]
            if len(batch) != 2 or not weights:
                return whole_step(data)
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
            self._note(labels, logits.detach(), loss.detach())
            return {}

        self.train_function = step

    def make_test_function(self, force: bool = False) -> None:
        """Makes the evaluation step; on torch the lean one."""
        if self.test_function is not None and not force:
            return
        super().make_test_function(force)
        if not _on_torch() or self.jit_compile:
            return
        import torch

        self._unread = self._unread or _Unread()
        whole_step = self.test_function

        def step(data: list) -> dict:
            batch = data[0]
            if len(batch) != 2:
                return whole_step(data)
            images, labels = map(keras.ops.convert_to_tensor, batch)
            with torch.inference_mode():
                logits = self.call(images, training=False)
                loss = self.compute_loss(images, labels, logits, training=False)
            self._note(labels, logits, loss)
            return {}

        self.test_function = step

    def _plain_cross_entropy(self) -> Callable | None:
        """The compiled loss as one torch call, where it is a usual one."""
        loss = self.loss
        if type(loss) is keras.losses.SparseCategoricalCrossentropy:
            usual = loss.ignore_class is None
        elif type(loss) is keras.losses.CategoricalCrossentropy:
            usual = loss.label_smoothing == 0
        else:
            return None
        if not usual or not loss.from_logits or loss.reduction != "sum_over_batch_size":
            return None
        if self.losses:  # penalties
            return None
        from torch.nn import functional

        return lambda images, labels, logits: functional.cross_entropy(logits, labels)

    def reset_metrics(self) -> None:
        """Forgets all batches."""
        if self._unread is not None:
            self._unread = _Unread()
        super().reset_metrics()

    def get_metrics_result(self) -> dict:
        """The metrics over all batches since they were reset."""
        self._read()
        return super().get_metrics_result()

    def _get_metrics_result_or_logs(self, logs: dict) -> dict:
        # `fit` and `evaluate` ask here for an epoch's logs; a lean step has given none.
        return super()._get_metrics_result_or_logs(logs) if logs else self.get_metrics_result()

    def _note(self, labels: object, logits: object, loss: object) -> None:
        unread = self._unread
        unread.labels.append(labels)
        unread.logits.append(logits)
        unread.losses.append(loss)
        if len(unread.losses) == UNREAD_BATCHES:
            self._read()

    def _read(self) -> None:
        """Brings the metrics up to date."""
        unread = self._unread
        if unread is None or not unread.losses:
            return
        import torch

        self._unread = _Unread()
        with torch.no_grad():
            losses = torch.stack(unread.losses)
            sizes = [len(labels) for labels in unread.labels]
            self._loss_tracker.update_state(losses, sample_weight=losses.new_tensor(sizes))
            if self._metrics_are_means_over_images():
                # A mean over images is the same however they are cut into batches.
                unread.labels, unread.logits = (
                    [torch.cat(unread.labels)],
                    [torch.cat(unread.logits)],
                )
            for labels, logits in zip(unread.labels, unread.logits, strict=True):
                self.compute_metrics(None, labels, logits)

    def _metrics_are_means_over_images(self) -> bool:
        return all(
            isinstance(metric, keras.metrics.MeanMetricWrapper)
            for group in self.metrics
            if group is not self._loss_tracker
            for metric in getattr(group, "metrics", [group])  # those given to `compile`
        )


class _Unread:
    """Batches that the metrics have yet to be computed from."""

    def __init__(self) -> None:
        self.labels: list = []
        self.logits: list = []
        self.losses: list = []


@contextlib.contextmanager
def _counted_in_place(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """While it lasts the optimizer's steps are counted where the count lies.

    Keras makes a tensor of the 1 to be added, and to bring that to a GPU means to wait for it.
    """
    counter = optimizer._iterations
    counter.assign_add = lambda value: counter.value.add_(value)
    try:
        yield
    finally:
        del counter.assign_add


def _on_torch() -> bool:
    return keras.backend.backend() == "torch"


def _is_real_torch(inputs: object) -> bool:
    """Whether inputs are a torch tensor with values, and not one that stands for a shape."""
    if not _on_torch():
        return False
    import torch

    return isinstance(inputs, torch.Tensor) and not inputs.is_meta
