"""Networks by name, each a flat functional model from raw 0-255 RGB images. Imports no keras."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from keras_cnn import environment
from keras_cnn.errors import UserError, nearest

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Network:
    """Where a network is built, and what it takes.

    Attributes:
        module: Has the function of the network's name: `resnet18(image_size, seed)`.
        smallest_image: Height and width in pixels.
        options: Other keywords of the function.
        dropout: Rate of the dropout before the head that it is published with; runs set their own.
        image_size: Height and width in pixels of the images it is made for.
        pretrained_image_size: Likewise of its `pretrained` weights, where that is another.
    """

    module: str
    smallest_image: int = 1
    options: tuple[str, ...] = ()
    dropout: float = 0.0
    image_size: int = 32
    pretrained_image_size: int | None = None


_CONVNEXT = Network("keras_cnn.models.convnext", 32, ("stochastic_depth",))
_EFFICIENTNET = "keras_cnn.models.efficientnet"
NETWORKS = {
    "baseline": Network("keras_cnn.models.baseline", 4, ("hidden_units",), dropout=0.5),
    "enhanced": Network("keras_cnn.models.enhanced", 8, ("hidden_units",), dropout=0.5),
    "fewshot_cnn": Network("keras_cnn.models.fewshot_cnn", 8, dropout=0.5),
    "siamese_cnn": Network("keras_cnn.models.siamese_cnn", 16),
    "resnet18": Network("keras_cnn.models.resnet", 32, pretrained_image_size=224),
    "convnext_atto": _CONVNEXT,
    "convnext_femto": _CONVNEXT,
    "convnext_pico": _CONVNEXT,
    "convnext_nano": _CONVNEXT,
    "convnext_tiny": replace(_CONVNEXT, pretrained_image_size=224),
    "efficientnet_lite0": Network(_EFFICIENTNET, 32, dropout=0.2, image_size=224),
    "efficientnet_lite2": Network(_EFFICIENTNET, 32, dropout=0.3, image_size=260),
}

OTHER_SIZE = (
    "the %s weights of %s are of images of %s pixels, and these have %s; what another size can "
    "cost: fine-tuned on 100 images a class of clothing, the bundled convnext_atto is right for "
    "64.9 percent at its 32 pixels and for 56.2 at 64 (n = 3)"
)


def network(name: str) -> Network:
    """What a name stands for.

    Args:
        name: One of `NETWORKS`, or the dotted name of a function of your own, as
            `my_module.my_network`; its module is imported.

    Raises:
        UserError: There is no such network, module or function.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    module, _, function = name.rpartition(".")
    if not module or module.startswith("."):
        raise UserError(
            f"no model {name!r}: {nearest(name, NETWORKS)}, or give a function of your own as "
            "module.function"
        )
    try:
        content = vars(environment.own_module(module))
    except UserError as error:
        raise UserError(f"model {name!r}: {error}") from error
    functions = {key: value for key, value in content.items() if callable(value)}
    if function not in functions:
        raise UserError(
            f"model {name!r}: {module} has no function {function!r}: {nearest(function, functions)}"
        )
    try:
        signature = inspect.signature(functions[function])
        signature.bind("image_size", "seed")
    except (TypeError, ValueError) as error:
        raise UserError(f"model {name!r}: it is to take (image_size, seed): {error}") from None
    return Network(module, options=tuple(signature.parameters)[2:])


def module_of(name: str) -> str:
    """The module that builds a network, by dotted name; imports nothing."""
    return NETWORKS[name].module if name in NETWORKS else name.rpartition(".")[0]


def right_image_size(name: str, weights: str = "random") -> int:
    """Height and width in pixels of the images that a network with such weights is made for.

    Args:
        name: As for `network`.
        weights: As for `classifier`; of a file it is not known, and the network's own size taken.

    Raises:
        UserError: There is no such network.
    """
    wanted = network(name)
    fetched = wanted.pretrained_image_size if weights == "pretrained" else None
    return fetched or wanted.image_size


@cache  # a recipe's runs are mostly of one network
def check(
    name: str,
    image_size: int,
    hidden_units: int | None = None,
    stochastic_depth: float = 0.0,
) -> None:
    """Refuses what `backbone` would refuse, and builds only a network of your own to see it.

    Raises:
        UserError: As `backbone` does.
    """
    _checked(name, image_size, hidden_units, stochastic_depth)
    if name not in NETWORKS:
        backbone(name, image_size, 0, hidden_units, stochastic_depth)


