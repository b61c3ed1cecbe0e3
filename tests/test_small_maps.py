"""Convolutions of small maps against torch's convolution in double precision."""

from __future__ import annotations

import itertools

import keras
import pytest

torch = pytest.importorskip("torch")
if keras.backend.backend() != "torch":
    pytest.skip("torch calls, for the torch backend", allow_module_level=True)

from keras_cnn.torch_fast import small_maps  # noqa: E402

MAPS = [(1, 1), (2, 2), (1, 3), (4, 4), (8, 8), (5, 3)]
KERNELS = [(3, 3), (7, 7), (1, 3), (5, 3)]


def outcome(convolution, *tensors):
    """Outputs, and the gradients of a random weighting of them."""
    tensors = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    y = convolution(*tensors)
    weighting = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, tensors, weighting)]


def torchs(groups):
    def convolution(x, kernel):
        # (h, w, in, out) or (h, w, in, 1) -> (out, in / groups, h, w)
        kernel = kernel.permute((2, 3, 0, 1) if groups > 1 else (3, 2, 0, 1))
        y = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), kernel, padding="same", groups=groups)
        return y.permute(0, 2, 3, 1)

    return convolution


@pytest.mark.parametrize("maps", [(8, 8), (4, 4), (2, 2), (5, 7)])
@pytest.mark.parametrize("kernel_size", [(2, 2), (1, 2), (2, 1)])
def test_patches_equal_torchs_strided_convolution(maps, kernel_size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *maps, 5, generator=generator).double()
    kernel = torch.randn(*kernel_size, 5, 4, generator=generator).double()

    def strided(x, kernel):
        x, kernel = x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
        return torch.nn.functional.conv2d(x, kernel, stride=kernel_size).permute(0, 2, 3, 1)

    found = outcome(small_maps.patches(*maps, kernel_size), x, kernel)
    for ours, theirs in zip(found, outcome(strided, x, kernel), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("maps", "kernel_size"), [*itertools.product(MAPS, KERNELS)])
@pytest.mark.parametrize(
    ("convolution", "filters", "groups"), [(small_maps.depthwise, 1, 5), (small_maps.full, 4, 1)]
)
def test_small_maps_equal_torchs_convolution(convolution, filters, groups, maps, kernel_size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *maps, 5, generator=generator).double()
    kernel = torch.randn(*kernel_size, 5, filters, generator=generator).double()
    found = outcome(convolution(*maps, kernel_size), x, kernel)
    for ours, theirs in zip(found, outcome(torchs(groups), x, kernel), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
