"""Adam, SGD and AdamW as torch has them: L2 in the gradient, momentum apart from the rate."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_cnn import torch_fast

VERSION = 1  # raised when an optimizer of the same settings updates weights otherwise


def build(
    name: str, learning_rate: float, momentum: float = 0.0, l2: float = 0.0
) -> keras.optimizers.Optimizer:
    """An optimizer that updates as torch's of the same name.

    torch's `weight_decay` adds `l2 * weight` to the gradient of every trained weight. Keras's
    `weight_decay` is the decoupled one (Loshchilov and Hutter 2019, arXiv:1711.05101): another
    update under Adam.

    Adam adds epsilon before the bias correction of the second moment where torch adds it after:
    while gradients are far above 1e-7 the two agree.

    Args:
        name: `adam` (Kingma and Ba 2015, arXiv:1412.6980; epsilon 1e-8) or `sgd`.
        learning_rate: At the first epoch.
        momentum: Of `sgd`, in [0, 1).
        l2: torch's `weight_decay`.
    """
    if name == "sgd":
        return _coupled_l2(SGD, l2)(learning_rate=learning_rate, momentum=momentum)
    adam = torch_fast.fused(keras.optimizers.Adam)
    return _coupled_l2(adam, l2)(learning_rate=learning_rate, epsilon=1e-8)


def averaged_adamw(
    learning_rate: keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float,
    average_decay: float,
) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) with a moving average of the weights.

    Args:
        learning_rate: By step.
        weight_decay: Decoupled; a step takes `learning_rate * weight_decay` of each weight.
        average_decay: Share of the average that a step keeps.
    """
    return torch_fast.fused(keras.optimizers.AdamW)(
        learning_rate, weight_decay=weight_decay, use_ema=True, ema_momentum=average_decay
    )


class SGD(keras.optimizers.Optimizer):
    """torch.optim.SGD: `buffer = momentum * buffer + gradient`, `weight -= rate * buffer`.

    Keras's SGD keeps the rate inside its velocity; under a schedule the two differ.

    Args:
        learning_rate: At the first epoch.
        momentum: In [0, 1).
    """

    def __init__(self, learning_rate: float, momentum: float = 0.0) -> None:
        super().__init__(learning_rate=learning_rate, name="sgd")
        self.momentum = momentum

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes one buffer a variable."""
        if not self.built:
            super().build(variables)
            self.buffers = self.add_optimizer_variables(variables, "buffer")

    def update_step(
        self, gradient: object, variable: keras.Variable, learning_rate: object
    ) -> None:
        """Updates one variable."""
        buffer = self.buffers[self._get_variable_index(variable)]
        # As a tensor: beside a variable Keras makes one of the number, and a GPU waits for it.
        self.assign(buffer, self.momentum * keras.ops.convert_to_tensor(buffer) + gradient)
        self.assign_sub(variable, learning_rate * buffer)


def _coupled_l2(base: type[keras.optimizers.Optimizer], l2: float) -> type:
    if not l2:
        return base

    class CoupledL2(base):
        def apply(self, grads: Sequence, trainable_variables: Sequence | None = None) -> object:
            variables = trainable_variables or self._trainable_variables
            penalised = [
                gradient + l2 * keras.ops.convert_to_tensor(variable)
                for gradient, variable in zip(grads, variables, strict=True)
            ]
            return super().apply(penalised, trainable_variables)

    return CoupledL2