def backbone(
    name: str,
    image_size: int,
    seed: int = 0,
    hidden_units: int | None = None,
    stochastic_depth: float = 0.0,
) -> keras.Model:
    """A network without its head, with new weights.

    A network of your own is a function with its options, if any, as keywords with defaults:

        def my_network(image_size: int, seed: int, hidden_units: int = 64) -> keras.Model:
            images = keras.Input((image_size, image_size, 3))
            x = keras.layers.Rescaling(1 / 255)(images)
            x = keras.layers.Conv2D(hidden_units, 3, activation="relu")(x)
            return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))

    It describes the network only: its weights are drawn anew from the initializers that its layers
    name.

    Args:
        name: One of `NETWORKS`, or the dotted name of a function, as `my_module.my_network`.
        image_size: Height and width of its input, in pixels.
        seed: Seeds the weights and what is dropped.
        hidden_units: Width of `baseline` and `enhanced`; None takes the deck's 32 and 64.
        stochastic_depth: Highest rate of dropped residual branches, of a ConvNeXt.

    Returns:
        Raw images (n, h, w, 3), 0 to 255, to features (n, channels). Layers of the networks here
        are named `stem_…`, `stage1_…`, `stage2_…` and so on, `features_…`.

    Raises:
        UserError: There is no such network, it has no such option, it cannot take images of this
            size, or a function of your own gives something else.
    """
    from keras_cnn.models import initializers

    model = _undrawn(name, image_size, seed, hidden_units, stochastic_depth)
    initializers.draw(model, seed)
    return model


def _undrawn(
    name: str, image_size: int, seed: int, hidden_units: int | None, stochastic_depth: float
) -> keras.Model:
    """As `backbone`, with no weights that its initializers stand for."""
    module, options = _checked(name, image_size, hidden_units, stochastic_depth)
    build = getattr(import_module(module), name.rpartition(".")[2])
    environment.check_keras()
    model = build(image_size, seed, **options)
    import keras

    if not isinstance(model, keras.Model) or not _maps_images_to_features(model, image_size):
        raise UserError(
            f"model {name!r} gives no functional keras.Model from images "
            f"(n, {image_size}, {image_size}, 3) to features (n, channels)"
        )
    return keras.Model(model.inputs[0], model.outputs[0], name=name)


def classifier(
    name: str,
    class_count: int,
    image_size: int | None = None,
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
        name: As for `backbone`.
        class_count: Outputs.
        image_size: Height and width of its input, in pixels; None takes `right_image_size`.
            Another than that for weights by name is told by a warning.
        weights: What all but the head begins with: `random`, `bundled`, `pretrained` (as fetched,
            or as another package has it), or a file's path, see `pretrained.load`.
        unfrozen_stages: The last n stages train, with the head; None trains everything. It sets
            the layers' `trainable`, which the methods go by.
        head: `dense` or `cosine`, see `heads.logits`.
        cosine_scale: What the cosines of a `cosine` head are multiplied by.
        dropout: Rate of the dropout before the head; 0 leaves it out.
        seed: Of the weights, which are the same on every backend (see `initializers.draw`), of
            dropout and of stochastic depth.
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

    right_size = right_image_size(name, weights)
    if weights in ("bundled", "pretrained") and image_size not in (None, right_size):
        logging.getLogger(__name__).warning(OTHER_SIZE, weights, name, right_size, image_size)
    image_size = right_size if image_size is None else image_size
    features = _undrawn(name, image_size, seed, hidden_units, stochastic_depth)
    logits = heads.logits(features.output, class_count, head, dropout, seed, cosine_scale)
    model = keras.Model(features.input, logits, name=name)
    loaded = name in NETWORKS and weights != "random"  # all but the head: only that is drawn
    initializers.draw(model, seed, [heads.head_layer(model)] if loaded else None)
    pretrained.load(model, weights)
    if unfrozen_stages is not None:
        freeze.freeze_stages(model, unfrozen_stages)
    return model


def _checked(
    name: str, image_size: int, hidden_units: int | None, stochastic_depth: float
) -> tuple[str, dict[str, float]]:
    """The module of a network that takes such images, and the options it has been given."""
    wanted = network(name)
    if image_size < wanted.smallest_image:
        raise UserError(
            f"{name} needs images of at least {wanted.smallest_image} pixels, image_size is "
            f"{image_size}"
        )
    options = {"hidden_units": hidden_units, "stochastic_depth": stochastic_depth or None}
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in wanted.options:
            raise UserError(f"{name} has no {option}: leave it out")
    return wanted.module, given


def _maps_images_to_features(model: keras.Model, image_size: int) -> bool:
    """Whether a model has a graph, one input of images and one output of features."""
    ends = getattr(model, "inputs", None) or (), getattr(model, "outputs", None) or ()
    if [len(tensors) for tensors in ends] != [1, 1]:
        return False
    images, features = (tuple(tensors[0].shape) for tensors in ends)
    takes_images = len(images) == 4 and images[3] == 3 and {*images[1:3]} <= {image_size, None}
    return takes_images and len(features) == 2 and features[1] is not None
