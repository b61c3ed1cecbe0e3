"""Gradients on every backend, also through gradients: what `fit` does not offer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

Tensor: TypeAlias = Any  # the backend's: torch.Tensor, tensorflow.Tensor, jax.Array


def value_and_gradients(
    function: Callable[[list[Tensor]], tuple[Tensor, object]],
    weights: Sequence[Tensor],
    differentiable: bool = False,
) -> tuple[Tensor, object, list[Tensor]]:
    """What a function gives for weights, and its gradients.

    Args:
        function: Takes a list of tensors like `weights`; gives a scalar, and whatever else it
            found on the way. It calls Keras or the backend, never NumPy.
        weights: Tensors of floats.
        differentiable: The gradients can be differentiated again; otherwise they are constants.

    Returns:
        The scalar, what else was found, and one gradient for each of `weights`, zero where the
        scalar does not depend on it.
    """
    backends = {"torch": _by_torch, "tensorflow": _by_tensorflow, "jax": _by_jax}
    return backends[keras.backend.backend()](function, list(weights), differentiable)


def compiled(function: Callable) -> Callable:
    """The same function of tensors and lists of tensors, traced where the backend gains by it.

    torch runs it as it is. Each new shape is traced anew.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.function(function)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def tensors(variables: Iterable) -> list:
    """The values of variables, or of arrays, as tensors that take no gradient back to them."""
    return [keras.ops.stop_gradient(keras.ops.convert_to_tensor(value)) for value in variables]


def arrays(variables: Iterable) -> list[np.ndarray]:
    """Copies of the values of variables."""
    return [np.array(keras.ops.convert_to_numpy(value)) for value in variables]


def distance(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
    """How far weights have moved: the L2 norm over all of them."""
    pairs = zip(before, after, strict=True)
    return math.sqrt(sum(np.square(new - old).sum() for old, new in pairs))


def _by_torch(function: Callable, weights: list, differentiable: bool) -> tuple:
    import torch

    if differentiable and all(weight.requires_grad for weight in weights):
        # Of a weight that was made of another one, the gradient by the other leaves this one out.
        weights = [weight.view_as(weight) for weight in weights]
    else:
        # The graph ends at leaves of its own, and is freed once the gradients are found.
        weights = [weight.detach().requires_grad_() for weight in weights]
    value, rest = function(weights)
    gradients = torch.autograd.grad(
        value, weights, create_graph=differentiable, allow_unused=True, materialize_grads=True
    )
    return (value if differentiable else value.detach()), rest, list(gradients)


def _by_tensorflow(function: Callable, weights: list, differentiable: bool) -> tuple:
    import tensorflow

    with tensorflow.GradientTape() as tape:
        tape.watch(weights)
        value, rest = function(weights)
    gradients = tape.gradient(
        value, weights, unconnected_gradients=tensorflow.UnconnectedGradients.ZERO
    )
    return value, rest, gradients if differentiable else tensors(gradients)


def _by_jax(function: Callable, weights: list, differentiable: bool) -> tuple:
    import jax

    (value, rest), gradients = jax.value_and_grad(function, has_aux=True)(weights)
    return value, rest, gradients if differentiable else tensors(gradients)
