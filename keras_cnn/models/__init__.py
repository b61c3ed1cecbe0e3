"""Networks by name, each a flat functional model from raw 0-255 RGB images. Imports no keras."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from keras_cnn.errors import UserError, nearest

if TYPE_CHECKING:
    import keras

# Which file builds a backbone; each has `features(name, image_size, stochastic_depth, seed)`.
BACKBONES = {
    "resnet18": "resnet",
    "convnext_atto": "convnext",
    "convnext_femto": "convnext",
    "convnext_pico": "convnext",
    "convnext_nano": "convnext",
    "convnext_tiny": "convnext",
}
SMALLEST_IMAGE_SIZE = 32
IMAGENET_CLASSES = 1000
FROM_SCRATCH = {"baseline": 32, "enhanced": 64}  # hidden units, as on the slides


def check(name: str, image_size: int) -> None:
    """Whether there is such a backbone for such images.

    Raises:
        UserError: There is none, or it cannot take images of this size.
    """
    if name not in BACKBONES:
        raise UserError(f"no model {name!r}: {nearest(name, BACKBONES)}")
    if image_size < SMALLEST_IMAGE_SIZE:
        raise UserError(f"{name} needs images of at least 32 pixels, image_size is {image_size}")


def backbone(
    name: str, image_size: int, stochastic_depth: float = 0.0, seed: int = 0
) -> keras.Model:
    """A backbone with new weights.

    Args:
        name: One of `BACKBONES`.
        image_size: Height and width of its input, at least 32 pixels.
        stochastic_depth: Highest rate of dropped residual branches.
        seed: Of the weights and of what is dropped.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, channels). Layers are named `stem_…`,
        `stage1_…` to `stage4_…`, `features_…`.

    Raises:
        UserError: There is no such backbone, or it cannot take images of this size.
    """
    check(name, image_size)
    build: Callable[..., keras.Model] = import_module(
        f"keras_cnn.models.{BACKBONES[name]}"
    ).features
    return build(name, image_size, stochastic_depth, seed)


def classifier(
    name: str,
    class_count: int,
    image_size: int = 32,
    head: str = "dense",
    dropout: float = 0.0,
    dropout_position: str = "before_dense",
    stochastic_depth: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """A backbone and a new head, as one flat functional model.

    Args:
        name: One of `BACKBONES`.
        class_count: Outputs.
        image_size: Height and width of its input, at least 32 pixels.
        head: `dense` or `cosine`, see `heads.logits`.
        dropout: Rate of the head's dropout; 0 leaves it out.
        dropout_position: `before_dense` or `after_logits`.
        stochastic_depth: Highest rate of dropped residual branches.
        seed: Of the weights, of dropout and of stochastic depth.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to logits (n, class_count).

    Raises:
        UserError: As `backbone` does.
    """
    import keras

    from keras_cnn.models import heads

    features = backbone(name, image_size, stochastic_depth, seed)
    logits = heads.logits(features.output, class_count, head, dropout, dropout_position, seed)
    return keras.Model(features.input, logits, name=name)


def named(name: str) -> keras.Model:
    """A model by its name alone, as the slides show it; its weights are new.

    Args:
        name: One of `BACKBONES`, with ImageNet's 1,000 classes at 224 pixels; `baseline` (32
            hidden units) or `enhanced` (64), with ten classes at 32 pixels.

    Raises:
        UserError: There is no such model.
    """
    if name in BACKBONES:
        return classifier(name, IMAGENET_CLASSES, 224)
    if name not in FROM_SCRATCH:
        raise UserError(
            f"no model {name!r}: {nearest(name, [*BACKBONES, *FROM_SCRATCH])}, or a .keras file"
        )
    build = getattr(import_module(f"keras_cnn.models.{name}"), name)
    return build(class_count=10, image_size=32, hidden_units=FROM_SCRATCH[name])
