"""Train small CNNs and few-shot learners in Keras 3, each experiment as a recipe.

- `data.load`: images of a source or a folder as arrays.
- `models.classifier`: a network by name, with weights; `models.saved`: models on disk.
- `methods`: what teaches a network, `methods.maml.train(network, train, test)` and others.
- `predict`: from photo files to probabilities; `embed`, `similar`: to features, and the nearest.
- `export.write`: a saved model for programs without Keras.
- `study.run`: a recipe from its name to its results; `results.read`: a finished run.
- `recipe.read`: a recipe file.

The modules are imported when they are first asked for. Keras runs on PyTorch where nothing else is
said: `KERAS_BACKEND` names another backend, and has to be set before Keras is imported.
"""

import importlib
import os
import sys
import warnings
from collections.abc import Callable
from types import ModuleType

if not os.environ.get("KERAS_BACKEND"):
    # What Keras runs on is decided when it is imported: by a file of the user's, or TensorFlow.
    imported = getattr(sys.modules.get("keras"), "backend", None)
    os.environ["KERAS_BACKEND"] = imported.backend() if imported else "torch"
    if os.environ["KERAS_BACKEND"] != "torch":
        warnings.warn(
            f"keras was imported before keras_cnn and runs on {os.environ['KERAS_BACKEND']}, not "
            "on torch: import keras_cnn first, or set KERAS_BACKEND to say which backend is meant",
            stacklevel=2,
        )
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's greetings

__version__ = "0.1.0"
_PLACES = {"study": "keras_cnn.runs.study"}
_FUNCTIONS = {
    "ImageClassifier": "teach.estimator",
    "embed": "similarity",
    "predict": "prediction",
    "similar": "similarity",
}
__all__ = [
    *("ImageClassifier", "data", "embed", "export", "methods", "models", "predict", "pretrained"),
    *("recipe", "results", "similar", "study", "teach"),
]


def __getattr__(name: str) -> ModuleType | Callable:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"keras_cnn.{_FUNCTIONS[name]}"), name)
    if name not in __all__:
        raise AttributeError(f"keras_cnn has no {name!r}")
    return importlib.import_module(_PLACES.get(name, f"keras_cnn.{name}"))


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
