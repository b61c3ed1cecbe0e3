"""Methods that teach a network: each a function on arrays.

    from keras_cnn import data, methods, models

    dataset = data.load("digits")
    train, test = dataset.splits["train"], dataset.splits["test"]
    network = models.classifier("convnext_atto", class_count=10, weights="bundled")
    trained = methods.nearest_mean.train(network, train, test)
    trained.save("model.keras")

All are called alike, `methods.<name>.train(network, train, test, **settings) -> Trained`:

- `network`: raw images (n, h, w, 3), 0 to 255, to logits (n, classes), as `models.classifier`
  gives; what of it is trainable trains. It is changed in place. Methods that need no logits use
  its features, what its last layer with weights is given.
- `train`, `test`: `data.Split`, or images uint8 (n, h, w, 3) and labels (n,) from 0 on.
- `seed`: seeds all that is drawn; `report`: called with each epoch's record, as `print`.
- The settings are the fields of the method's class in `methods.settings`, checked; `help` of
  a method, as `help(methods.maml.train)`, lists them.

`method` makes one of a function of your own. Importing this imports no framework.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from keras_cnn.methods.settings import METHODS, Method

if TYPE_CHECKING:
    from keras_cnn.methods.interface import Learned, Trained, method

NAMES = tuple(settings.name() for settings in METHODS)
# Imported when asked for: recipes need settings alone.
_INTERFACE = ("Learned", "Trained", "method")
__all__ = ["Learned", "Method", "Trained", "find", "method", *NAMES]


def __getattr__(name: str) -> object:
    if name in _INTERFACE:
        return getattr(import_module(f"{__name__}.interface"), name)
    if name in NAMES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"keras_cnn.methods has no {name!r}")


def __dir__() -> list[str]:
    return __all__


def find(name: str, settings: type[Method]) -> Callable[..., Trained]:
    """The function of a method; imports keras.

    Args:
        name: As in a recipe: a method's name, or `module.function`.
        settings: Its class.
    """
    if settings.module:
        return import_module(settings.module).train
    module, _, function = name.rpartition(".")
    return getattr(import_module(module), function)
