"""Keras's Adam on torch in one pass over memory: torch's fused kernel, and the average likewise.

Keras goes over all weights once for each operation of the update, which takes longer than the
gradients where batches are small and weights many.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import torch
from torch import Tensor

FUSED_ON = ("cpu", "cuda")
READS_RATE_ON = ("cpu",)  # elsewhere a number would have to be waited for


def fused(base: type[keras.optimizers.Adam]) -> type[keras.optimizers.Adam]:
    """An optimizer that updates as its base does, faster.

    Args:
        base: Keras's Adam or AdamW, as it is on torch.

    Returns:
        A subclass; its state is that of the base.
    """
    return type("Fused", (FusedSteps, base), {})


class FusedSteps:
    """Goes before Keras's Adam or AdamW, whose state and mathematics it has."""

    # The version of the tensor that holds `iterations`, and the number it held then. Each
    # change in place raises a tensor's version, so the number holds while the version does.
    _counted: tuple[int, int] | None = None

    def apply(self, grads: Sequence[Tensor], trainable_variables: Sequence | None = None) -> None:
        """Updates the variables, and counts the step without asking the device for the count."""
        done = self._steps_done()
        self._counted = (self._iterations.value._version, done)
        super().apply(grads, trainable_variables)
        self._counted = (self._iterations.value._version, done + 1)

    def _steps_done(self) -> int:
        """What the variable `iterations` holds: to ask a GPU for it means to wait for it.

        It is asked only where something but `apply` has changed the variable since.
        """
        version, done = self._counted or (None, 0)
        counter = self._iterations.value
        return done if version == counter._version else int(counter)

    def _updates_done(self) -> int:
        return self._steps_done() // (self.gradient_accumulation_steps or 1)

    def _parallel_update_step(
        self,
        grads: Sequence[Tensor],
        variables: Sequence[keras.Variable],
        learning_rate: Tensor,
    ) -> None:
        weights = [variable.value for variable in variables]
        fits = weights[0].device.type in FUSED_ON and not any(map(_has_gaps, weights))
        if self.amsgrad or not fits:
            super()._parallel_update_step(grads, variables, learning_rate)
            return
        indices = [self._get_variable_index(variable) for variable in variables]
        step = self._updates_done() + 1
        device = weights[0].device
        counter = torch.full((), float(step), device=device)  # it is only read
        rate = keras.ops.convert_to_tensor(learning_rate)
        updated = (
            weights,
            [_strided_as(weight, grad) for weight, grad in zip(weights, grads, strict=True)],
            _moments_strided_as(weights, [self._momentums[index] for index in indices]),
            _moments_strided_as(weights, [self._velocities[index] for index in indices]),
        )
        torch._fused_adam_(
            *([_along_memory(tensor) for tensor in tensors] for tensors in updated),
            [],  # the largest second moments: amsgrad's
            [counter] * len(weights),
            lr=float(rate) if device.type in READS_RATE_ON else rate,
            beta1=self.beta_1,
            beta2=self.beta_2,
            weight_decay=0.0,  # Keras has applied its own before
            # Keras adds epsilon before the bias correction of the second moment, torch after.
            eps=self.epsilon / (1 - self.beta_2**step) ** 0.5,
            amsgrad=False,
            maximize=False,
        )

    def _update_model_variables_moving_average(
        self, trainable_variables: Sequence[keras.Variable]
    ) -> None:
        if not self.use_ema:
            return
        averages = self._model_variables_moving_average
        pairs = [
            (average.value, variable.value)
            for variable, average in zip(trainable_variables, averages, strict=True)
            if average is not None
        ]
        new = 1.0 if self._updates_done() == 0 else 1 - self.ema_momentum
        with torch.no_grad():
            torch._foreach_lerp_(*map(list, zip(*pairs, strict=True)), new)


def _strided_as(weight: Tensor, tensor: Tensor) -> Tensor:
    """A tensor in the memory order of a weight: the fused kernel runs along memory."""
    if tensor.stride() == weight.stride():
        return tensor
    return torch.empty_strided(
        weight.shape, weight.stride(), dtype=weight.dtype, device=weight.device
    ).copy_(tensor)


def _has_gaps(tensor: Tensor) -> bool:
    """Whether there are other numbers between its first and last one in memory."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return not tensor.is_contiguous() and 1 + sum((n - 1) * s for n, s in steps) != tensor.numel()


def _along_memory(tensor: Tensor) -> Tensor:
    """A tensor's numbers in one row, as they lie in memory, without gaps.

    The kernel copies what is not contiguous, as kernels of convolutions are not here: a quarter of
    a step of ResNet-18's last stages.
    """
    return tensor if tensor.is_contiguous() else tensor.as_strided((tensor.numel(),), (1,))


def _moments_strided_as(
    weights: Sequence[Tensor], moments: Sequence[keras.Variable]
) -> list[Tensor]:
    """The tensors of an optimizer's variables, which are laid out anew once, in place."""
    for weight, moment in zip(weights, moments, strict=True):
        moment.value.data = _strided_as(weight, moment.value.data)
    return [moment.value for moment in moments]
