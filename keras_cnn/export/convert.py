"""The process that writes an exported model and runs it once, by the runtime it is made for.

`python -m keras_cnn.export.convert REQUEST.json`, on the backend that the format is written from:
converters set options, print, and end a process that holds more than one of these libraries.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from keras_cnn.classifier import Ending
from keras_cnn.models import saved
from keras_cnn.training import batch_size

if TYPE_CHECKING:
    import keras

INPUT, OUTPUT = "images", "probabilities"  # their names in each format
Run = Callable[[np.ndarray], np.ndarray]  # images float32 (n, h, w, 3) to probabilities


class Request(TypedDict):
    """What the process is asked for.

    Attributes:
        format: One of `formats.FORMATS`.
        model: A `.keras` file.
        ending: What makes probabilities of its outputs.
        image_size: Height and width of its input, in pixels.
        out: The file or folder to write.
        images: A `.npy` file, uint8 (n, h, w, 3).
        probabilities: The `.npy` file to write, what the exported model makes of the images.
        metadata: Texts by name, for the formats that hold such.
    """

    format: str
    model: str
    ending: Ending
    image_size: int
    out: str
    images: str
    probabilities: str
    metadata: dict[str, str]


def convert(request: Request) -> None:
    """Writes the exported model, and what it makes of the images."""
    model, _ = saved.load(request["model"])
    run = WRITERS[request["format"]](model, request)
    images = np.load(request["images"]).astype(np.float32)
    # Of one image, and of more: the batch is open.
    size = max(2, min(16, batch_size.of(images.shape)))
    starts = [0, *range(1, len(images), size)]
    batches = (images[a:b] for a, b in zip(starts, [*starts[1:], len(images)], strict=True))
    np.save(request["probabilities"], np.concatenate([run(batch) for batch in batches]))


def whole(network: keras.Model, ending: Ending, image_size: int) -> keras.Model:
    """A network with all that is between raw images and probabilities.

    Args:
        network: Takes square images of three channels, or of one, which is made of the three.
        ending: What makes probabilities of its outputs.
        image_size: Height and width, in pixels.

    Returns:
        Images float32 (n, image_size, image_size, 3), 0 to 255, to probabilities (n, classes).
    """
    import keras
    from keras import ops

    images = keras.Input((image_size, image_size, 3), name=INPUT)
    given = images
    if network.inputs[0].shape[-1] == 1:  # grey as Pillow has it; float32 holds these numbers
        red, green, blue = (images[..., place : place + 1] for place in range(3))
        weighed = 19595.0 * red + 38470.0 * green + 7471.0 * blue
        given = ops.floor((weighed + 32768.0) / 65536.0)
    inside = keras.Model(network.inputs[0], network.outputs[0])
    outputs = inside(given)
    if ending == "softmax":
        outputs = ops.softmax(outputs, axis=-1)
    if ending == "sigmoid":
        outputs = ops.sigmoid(outputs)
    if ending in ("sigmoid", "rest"):
        outputs = ops.concatenate([1.0 - outputs, outputs], axis=-1)
    return keras.Model(images, {OUTPUT: outputs}, name="classifier")


def _one_output(network: keras.Model, request: Request) -> keras.Model:
    """The whole as a model with one output, and without a model in it where that can be."""
    import keras

    shape = (request["image_size"], request["image_size"], 3)
    if request["ending"] != "none" or tuple(network.inputs[0].shape[1:]) != shape:
        network = whole(network, request["ending"], request["image_size"])
    return keras.Model(network.inputs[0], network.outputs[0])


def _onnx(network: keras.Model, request: Request) -> Run:
    # `model.export` fails at layer normalisation where the batch is open: Keras has torch trace
    # then, which takes the channels for unknown, too. torch's newer exporter knows them.
    import onnx
    import onnxruntime
    import torch

    size, path = request["image_size"], request["out"]
    model = _one_output(network, request)

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.model(images, training=False)

    device = model.weights[0].value.device  # where Keras has put it
    with torch.no_grad():
        program = torch.onnx.export(
            Classifier().eval(),
            (torch.zeros(2, size, size, 3, device=device),),
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    program.save(path, external_data=False)
    onnx.save(_plain_onnx(onnx.load(path), request["metadata"]), path)
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: session.run([OUTPUT], {INPUT: images})[0]


def _plain_onnx(model: object, metadata: Mapping[str, str]) -> object:
    """An `onnx.ModelProto` with our metadata, and without the paths of files on this machine."""
    import onnx

    parts = [model, model.graph, *model.graph.node, *model.graph.initializer]
    parts += [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.functions]
    parts += [node for function in model.functions for node in function.node]
    for part in parts:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.helper.set_model_props(model, dict(metadata))
    return model


def _openvino(network: keras.Model, request: Request) -> Run:
    import openvino

    size, path = request["image_size"], request["out"]
    traced = Path(path).with_name("traced.xml")
    _one_output(network, request).export(str(traced), format="openvino", verbose=False)
    core = openvino.Core()
    model = core.read_model(traced)
    model.inputs[0].get_tensor().set_names({INPUT})
    model.outputs[0].get_tensor().set_names({OUTPUT})
    model.reshape([-1, size, size, 3])  # all but the batch is known
    for name, text in request["metadata"].items():
        model.set_rt_info(text, ["keras_cnn", name])
    openvino.save_model(model, path, compress_to_fp16=False)
    del model  # it holds the file
    for leftover in (traced, traced.with_suffix(".bin")):
        leftover.unlink()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would take bfloat16
    compiled = core.compile_model(path, "CPU", exact)
    return lambda images: compiled({INPUT: images})[OUTPUT]


def _litert(network: keras.Model, request: Request) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    model = whole(network, request["ending"], request["image_size"])
    model.export(request["out"], format="litert", verbose=False)
    runner = Interpreter(request["out"]).get_signature_runner("serving_default")
    return lambda images: runner(**{INPUT: images})[OUTPUT]


def _tf_saved_model(network: keras.Model, request: Request) -> Run:
    import tensorflow

    model = whole(network, request["ending"], request["image_size"])
    model.export(request["out"], format="tf_saved_model", verbose=False)
    loaded = tensorflow.saved_model.load(request["out"])
    serve = loaded.signatures["serving_default"]
    # It ends with what it was loaded with.
    return lambda images, loaded=loaded: serve(**{INPUT: tensorflow.constant(images)})[
        OUTPUT
    ].numpy()


WRITERS: dict[str, Callable[[keras.Model, Request], Run]] = {
    "onnx": _onnx,
    "litert": _litert,
    "openvino": _openvino,
    "tf_saved_model": _tf_saved_model,
}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    try:
        convert(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except Exception as error:  # converters raise anything
        sys.exit(f"{type(error).__name__}: {saved.first_line(error)}")
