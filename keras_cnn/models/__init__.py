"""Networks by name, each a flat functional model from raw 0-255 RGB images. Imports no keras."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from keras_cnn.errors import UserError, nearest

if TYPE_CHECKING:
    import keras

# Which file builds a network's features: `features(name, image_size, seed)`, and its `OPTIONS`.
NETWORKS = {
    "baseline": "baseline",
    "enhanced": "enhanced",
    "fewshot_cnn": "fewshot_cnn",
    "siamese_cnn": "siamese_cnn",
    "resnet18": "resnet",
    "convnext_atto": "convnext",
    "convnext_femto": "convnext",
    "convnext_pico": "convnext",
    "convnext_nano": "convnext",
    "convnext_tiny": "convnext",
}
SMALLEST_IMAGE_SIZE = {
    "baseline": 4,
    "enhanced": 8,
    "fewshot_cnn": 8,
    "siamese_cnn": 16,
    "resnet": 32,
    "convnext": 32,
}
OPTIONS = {
    "baseline": ("hidden_units",),
    "enhanced": ("hidden_units",),
    "convnext": ("stochastic_depth",),
}
# Networks that are defined with dropout before the dense layer, and the rate a summary shows; runs
# set their own.
DROPOUT = {"baseline": 0.5, "enhanced": 0.5, "fewshot_cnn": 0.5}


def module_of(name: str) -> str:
    """The module that builds a network, by dotted name; imports nothing."""
    return f"{__name__}.{NETWORKS[name]}" if name in NETWORKS else name.rpartition(".")[0]


def check(
    name: str,
    image_size: int,
    hidden_units: int | None = None,
    stochastic_depth: float = 0.0,
) -> None:
    """Refuses a name that is no network's, images too small for it, or an option it has not.

    Args:
        name: A network's name.
        image_size: Height and width of its input, in pixels.
        hidden_units: As for `backbone`.
        stochastic_depth: As for `backbone`.

    Raises:
        UserError: It is not one of `NETWORKS`, takes larger images only, or has no such option.
    """
    if name not in NETWORKS:
        raise UserError(f"no model {name!r}: {nearest(name, NETWORKS)}")
    smallest = SMALLEST_IMAGE_SIZE[NETWORKS[name]]
    if image_size < smallest:
        raise UserError(
            f"{name} needs images of at least {smallest} pixels, image_size is {image_size}"
        )
    for option in _given(hidden_units, stochastic_depth):
        if option not in OPTIONS.get(NETWORKS[name], ()):
            raise UserError(f"{name} has no {option}: leave it out")


def backbone(
    name: str,
    image_size: int,
    seed: int = 0,
    hidden_units: int | None = None,
    stochastic_depth: float = 0.0,
) -> keras.Model:
    """A network without its head, with new weights.

    Args:
        name: One of `NETWORKS`.
        image_size: Height and width of its input, in pixels.
        seed: Seeds the weights and what is dropped.
        hidden_units: Width of `baseline` and `enhanced`; None takes the deck's 32 and 64.
        stochastic_depth: Highest rate of dropped residual branches, of a ConvNeXt.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, channels). Layers are named `stem_…`,
        `stage1_…`, `stage2_…` and so on, `features_…`.

    Raises:
        UserError: There is no such network, it has no such option, or it cannot take images of
            this size.
    """
    check(name, image_size, hidden_units, stochastic_depth)
    build: Callable[..., keras.Model] = import_module(f"keras_cnn.models.{NETWORKS[name]}").features
    return build(name, image_size, seed, **_given(hidden_units, stochastic_depth))


def classifier(
    name: str,
    class_count: int,
    image_size: int = 32,
    weights: str = "random",
    unfrozen_stages: int | None = None,
    head: str = "dense",
    cosine_scale: float = 1.0,
    dropout: float = 0.0,
    seed: int = 0,
    hidden_units: int | None = None,
    stochastic_depth: float = 0.0,
) -> keras.Model:
    """A network with a new head, ready to be taught, as one flat functional model.

        network = models.classifier("convnext_atto", class_count=10, weights="bundled")

    Args:
        name: One of `NETWORKS`.
        class_count: Outputs.
        image_size: Height and width of its input, in pixels.
        weights: What all but the head begins with: `random`, `bundled`, `pretrained` (as fetched),
            or a file's path, see `pretrained.load`.
        unfrozen_stages: The last n stages train, with the head; None trains everything. It sets
            the layers' `trainable`, which the methods go by.
        head: `dense` or `cosine`, see `heads.logits`.
        cosine_scale: What the cosines of a `cosine` head are multiplied by.
        dropout: Rate of the dropout before the head; 0 leaves it out.
        seed: Of the weights, which are the same on every backend, of dropout and of stochastic
            depth.
        hidden_units: As for `backbone`.
        stochastic_depth: As for `backbone`.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to logits (n, class_count).

    Raises:
        UserError: As `backbone` does, or there are no such weights, or they do not fit.
    """
    import keras

    from keras_cnn import pretrained
    from keras_cnn.models import freeze, heads, initializers

    features = backbone(name, image_size, seed, hidden_units, stochastic_depth)
    logits = heads.logits(features.output, class_count, head, dropout, seed, cosine_scale)
    model = keras.Model(features.input, logits, name=name)
    initializers.draw(model, seed)
    pretrained.load(model, weights)
    if unfrozen_stages is not None:
        freeze.freeze_stages(model, unfrozen_stages)
    return model


def _given(hidden_units: int | None, stochastic_depth: float) -> dict[str, float]:
    """The options that are not left at what every network has."""
    options = {"hidden_units": hidden_units, "stochastic_depth": stochastic_depth or None}
    return {option: value for option, value in options.items() if value is not None}
