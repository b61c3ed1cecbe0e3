"""Features of a frozen network, computed once and kept on disk for every run that shares them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import keras
import numpy as np

from keras_cnn import environment, files, torch_fast
from keras_cnn.home import scratch
from keras_cnn.timing import timed

MOST_BYTES = 2_000_000_000
PROBES = 8  # images a model is tried on


def features(
    model: keras.Model, images: np.ndarray, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """What a frozen model gives for images: read where a run has computed it before.

    Rows, repeats and later commands that share the frozen weights and the images share the
    features. They are found by content: of images, weights and layers, what the model makes of a
    few images, versions of the software, and the number of threads, since all of these may change
    the last bits. The oldest files go where all of them would take over 2 GB; one that has changed
    since it was written is written anew.

    Args:
        model: Functional; none of its weights changes, and it draws nothing at random.
        images: (n, h, w, 3) uint8.
        compute: Computes the features, (n, …).

    Returns:
        float32 (n, …), to the last bit what `compute` gives.
    """
    with timed("features"):
        return kept(scratch() / "features" / f"{_key(model, images)}.npy", compute)


def kept(path: Path, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """An array that is computed where no file has it yet, whole and as it was written.

    Args:
        path: The file; the oldest beside it go where all of them would take over 2 GB.
        compute: Makes the array.
    """
    try:
        if _intact(path, path.stat().st_ino):
            found = np.load(path)
            os.utime(path)  # used just now: the last to go
            return found
        logging.getLogger(__name__).warning("%s is damaged: it is computed anew", path)
    except OSError:
        pass  # not there
    computed = compute()
    try:
        with files.replacing(path) as partial:
            with partial.open("wb") as file:
                np.save(file, computed)
            files.seal(partial)
        files.forget_oldest(path.parent, "*.npy", MOST_BYTES)
    except OSError:
        pass  # a full disk costs the next run time, not this one its result
    return computed


@cache
def _intact(path: Path, inode: int) -> bool:
    """As `files.intact`, once a process for each file: one that is written anew is another."""
    return files.intact(path)


def computing() -> dict[str, object]:
    """What beside the arguments decides the last bits of what this process computes."""
    facts = {**environment.describe(), "fast": torch_fast.is_on(), "sealed": True}
    if keras.backend.backend() == "torch":
        import torch

        facts["threads"] = torch.get_num_threads()  # whoever has set them
    return facts


def _key(model: keras.Model, images: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    layers = [[type(layer).__name__, layer.name, layer.output.shape] for layer in model.layers]
    digest.update(json.dumps([computing(), model.name, layers, images.shape]).encode())
    for weight in model.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)))
    digest.update(np.ascontiguousarray(images))
    # What layers compute beside their weights: an activation, a scale, a layer of one's own.
    # (`get_config` would tell of Keras's, but imports TensorFlow, anywhere.)
    few = keras.ops.convert_to_tensor(images[:: -(-len(images) // PROBES)])
    given = torch_fast.fast(model)(few, training=False)  # the very calls that features come of
    digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(given)))
    return digest.hexdigest()
