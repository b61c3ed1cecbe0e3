"""A saved model that tells the class of square images: found fit for that, and applied."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from keras_cnn import torch_fast
from keras_cnn.data.fit import FITS, Fit
from keras_cnn.errors import UserError
from keras_cnn.models import saved
from keras_cnn.training import batch_size

if TYPE_CHECKING:
    import keras

    from keras_cnn.teach.trust import Trust

LARGEST_IMAGE = 1024  # pixels of a model's height and width, as of a recipe's

# What makes probabilities of a network's outputs. `none`: they are. `rest`: the single one is the
# second class's, and the first has the rest. `sigmoid`: so it is after a sigmoid.
Ending: TypeAlias = Literal["none", "softmax", "sigmoid", "rest"]


@dataclass(frozen=True)
class Classifier:
    """A saved model that tells the class of square images, and what is known of it.

    Attributes:
        path: Its file.
        network: Raw images, 0 to 255, to one output.
        card: As `saved.load` gives it.
        image_size: Height and width, in pixels.
        fit: How images are brought to a square, as those it was trained on were.
        is_grey: It takes one channel, not three.
        class_names: Two for a single output, a sigmoid's.
        trust: What it knows of its answers, where `teach` has left it.
    """

    path: Path
    network: keras.Model
    card: dict[str, object]
    image_size: int
    fit: Fit
    is_grey: bool
    class_names: list[str]
    trust: Trust | None = None

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """What the network gives for RGB images, uint8 (n, h, w, 3): (n, outputs) float32."""
        return self._applied(self._fast, images)

    def features(self, images: np.ndarray) -> np.ndarray:
        """What the network's head is given for RGB images, uint8 (n, h, w, 3): (n, channels)."""
        return self._applied(self._fast_features, images)

    def unmoved_features(self, images: np.ndarray) -> np.ndarray:
        """As `features`, before the head has centred them or brought them to length 1."""
        return self._applied(self._fast_unmoved_features, images)

    def outputs_of_features(self, features: np.ndarray) -> np.ndarray:
        """What the network gives for images whose `unmoved_features` are known: (n, outputs)."""
        import keras

        from keras_cnn.models import heads

        rest = keras.Model(heads.unmoved_features(self.network), self.network.output)
        made = rest.predict(features, batch_size=batch_size.of(features.shape), verbose=0)
        return np.asarray(made, np.float32)

    def ending(self, outputs: np.ndarray) -> Ending:
        """What makes probabilities of outputs (n, outputs), by its last layer and their values."""
        ends_in = _last_activation(self.network)
        numbers = outputs[np.isfinite(outputs).all(axis=1)].astype(np.float64)
        are_shares = ((numbers >= 0) & (numbers <= 1)).all()
        if outputs.shape[1] < len(self.class_names):
            return "rest" if are_shares and ends_in != "linear" else "sigmoid"
        add_up = np.allclose(numbers.sum(axis=1), 1, atol=1e-3)
        return "none" if are_shares and (add_up or ends_in in ("softmax", "sigmoid")) else "softmax"

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Outputs (n, outputs), which may be logits, as probabilities (n, classes)."""
        ending = self.ending(outputs)
        if ending == "none":
            return outputs
        if ending == "softmax":
            powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
            return powers / powers.sum(axis=1, keepdims=True)
        if ending == "sigmoid":
            outputs = 0.5 + 0.5 * np.tanh(0.5 * outputs)
        return np.concatenate([1 - outputs, outputs], axis=1)

    @cached_property
    def _fast(self) -> keras.Model:
        # A class of the user's own may do in `call` what its graph does not tell.
        is_plain = type(self.network).__module__.startswith("keras.")
        return torch_fast.fast(self.network) if is_plain else self.network

    @cached_property
    def _fast_features(self) -> keras.Model:
        import keras

        from keras_cnn.models import heads

        try:
            features = heads.features(self.network)
            network = keras.Model(self.network.input, features)
        except (AttributeError, IndexError, ValueError) as error:
            raise UserError(
                f"{self.path}: has no features: what its last layer with weights is given cannot "
                f"be told ({saved.first_line(error)})"
            ) from None
        if len(features.shape) != 2:
            raise UserError(
                f"{self.path}: has no features: its last layer with weights is given "
                f"{features.shape}, not (n, channels)"
            )
        return torch_fast.fast(network)

    @cached_property
    def _fast_unmoved_features(self) -> keras.Model:
        import keras

        from keras_cnn.models import heads

        features = heads.unmoved_features(self.network)
        return torch_fast.fast(keras.Model(self.network.input, features))

    def _applied(self, network: keras.Model, images: np.ndarray) -> np.ndarray:
        import keras

        given = grey(images) if self.is_grey else images
        try:
            with warnings.catch_warnings(action="ignore"):  # of a single input in a dict
                made = network.predict(given, batch_size=batch_size.of(given.shape), verbose=0)
        except saved.faults() as error:
            raise UserError(f"{self.path}: cannot be applied ({saved.first_line(error)})") from None
        return np.asarray(keras.tree.flatten(made)[0], np.float32)


def opened(path: Path) -> Classifier:
    """A model's file, found fit to classify images.

    Raises:
        UserError: It is not.
    """
    network, card = saved.load(path)
    ends = [getattr(network, name, None) for name in ("inputs", "outputs")]
    if None in ends:
        raise UserError(f"{path}: has not been built: call the model on images, and save it again")
    inputs, outputs = ([tuple(tensor.shape) for tensor in tensors] for tensors in ends)
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(
            f"{path}: takes {len(inputs)} inputs and gives {len(outputs)} outputs, not an image "
            "and its probabilities"
        )
    image, output = inputs[0], outputs[0]
    if len(image) == 4 and image[1:3] == (None, None) and isinstance(card.get("image_size"), int):
        image = (None, card["image_size"], card["image_size"], image[3])
    if len(image) != 4 or image[1] != image[2] or image[3] not in (1, 3) or (image[1] or 0) < 1:
        shape = str(image).replace("None", "n", 1).replace("None", "any")
        raise UserError(f"{path}: takes {shape}, not square images (n, size, size, 3 or 1)")
    if image[1] > LARGEST_IMAGE:
        raise UserError(
            f"{path}: takes images of {image[1]:,} pixels, at most {LARGEST_IMAGE:,} do"
        )
    if len(output) != 2 or not output[1]:
        shape = str(output).replace("None", "n", 1).replace("None", "any")
        raise UserError(f"{path}: gives {shape}, not probabilities (n, classes)")
    is_yes_or_no = output[1] == 1 and _last_activation(network) != "softmax"
    names = _class_names(path, 2 if is_yes_or_no else output[1], card)
    from keras_cnn.teach import trust

    return Classifier(
        path,
        network,
        card,
        image[1],
        _fit(path, card),
        image[3] == 1,
        names,
        trust.read(path, card),
    )


def _class_names(path: Path, count: int, card: dict[str, object]) -> list[str]:
    names = card.get("class_names") or [f"class {label}" for label in range(count)]
    if len(names) != count:
        raise UserError(f"{path}: tells {count} classes apart, its card names {len(names)}")
    return names


def _fit(path: Path, card: dict[str, object]) -> Fit:
    """What the card says; those of older models, and models of others, say nothing."""
    said = card.get("fit", "crop")
    if said not in FITS:
        raise UserError(f"{path}: its card has a fit {said!r}, not {', '.join(FITS)}")
    return said


def _last_activation(network: keras.Model) -> str:
    """Name of the function that a network ends in; empty where its last layer has none."""
    import keras

    last = network.layers[-1]
    while isinstance(last, keras.Model):
        last = last.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(last, "activation", None), "__name__", "")


def grey(images: np.ndarray) -> np.ndarray:
    """RGB (n, h, w, 3) in grey (n, h, w, 1), as Pillow weighs the colours; uint8."""
    weighed = images.astype(np.uint32) @ np.array([19595, 38470, 7471], np.uint32)
    return ((weighed + 0x8000) >> 16).astype(np.uint8)[..., None]
