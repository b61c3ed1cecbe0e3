"""Which backbones there are for photographs, best first, and what they make of images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn import models
from keras_cnn.errors import UserError, nearest
from keras_cnn.pretrained import named

if TYPE_CHECKING:
    import keras

TIMED = 8  # images on which a backbone's speed is measured
BLOCK = 256  # images whose features are kept on disk together, should the command be killed


@dataclass(frozen=True)
class Backbone:
    """A network that gives features.

    Attributes:
        name: Of `models.NETWORKS`.
        weights: As of `models.classifier`.
        about: What it was trained on.
    """

    name: str
    weights: str
    about: str

    @property
    def image_size(self) -> int:
        """Height and width that it takes, in pixels."""
        return models.right_image_size(self.name, self.weights)

    def is_here(self) -> bool:
        """Whether its weights are on this machine."""
        try:
            named.weights_file(self.name, self.weights)
        except UserError:
            return False
        return True

    def network(self) -> keras.Model:
        """From raw images (n, s, s, 3), 0 to 255, to features (n, channels)."""
        from keras_cnn.models import heads

        whole = models.classifier(self.name, 2, self.image_size, self.weights)
        return heads.embedder(whole)


IMAGENET = "1.28 million photographs of ImageNet's 1,000 classes"
BACKBONES = (
    Backbone("efficientnet_lite0", "pretrained", IMAGENET),
    Backbone("efficientnet_lite2", "pretrained", IMAGENET),
    Backbone("convnext_tiny", "pretrained", IMAGENET),
    Backbone("resnet18", "pretrained", IMAGENET),
    Backbone("convnext_atto", "bundled", "100,000 small images of Tiny ImageNet's 200 classes"),
    Backbone("resnet18", "bundled", "100,000 small images of Tiny ImageNet's 200 classes"),
)
INSTALL = "pip install -e '.[photos]'"


def choose(name: str = "auto") -> tuple[list[Backbone], str]:
    """The backbones to try, the best first, and a sentence that says why it is the first.

    Args:
        name: A network's name, or `auto` for those that are at hand. Backbones of small images are
            tried only where there is none of photographs.

    Raises:
        UserError: There is no such backbone, or its weights are not on this machine.
    """
    names = dict.fromkeys(one.name for one in BACKBONES)
    if name != "auto" and name not in names:
        raise UserError(f"no backbone {name!r}: {nearest(name, ['auto', *names])}")
    wanted = [one for one in BACKBONES if name in ("auto", one.name)]
    at_hand = [one for one in wanted if one.is_here()]
    if not at_hand:
        named.weights_file(wanted[0].name, wanted[0].weights)  # says what is to be done
    best = at_hand[0]
    why = f"{best.name} at {best.image_size} pixels, trained on {best.about}"
    if name != "auto":
        return [best], f"{why}: asked for"
    alike = [one for one in at_hand if one.weights == best.weights]
    why += ": the best at hand"
    return alike, why if best.weights == "pretrained" else f"{why}; {INSTALL} brings better ones"


@cache  # it is asked for several times in a command
def network(backbone: Backbone) -> keras.Model:
    """As `Backbone.network`, made once a process; not to be trained."""
    return backbone.network()


@cache  # of the machine as it is now
def seconds_an_image(backbone: Backbone) -> float:
    """How long a backbone takes for an image here, the median of a few small batches."""
    from keras_cnn.training import evaluation

    size = backbone.image_size
    noise = np.random.default_rng(0).integers(0, 256, (TIMED, size, size, 3), np.uint8)
    run, seconds = evaluation.evaluator(network(backbone)), []
    for _ in range(4):
        began = time.perf_counter()
        run(noise)
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:])) / TIMED


def features(
    network: keras.Model, images: np.ndarray, done: Callable[[int], None] = lambda count: None
) -> np.ndarray:
    """What a backbone makes of images, block by block, each kept on disk.

    Args:
        network: From images to features.
        images: uint8 (n, s, s, 3), of its size.
        done: Called with the number of images that are done.

    Returns:
        float32 (n, channels).
    """
    from keras_cnn.training import frozen

    blocks = []
    for start in range(0, len(images), BLOCK):
        blocks.append(frozen.features_of(network, images[start : start + BLOCK]))
        done(min(start + BLOCK, len(images)))
    return np.concatenate(blocks)
