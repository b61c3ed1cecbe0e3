"""Train small CNNs and few-shot learners in Keras 3, each experiment as a recipe.

Importing it sets `KERAS_BACKEND` to torch where it is not set; the modules below are imported when
they are first asked for, and no framework before it is needed.

- `runs.study.conduct`: a recipe from its name to its table.
- `data.load`: images of a source or a folder as arrays.
- `models.classifier`, `models.embedder`, `models.backbone`: networks by name.
- `pretrained.load`: weights for one of them.
- `models.saved.load`, `models.saved.save`: models of finished runs.
- `recipe.read`, `recipe.resolve.runs`: a recipe file, and its rows as frozen runs.
"""

import importlib
import os
from types import ModuleType

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's greetings

__version__ = "0.1.0"
__all__ = ["data", "models", "pretrained", "recipe", "runs"]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"keras_cnn has no {name!r}")
    return importlib.import_module(f"keras_cnn.{name}")
