"""A seed for each layer, from the model's: the same whatever else the model holds."""

from __future__ import annotations

import zlib


def layer_seed(seed: int, layer_name: str) -> int:
    """A layer's own seed, from 0 to 2**31 - 1."""
    return zlib.crc32(f"{seed} {layer_name}".encode()) >> 1
