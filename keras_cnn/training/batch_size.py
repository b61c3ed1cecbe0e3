"""How many images go through a network at a time where that changes no result."""

from __future__ import annotations

import math
from collections.abc import Sequence

MOST = 256
MOST_PIXELS = 1 << 20  # in all, so that layers of 100 channels take less than a gigabyte


def of(shape: Sequence[int]) -> int:
    """Images or feature maps (n, h, w, c) of a shape at a time; of features (n, c) 256."""
    return max(1, min(MOST, MOST_PIXELS // math.prod(shape[1:-1])))
