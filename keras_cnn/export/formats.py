"""The formats a saved model is exported to, and what each of them needs here."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from keras_cnn import environment
from keras_cnn.errors import UserError, nearest


@dataclass(frozen=True)
class Format:
    """What a format needs.

    Attributes:
        suffix: Of its file's name; empty where it is a folder.
        backend: What Keras runs on to write it.
        modules: Imported to write it and to try it, beside the backend.
        extra: Of `setup.cfg`, brings the modules.
        companion: Suffix of a second file; empty where there is none.
    """

    suffix: str
    backend: Literal["torch", "tensorflow"]
    modules: tuple[str, ...] = ()
    extra: str = ""
    companion: str = ""


FORMATS = {
    "onnx": Format(".onnx", "torch", ("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "litert": Format(".tflite", "tensorflow", ("ai_edge_litert",), "litert"),
    "openvino": Format(".xml", "torch", ("openvino",), "openvino", companion=".bin"),
    "tf_saved_model": Format("", "tensorflow"),
}


def find(name: str) -> Format:
    """What a name stands for; everything it needs is installed. Imports nothing of it.

    Raises:
        UserError: There is no such format, or something is not installed.
    """
    if name not in FORMATS:
        raise UserError(f"no format {name!r}: {nearest(name, FORMATS)}")
    found = FORMATS[name]
    missing = [module for module in found.modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(
            f"format {name} needs {', '.join(missing)}, not installed: "
            f"pip install -e '.[{found.extra}]' in the folder of the project"
        )
    environment.require(found.backend)
    return found
