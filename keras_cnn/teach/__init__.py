"""A folder of photographs to a model one can trust and see into.

Data flows one way: `pictures` (the folder's images), `backbones` (their features), `folds` and
`search` (candidates compared on held-out images), `lesson` (the best, taught and calibrated),
`folder` (tested once, and kept), `page` and `terminal` (told).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_cnn.teach.folder import Request, teach
    from keras_cnn.teach.taught import Taught

_PLACES = {"Request": "folder", "Taught": "taught", "teach": "folder"}
__all__ = ["Request", "Taught", "teach"]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"keras_cnn.teach has no {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
