"""Convolutions of maps of a few pixels, as the matrix products they are.

A 7x7 kernel over 2x2 pixels touches padding with 33 of its 49 weights, and a library made for large
maps spends its time on them. Here each pair of an input and an output pixel has the weight (the
*tap*) of the kernel that joins them, and nothing else is computed. Along one axis of 2 pixels, a
kernel of taps 0, 1, 2 joins

    input pixel 0 -> output pixel 0 by tap 1     input pixel 1 -> output pixel 0 by tap 2
    input pixel 0 -> output pixel 1 by tap 0     input pixel 1 -> output pixel 1 by tap 1

Which tap that is depends on the sizes alone and is found once (`_tap_indices`); in each step the
kernel's weights are picked by these indices into a matrix of input by output pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

FEWEST_FOR_PRODUCTS = 5  # pixels: below, a depthwise convolution is faster as a sum
MOST_PIXELS_DEPTHWISE = 64
MOST_PIXELS_A_TAP = 1.5  # of a depthwise convolution: above, most pairs of pixels have no tap
MOST_PIXELS_PATCHES = 64
MOST_PIXELS = 4  # of a full convolution: above, it wastes less than the pairwise weights cost

Convolution = Callable[[Tensor, Tensor], Tensor]


def depthwise(height: int, width: int, kernel_size: tuple[int, int]) -> Convolution:
    """A depthwise convolution of stride 1 that keeps the size, padding with zeros.

    Args:
        height: Height of the maps, in pixels.
        width: Likewise.
        kernel_size: Height and width of the kernel, odd.

    Returns:
        Takes maps (n, h, w, c) and a kernel (k, k, c, 1), gives maps (n, h, w, c).
    """
    pixels = height * width
    taps, any_missing = _tap_indices(height, width, kernel_size)

    def pairwise_weights(kernel: Tensor) -> Tensor:
        weights = kernel.flatten(0, 1).squeeze(-1)  # (k, k, c, 1) -> (k * k, c)
        return _with_zero_tap(weights, any_missing)[taps]  # (in, out, c)

    def as_products(x: Tensor, kernel: Tensor) -> Tensor:
        each_channel = x.flatten(1, 2).permute(2, 0, 1)  # (n, h, w, c) -> (c, n, in)
        y = torch.bmm(each_channel, pairwise_weights(kernel).permute(2, 0, 1))  # (c, n, out)
        return y.permute(1, 2, 0).reshape(x.shape)

    def as_sum(x: Tensor, kernel: Tensor) -> Tensor:
        # (n, h, w, c) -> (n, in, 1, c), times (in, out, c), summed over in
        return (x.flatten(1, 2).unsqueeze(2) * pairwise_weights(kernel)).sum(1).reshape(x.shape)

    return as_sum if pixels < FEWEST_FOR_PRODUCTS else as_products


def full(height: int, width: int, kernel_size: tuple[int, int]) -> Convolution:
    """A convolution of stride 1 over all channels that keeps the size, padding with zeros.

    Args:
        height: Height of the maps, in pixels.
        width: Likewise.
        kernel_size: Height and width of the kernel, odd.

    Returns:
        Takes maps (n, h, w, c) and a kernel (k, k, c, d), gives maps (n, h, w, d).
    """
    pixels = height * width
    taps, any_missing = _tap_indices(height, width, kernel_size)

    def convolution(x: Tensor, kernel: Tensor) -> Tensor:
        channels, filters = kernel.shape[2:]
        # In the order in which kernels lie in memory here, so that their gradients do too.
        stored = kernel.permute(3, 0, 1, 2).flatten(1, 2)  # (k, k, c, d) -> (d, k * k, c)
        pairwise = _with_zero_tap(stored, any_missing)[:, taps]  # (d, in, out, c)
        # One matrix for all pixels and channels: (d, in, out, c) -> (out * d, in * c)
        weights = pairwise.permute(2, 0, 1, 3).reshape(pixels * filters, pixels * channels)
        y = functional.linear(x.reshape(len(x), pixels * channels), weights)  # (n, out * d)
        return y.view(len(x), height, width, filters)

    return convolution


def patches(height: int, width: int, kernel_size: tuple[int, int]) -> Convolution:
    """A convolution over all channels whose stride is its kernel's size, without padding.

    Args:
        height: Height of the maps, in pixels.
        width: Likewise.
        kernel_size: Height and width of the kernel; what is left of a map beyond the last whole
            patch is not seen.

    Returns:
        Takes maps (n, h, w, c) and a kernel (k, m, c, d), gives maps (n, h // k, w // m, d).
    """
    (k, m), rows, columns = kernel_size, height // kernel_size[0], width // kernel_size[1]

    def convolution(x: Tensor, kernel: Tensor) -> Tensor:
        channels, filters = kernel.shape[2:]
        whole = x[:, : rows * k, : columns * m].reshape(-1, rows, k, columns, m, channels)
        # One row of numbers for each patch: (n, rows, k, columns, m, c) -> (n * …, k * m * c)
        each = whole.transpose(2, 3).reshape(-1, k * m * channels)
        # In the order in which kernels lie in memory here: (k, m, c, d) -> (d, k * m * c)
        weights = kernel.permute(3, 0, 1, 2).reshape(filters, k * m * channels)
        return functional.linear(each, weights).view(-1, rows, columns, filters)

    return convolution


def _tap_indices(height: int, width: int, kernel_size: tuple[int, int]) -> tuple[Tensor, bool]:
    """Which tap joins two pixels, (in, out), k * k where none does; and whether any is so."""
    # On the processor, where alone these convolutions are used.
    rows, columns = (torch.arange(size, device="cpu") for size in (height, width))
    # A tap's row is how far the input lies below the output, counted from the kernel's middle.
    tap_rows = rows[:, None] - rows + kernel_size[0] // 2  # (in rows, out rows)
    tap_columns = columns[:, None] - columns + kernel_size[1] // 2
    # Each pair of rows with each pair of columns: (in rows, in columns, out rows, out columns)
    tap_rows, tap_columns = tap_rows[:, None, :, None], tap_columns[None, :, None, :]
    indices = tap_rows * kernel_size[1] + tap_columns
    exists = (tap_rows >= 0) & (tap_rows < kernel_size[0])
    exists = exists & (tap_columns >= 0) & (tap_columns < kernel_size[1])
    indices = torch.where(exists, indices, kernel_size[0] * kernel_size[1])
    return indices.reshape(height * width, height * width), not bool(exists.all())


def _with_zero_tap(weights: Tensor, any_missing: bool) -> Tensor:
    """Weights (…, k * k, c), and zeros after the last for pixels that no tap joins."""
    return functional.pad(weights, (0, 0, 0, 1)) if any_missing else weights
