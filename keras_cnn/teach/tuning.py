"""Fine-tuning of a backbone's last stage, begun with the linear probe of its features.

A head drawn at random would pull the stage about before it knows anything (Kumar et al. 2022,
arXiv:2202.10054). What lies before the stage never changes: what it makes of the images is computed
once, for all folds and epochs. BatchNorm keeps its statistics, which few images tell badly.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn import models
from keras_cnn.data import Split
from keras_cnn.home import scratch
from keras_cnn.methods import linear_probe, supervised
from keras_cnn.methods.settings import LinearProbe, Supervised
from keras_cnn.results.identity import version
from keras_cnn.teach import backbones
from keras_cnn.teach.backbones import Backbone
from keras_cnn.teach.folds import Learner
from keras_cnn.training import evaluation, features_cache, frozen
from keras_cnn.training.history import History

if TYPE_CHECKING:
    import keras

VERSION = 1  # raised when a change makes the same settings give another result
EPOCHS = 5
SETTINGS = Supervised(
    epochs=EPOCHS, batch_size=32, learning_rate=3e-4, schedule="cosine", schedule_epochs=EPOCHS
)
START = LinearProbe(regularization_strength=30.0)  # the head that it begins with
TIMED = 64  # images on which its speed is measured


@dataclass(frozen=True)
class Material:
    """What fine-tuning begins with.

    Attributes:
        backbone: Whose last stage trains.
        maps: What the stages before make of all training images, (n, h, w, channels).
        features: What the whole backbone makes of them, (n, channels).
        labels: (n,).
        seed: Seeds the order of the images.
    """

    backbone: Backbone
    maps: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    seed: int

    def learner(self, settings: Supervised) -> Learner:
        """Fine-tunes on some of the images, and classifies others."""

        def learn(training: np.ndarray, held_out: np.ndarray) -> np.ndarray:
            rest = self._rest(self.tuned(settings, training))
            return evaluation.outputs(rest, self.maps[held_out])

        return learn

    def tuned(self, settings: Supervised, training: np.ndarray) -> keras.Model:
        """The backbone with a head, fine-tuned on some of the images, from images to logits.

        What it has learnt is kept on disk, and read where the same was learnt before.
        """
        network = self._begun(training)
        learnt = [variable.shape for variable in network.trainable_variables]

        def learn() -> np.ndarray:
            self._learn(network, settings, training)
            return _joined(network.trainable_variables)

        path = scratch() / "tuned" / f"{self._key(network, settings, training)}.npy"
        parts = np.split(features_cache.kept(path, learn), np.cumsum(list(map(math.prod, learnt))))
        for variable, shape, part in zip(network.trainable_variables, learnt, parts, strict=False):
            variable.assign(part.reshape(shape))
        return network

    def _begun(self, training: np.ndarray) -> keras.Model:
        """The backbone with the linear probe of some of the images for its head."""
        from keras_cnn.models import heads

        classes, counted = np.unique(self.labels[training], return_inverse=True)
        network = _network(self.backbone, len(classes))
        if len(classes) > 1:
            head = linear_probe.fit(self.features[training], counted, START.regularization_strength)
            heads.head_layer(network).set_weights([head.kernel, head.bias])
        return network

    def _learn(self, network: keras.Model, settings: Supervised, training: np.ndarray) -> None:
        classes, counted = np.unique(self.labels[training], return_inverse=True)
        if len(classes) == 1:
            return
        images = Split(self.maps[training], counted)
        few = Split(images.images[:1], counted[:1])  # no image that is held out has a say
        loop = supervised.Loop(1, ["accuracy"], History(lambda record: None))
        supervised.learn(self._rest(network), images, few, settings, self.seed, None, loop)

    def _key(self, network: keras.Model, settings: Supervised, training: np.ndarray) -> str:
        """Of all that decides what a network learns; its features stand for the images."""
        code = {name: version(name) for name in (*settings.code(), __name__)}
        facts = [features_cache.computing(), code, settings.model_dump(), self.seed]
        digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16)
        for part in (self.features, self.labels, training, _joined(network.trainable_variables)):
            digest.update(np.ascontiguousarray(part))
        return digest.hexdigest()

    def logits(self, network: keras.Model) -> np.ndarray:
        """What a fine-tuned network makes of all training images, (n, classes)."""
        return evaluation.outputs(self._rest(network), self.maps)

    def seconds_an_image(self, settings: Supervised) -> float:
        """How long an image takes for an epoch here."""
        few = np.random.default_rng(0).permutation(len(self.labels))[:TIMED]
        took = []
        for epochs in (1, 1, 4):  # the first one warms up
            began = time.perf_counter()
            longer = settings.model_copy(update={"epochs": epochs})
            self._learn(self._begun(few), longer, few)
            took.append(time.perf_counter() - began)
        return max(took[2] - took[1], 0.0) / (3 * len(few))

    def _rest(self, network: keras.Model) -> keras.Model:
        import keras

        from keras_cnn.models.freeze import constant_part

        _, maps = constant_part(network)
        return keras.Model(maps, network.output, name="tuned")


def material(
    backbone: Backbone, images: np.ndarray, features: np.ndarray, labels: np.ndarray, seed: int
) -> Material:
    """Computes what fine-tuning begins with; the arguments are those of `Material`, and images."""
    from keras_cnn.models.freeze import constant_part

    part, _ = constant_part(_network(backbone, 2))
    blocks = range(0, len(images), backbones.BLOCK)
    maps = [frozen.features_of(part, images[at : at + backbones.BLOCK]) for at in blocks]
    return Material(backbone, np.concatenate(maps), features, labels, seed)


def _joined(variables: Sequence[keras.Variable]) -> np.ndarray:
    """All their numbers, float32 (n,)."""
    import keras

    return np.concatenate([keras.ops.convert_to_numpy(one).ravel() for one in variables])


def _network(backbone: Backbone, class_count: int) -> keras.Model:
    import keras

    network = models.classifier(
        backbone.name, class_count, backbone.image_size, backbone.weights, unfrozen_stages=1
    )
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
    return network
