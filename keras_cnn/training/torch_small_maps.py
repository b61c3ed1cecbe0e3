"""Convolutions of maps of a few pixels, as the matrix products they are.

A 7x7 kernel over 2x2 pixels touches padding with 33 of its 49 weights, and a library made for large
maps spends its time on them. Here each pair of an input and an output pixel has the weight that
joins them, and nothing else is computed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn import functional

FEWEST_FOR_PRODUCTS = 5  # pixels: below, a depthwise convolution is faster as a sum
MOST_PIXELS_DEPTHWISE = 64
MOST_PIXELS = 4  # of a full convolution: above, it wastes less than the joined kernel costs


def depthwise(height: int, width: int, kernel_size: tuple[int, int]) -> Callable:
    """A depthwise convolution of stride 1 that keeps the size, padding with zeros.

    Args:
        height: Height of the maps, in pixels.
        width: Likewise.
        kernel_size: Height and width of the kernel, odd.

    Returns:
        Takes maps (n, h, w, c) and a kernel (k, k, c, 1), gives maps (n, h, w, c).
    """
    pixels = height * width
    taps, apart = _taps(height, width, kernel_size)

    def as_products(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        weights = _joining(kernel, taps, apart)
        each_channel = x.flatten(1, 2).permute(2, 0, 1)  # (n, h, w, c) -> (c, n, h * w)
        y = torch.bmm(each_channel, weights.permute(2, 0, 1))  # (c, n, out)
        return y.permute(1, 2, 0).reshape(x.shape)

    def as_sum(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        weights = _joining(kernel, taps, apart)
        # (n, h, w, c) -> (n, in, 1, c), times (in, out, c), summed over in
        return (x.flatten(1, 2).unsqueeze(2) * weights).sum(1).reshape(x.shape)

    return as_sum if pixels < FEWEST_FOR_PRODUCTS else as_products


def full(height: int, width: int, kernel_size: tuple[int, int]) -> Callable:
    """A convolution of stride 1 over all channels that keeps the size, padding with zeros.

    Args:
        height: Height of the maps, in pixels.
        width: Likewise.
        kernel_size: Height and width of the kernel, odd.

    Returns:
        Takes maps (n, h, w, c) and a kernel (k, k, c, d), gives maps (n, h, w, d).
    """
    pixels = height * width
    taps, apart = _taps(height, width, kernel_size)

    def call(x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        channels, filters = kernel.shape[2:]
        # In the order in which kernels lie in memory here, so that their gradients do too.
        stored = kernel.permute(3, 0, 1, 2).flatten(1, 2)  # (k, k, c, d) -> (d, k * k, c)
        joined = _with_none(stored, apart)[:, taps]  # (d, in, out, c)
        weights = joined.permute(2, 0, 1, 3).reshape(pixels * filters, pixels * channels)
        y = functional.linear(x.reshape(len(x), pixels * channels), weights)  # (n, out * d)
        return y.view(len(x), height, width, filters)

    return call


def _taps(height: int, width: int, kernel_size: tuple[int, int]) -> tuple[torch.Tensor, bool]:
    """Which weight joins two pixels: (in, out), one beyond the last where none does; if any so."""
    rows, columns = torch.arange(height), torch.arange(width)
    down = rows[:, None] - rows + kernel_size[0] // 2  # (in, out)
    across = columns[:, None] - columns + kernel_size[1] // 2
    down, across = down[:, None, :, None], across[None, :, None, :]
    taps = down * kernel_size[1] + across  # (in rows, in columns, out rows, out columns)
    inside = (down >= 0) & (down < kernel_size[0]) & (across >= 0) & (across < kernel_size[1])
    none = kernel_size[0] * kernel_size[1]
    taps = torch.where(inside, taps, none).reshape(height * width, height * width)
    return taps, not bool(inside.all())


def _joining(kernel: torch.Tensor, taps: torch.Tensor, apart: bool) -> torch.Tensor:
    """A depthwise kernel's weights spread over pairs of pixels: (k, k, c, 1) -> (in, out, c)."""
    weights = kernel.flatten(0, 1).squeeze(-1)  # (k, k, c, 1) -> (k * k, c)
    return _with_none(weights, apart)[taps]


def _with_none(weights: torch.Tensor, apart: bool) -> torch.Tensor:
    """Weights (…, k * k, c), and zeros after the last where pixels lie too far apart for any."""
    return functional.pad(weights, (0, 0, 0, 1)) if apart else weights
