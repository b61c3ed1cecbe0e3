"""A weight as it lies in a file of any kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Stored(NamedTuple):
    """A weight whose values are not read before its shape is known to fit.

    Attributes:
        name: What the file calls it.
        shape: In Keras's layout.
        read: Gives the values, in Keras's layout.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


Weights = dict[tuple[str, int], Stored]  # by the layer's name and the place among its weights
