"""Batches from image files by torch's DataLoader: how the deck fed its networks."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, get_worker_info

from keras_cnn.data import Split
from keras_cnn.data.image_file import decode_image

if TYPE_CHECKING:
    from keras_cnn.methods.settings import Feeding


class ImageFiles(Dataset):
    """Image files and their labels, opened and decoded one by one as they are asked for.

    Args:
        paths: The paths of n files.
        labels: (n,) integers.
        image_size: Height and width in pixels that images are brought to.
    """

    def __init__(self, paths: Sequence[str], labels: np.ndarray, image_size: int) -> None:
        self._paths = paths
        self._labels = labels
        self._image_size = image_size
        self._worker_seconds = multiprocessing.get_context(_start_method()).Value("d", 0.0)
        self._counted_seconds = 0.0

    @classmethod
    def written(cls, split: Split, folder: Path) -> ImageFiles:
        """The images (n, h, w, 3) uint8 of a split, written as PNG files into a new folder."""
        folder.mkdir(parents=True)
        paths = [str(folder / f"{number:06d}.png") for number in range(len(split.images))]
        for path, image in zip(paths, split.images, strict=True):
            Image.fromarray(image).save(path)
        return cls(paths, split.labels, split.images.shape[1])

    @property
    def worker_seconds(self) -> float:
        """Processor time that workers have spent on images so far; this process's is not in it."""
        return self._worker_seconds.value

    def __len__(self) -> int:
        """Files."""
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image, uint8 (h, w, 3), and its label."""
        raw = Path(self._paths[index]).read_bytes()
        image = decode_image(raw, self._image_size)[0].copy()
        if get_worker_info() is not None:
            self._count()
        return image, int(self._labels[index])

    def _count(self) -> None:
        """Adds what this worker has spent since it did last; nobody sees it end and could ask."""
        spent = time.process_time()
        with self._worker_seconds:
            self._worker_seconds.value += spent - self._counted_seconds
        self._counted_seconds = spent


def batches(
    files: ImageFiles, batch_size: int, feeding: Feeding, seed: int | None = None
) -> DataLoader:
    """What `fit` and `evaluate` take batches from: images (b, h, w, 3) uint8, labels (b,).

    Args:
        files: What to read.
        batch_size: Images a batch.
        feeding: How; a last, smaller batch is left out in training alone.
        seed: Seeds the order of training, drawn anew each epoch; None leaves files in their order.
    """
    workers = feeding.workers
    return DataLoader(
        files,
        batch_size,
        shuffle=seed is not None,
        generator=None if seed is None else torch.Generator().manual_seed(seed),
        num_workers=workers,
        # A process that has computed with several threads must not be forked: the child hangs.
        multiprocessing_context=_start_method() if workers else None,
        worker_init_fn=_die_with_parent,
        pin_memory=feeding.pin_memory,
        persistent_workers=feeding.persistent_workers and workers > 0,
        prefetch_factor=feeding.prefetch_batches if workers else None,
        drop_last=feeding.drop_last and seed is not None,
    )


def _start_method() -> str:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return "spawn"
    multiprocessing.set_forkserver_preload([__name__])  # imported once, for all workers
    return "forkserver"


def _die_with_parent(worker: int) -> None:
    """Ends a worker when the process that trains is gone, however it went.

    torch's own watch looks at the fork server, which outlives it as long as there are workers.
    """
    trains = multiprocessing.parent_process()

    def watch() -> None:
        wait([trains.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
