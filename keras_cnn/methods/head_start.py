"""What the head begins with in each of MAML's inner loops.

A task draws its labels anew, so that no output of the head is any class's before the inner loop:

- `alike`: all outputs are the mean of those learned (UNICORN-MAML, Ye and Chao 2022,
  arXiv:2106.16245);
- `prototypes`: output k begins as what tells class k by its prototype c_k, the mean of its support
  features (Proto-MAML, Triantafillou et al. 2020, arXiv:1903.03096): of a dense head the kernel
  2 c_k and the bias -|c_k|^2, of a cosine head the kernel c_k, features at length 1;
- `learned`: the head is begun with as it was learned (Finn et al. 2017).
"""

from __future__ import annotations

import keras
from keras import ops

from keras_cnn.data import Split
from keras_cnn.errors import UserError
from keras_cnn.models import heads
from keras_cnn.training import evaluation
from keras_cnn.training.gradients import Tensor

VERSION = 1  # raised when a change makes the same settings give another result


def with_embeddings(network: keras.Model) -> keras.Model:
    """The network with a second output: what its head's prototypes are means of.

    Args:
        network: Images to logits.

    Returns:
        Images to logits (n, classes) and features (n, channels), for a cosine head at length 1.
    """
    cosine = isinstance(heads.head_layer(network), heads.CosineLogits)
    embedder = heads.embedder(network, normalised=cosine)
    return keras.Model(network.input, [network.output, embedder.output], name=network.name)


class HeadStart:
    """Makes of a model's weights those that an inner loop begins with.

    Args:
        model: Images or features to logits; weights are in the order of its trainable variables,
            state is in that of the others.
        embedder: What the model's head is given.
        kind: `alike`, `prototypes` or `learned`.
        way: Classes of a task: the first outputs of the head.
        training: Normalise by the statistics of the images at hand.

    Raises:
        UserError: Prototypes cannot be put into the model's head.
    """

    def __init__(
        self, model: keras.Model, embedder: keras.Model, kind: str, way: int, training: bool
    ) -> None:
        self._embedder, self._kind, self._way, self._training = embedder, kind, way, training
        self._class_count = model.output.shape[-1]
        head = heads.head_layer(model)
        of_head = {id(variable) for variable in head.variables}
        self._in_head = [id(variable) in of_head for variable in model.trainable_variables]
        self._keeps = [id(variable) not in of_head for variable in model.non_trainable_variables]
        self._cosine = isinstance(head, heads.CosineLogits)
        if kind == "prototypes" and not (self._cosine or isinstance(head, keras.layers.Dense)):
            raise UserError(
                f"prototypes fit into a dense or a cosine head, not into {type(head).__name__}: "
                "set head_start to alike"
            )

    def of_task(
        self, weights: list[Tensor], state: list[Tensor], images: Tensor, labels: Tensor
    ) -> list[Tensor]:
        """What the inner loop of a task begins with, differentiable by the weights.

        Args:
            weights: Those learned.
            state: Of the variables that do not train.
            images: Of the support, or their features, (n, …).
            labels: (n,) int32, from 0 to `way` - 1.
        """
        if self._kind == "learned":
            return weights
        if self._kind == "alike":
            return self._alike(weights)
        body = [w for w, in_head in zip(weights, self._in_head, strict=True) if not in_head]
        state = [s for s, keeps in zip(state, self._keeps, strict=True) if keeps]
        embeddings, _ = self._embedder.stateless_call(body, state, images, training=self._training)
        members = ops.one_hot(labels, self._class_count, dtype=embeddings.dtype)  # (n, classes)
        counts = ops.maximum(ops.sum(members, axis=0), 1.0)
        means = ops.matmul(ops.transpose(members), embeddings) / ops.expand_dims(counts, 1)
        return self._with_prototypes(weights, means)

    def of_all_classes(self, weights: list[Tensor], train: Split) -> list[Tensor]:
        """What the adaptation to all classes begins with; tasks of fewer have learned no head."""
        if self._kind == "prototypes":
            embeddings = evaluation.outputs(self._embedder, train.images)
            means = heads.class_means(embeddings, train.labels, self._class_count)
            return self._with_prototypes(weights, ops.convert_to_tensor(means))
        if self._kind == "alike" or self._way < self._class_count:
            return self._alike(weights)
        return weights

    def _alike(self, weights: list[Tensor]) -> list[Tensor]:
        """Each output of the head the mean of the first `way`."""
        return [
            # (channels, classes) and (classes,)
            ops.broadcast_to(ops.mean(w[..., : self._way], axis=-1, keepdims=True), w.shape)
            if in_head
            else w
            for w, in_head in zip(weights, self._in_head, strict=True)
        ]

    def _with_prototypes(self, weights: list[Tensor], means: Tensor) -> list[Tensor]:
        """The class means (classes, channels) in the head: its kernel, and a dense one's bias."""
        kernel = ops.transpose(means)
        if not self._cosine:
            kernel = 2 * kernel
        own = iter([kernel, -ops.sum(ops.square(means), axis=1)])
        return [
            next(own) if in_head else w for w, in_head in zip(weights, self._in_head, strict=True)
        ]
