"""Image files decoded, and classified by a saved model: ours, and by peers.

Peers read as torchvision's ImageFolder does, with Pillow: RGB, the shorter side scaled to the size
(Resize), its centre (CenterCrop), floats from 0 to 1 (ToTensor), in a DataLoader with 2 workers.
torchvision itself has no wheel for every build of torch, so its steps are written out here.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from keras_cnn import files

if TYPE_CHECKING:
    import keras
    import torch

WORKERS, BATCH_SIZE = 2, 64
CLASSES = 10


@dataclass(frozen=True)
class Job:
    """What is read, or classified.

    Attributes:
        images: How many JPEG files.
        size: Height and width that they are brought to.
        network: Classifies them.
        width: Of the files, in pixels.
        height: Likewise.
    """

    images: int
    size: int
    network: str = "convnext_atto"
    width: int = 500
    height: int = 375


PHOTOGRAPHS, SMALL = Job(400, 224), Job(400, 32)
SERVED = {"convnext": SMALL, "efficientnet": Job(100, 224, "efficientnet_lite0")}


def decoding_ours(job: Job) -> Callable[[], int]:
    """Our decoder, as data is decoded before it is trained on."""
    from keras_cnn.data import decode

    paths = _written(job)
    return lambda: sum(len(batch.images) for batch in decode.batches(paths, job.size))


def decoding_in_loader(job: Job) -> Callable[[], int]:
    """A DataLoader over the files."""
    paths = _written(job)
    return lambda: sum(map(len, _loader(paths, job.size)))


def predicting_ours(job: Job) -> Callable[[], np.ndarray]:
    """`keras_cnn.predict` on a folder; probabilities (n, classes)."""
    from keras_cnn import prediction
    from keras_cnn.models import saved

    paths, folder = _written(job), _folder()
    saved.save(saved.classifier(_model(job)), folder / "model.keras", _card(job))
    return lambda: prediction.predict(folder / "model.keras", Path(paths[0]).parent).probabilities


def predicting_in_torch(job: Job, channels_last: bool) -> Callable[[], np.ndarray]:
    """The same network in plain torch, from its file on."""
    import torch

    from keras_cnn.bench import torch_networks

    graph, paths, file = _model(job), _written(job), _folder() / "model.pt"
    layout = torch.channels_last if channels_last else torch.contiguous_format
    torch.save(torch_networks.like(graph), file)

    @torch.inference_mode()
    def predict() -> np.ndarray:
        network = torch.load(file, weights_only=False).eval().to(memory_format=layout)
        outputs = []
        for images in _loader(paths, job.size):
            given = _rescaled(images, graph).contiguous(memory_format=layout)
            outputs.append(network(given).softmax(1))
        return torch.cat(outputs).numpy()

    return predict


def predicting_in_onnxruntime(job: Job) -> Callable[[], np.ndarray]:
    """The network in plain torch, as torch exports it to ONNX, by onnxruntime, from its file on."""
    import onnxruntime
    import torch
    from torch import nn

    from keras_cnn.bench import torch_networks

    graph, paths, file = _model(job), _written(job), _folder() / "model.onnx"
    torch.onnx.export(
        nn.Sequential(torch_networks.like(graph), nn.Softmax(1)).eval(),
        (torch.rand(2, 3, job.size, job.size),),
        file,
        input_names=["images"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        verbose=False,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "1"))

    def predict() -> np.ndarray:
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        given = (_rescaled(images, graph).numpy() for images in _loader(paths, job.size))
        return np.concatenate([session.run(None, {"images": images})[0] for images in given])

    return predict


def _rescaled(images: torch.Tensor, graph: keras.Model) -> torch.Tensor:
    """Images from 0 to 1 as the network in plain torch wants them."""
    rescaling = graph.get_layer("stem_rescaling")
    return images * (255 * rescaling.scale) + rescaling.offset


def _model(job: Job) -> keras.Model:
    from keras_cnn.bench import finetuning

    return finetuning.model(finetuning.Job(job.network, 0, 0, job.size))


def _card(job: Job) -> dict[str, object]:
    names = [f"class {label}" for label in range(CLASSES)]
    return {"class_names": names, "image_size": job.size}


def _folder() -> Path:
    folder = files.temporary_folder()
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _written(job: Job) -> list[str]:
    """JPEG files with as much in them as photographs have: noise at several scales."""
    folder, draw = _folder() / "images", np.random.default_rng(0)
    folder.mkdir()
    size = (job.width, job.height)
    for number in range(job.images):
        picture = np.zeros((job.height, job.width, 3), np.float32)
        for cells, swing in ((4, 90), (16, 60), (64, 25), (256, 8)):
            noise = draw.integers(0, 256, (cells, cells, 3), np.uint8)
            scaled = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
            picture += (np.asarray(scaled, np.float32) - 127.5) * (swing / 127.5)
        pixels = np.clip(127.5 + picture, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=90)
    return sorted(map(str, folder.iterdir()))


def _loader(paths: Sequence[str], size: int) -> torch.utils.data.DataLoader:
    from torch.utils.data import DataLoader

    return DataLoader(_Images(paths, size), BATCH_SIZE, num_workers=WORKERS)


class _Images:
    """Files as tensors float32 (3, size, size), 0 to 1.

    Args:
        paths: The files'.
        size: Height and width.
    """

    def __init__(self, paths: Sequence[str], size: int) -> None:
        self._paths, self._size = paths, size

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        import torch

        with open(self._paths[index], "rb") as file:
            image = Image.open(file).convert("RGB")
        factor = self._size / min(image.size)
        if factor != 1:
            scaled = [max(self._size, int(side * factor)) for side in image.size]
            image = image.resize(scaled, Image.Resampling.BICUBIC)
        left, top = (round((side - self._size) / 2) for side in image.size)
        image = image.crop((left, top, left + self._size, top + self._size))
        pixels = torch.from_numpy(np.array(image))
        return pixels.permute(2, 0, 1).contiguous().float().div(255)
