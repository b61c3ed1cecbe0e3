"""Each image of a batch against all others (supervised contrastive learning, Khosla et al. 2020).

arXiv:2004.11362, its L_out. With embeddings z of length 1, temperature t and, for image i, P(i) the
other images of its class in the batch:

    loss_i = - mean over p in P(i) of log(exp(z_i z_p / t) / sum over a != i of exp(z_i z_a / t))
"""

from __future__ import annotations

import numpy as np
from keras import ops

from keras_cnn.data.sampling import Draw

VERSION = 1  # raised when a change makes the same settings give another result


def batches(labels: np.ndarray, batch_size: int, seed: list[int]) -> list[Draw]:
    """Cuts all images, shuffled, into what a step takes.

    Args:
        labels: (n,).
        batch_size: Images of a batch; the last one has what is left.
        seed: Of the order.

    Returns:
        For each batch the images' indices and their labels int64.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    cuts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [(cut, labels[cut].astype(np.int64)) for cut in cuts]


def loss(labels: object, embeddings: object, temperature: float) -> object:
    """The loss of each image; 0 where no other of its class is in the batch.

    Args:
        labels: (images,).
        embeddings: (images, channels), of length 1.
        temperature: What cosines are divided by.

    Returns:
        (images,).
    """
    labels = ops.reshape(labels, (-1,))
    itself = ops.eye(ops.shape(embeddings)[0])
    cosines = ops.matmul(embeddings, ops.transpose(embeddings))
    logits = cosines / temperature - 1e9 * itself  # no image is compared with itself
    log_shares = logits - ops.logsumexp(logits, axis=1, keepdims=True)
    alike = ops.cast(ops.equal(ops.expand_dims(labels, 1), labels), "float32") - itself
    return -ops.sum(alike * log_shares, axis=1) / ops.maximum(ops.sum(alike, axis=1), 1.0)
