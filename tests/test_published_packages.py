"""The mathematics of the methods against published packages of the same methods, on torch.

pytorch-metric-learning (Musgrave et al. 2020, arXiv:2008.09164) has the contrastive loss and the
distances; higher (Grefenstette et al. 2019, arXiv:1910.01727) differentiates through inner steps.
"""

from __future__ import annotations

import higher
import keras
import numpy as np
import pytest
import torch
from keras import ops
from pytorch_metric_learning import distances, losses, reducers
from sklearn.neighbors import NearestCentroid

from keras_cnn.methods import batch_contrast, maml, prototypical, siamese
from keras_cnn.training import gradients

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="the packages compute with torch"
)
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("margin", [1.0, 2.0])
def test_pairs_lose_what_pytorch_metric_learning_says(margin):
    """Its loss is not halved, and its average of each kind of pair leaves out what loses nothing.

    So pairs are summed. Its margin loss of squared distances has no square after the margin, so the
    far pairs are taken by distance and squared here.
    """
    pairs = 40
    embeddings = RNG.normal(scale=0.5, size=(2 * pairs, 4)).astype("float32")
    together = RNG.random(pairs) < 0.5
    left, right = torch.arange(pairs), torch.arange(pairs, 2 * pairs)
    chosen = torch.tensor(together)
    none = torch.zeros(0, dtype=torch.long)

    def theirs(power, near, far):
        loss = losses.ContrastiveLoss(
            neg_margin=margin,
            distance=distances.LpDistance(normalize_embeddings=False, power=power),
            reducer=reducers.DoNothingReducer(),
        )
        given = (left[near], right[near], left[far], right[far])
        found = loss(torch.tensor(embeddings), indices_tuple=given)
        return [found[name]["losses"] for name in ("pos_loss", "neg_loss")]

    near, _ = theirs(2, chosen, none)
    _, far = theirs(1, none, ~chosen)
    expected = np.empty(pairs, "float32")
    expected[together] = near.numpy() / 2
    expected[~together] = far.numpy() ** 2 / 2
    assert 0 < (expected[~together] == 0).mean() < 1, "some pairs, not all, are far enough apart"

    found = siamese.contrastive_loss(
        ops.convert_to_tensor(together.astype("int32")), ops.convert_to_tensor(embeddings), margin
    )
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-5)


def test_batches_lose_what_pytorch_metric_learning_says():
    labels = np.arange(12) % 4
    embeddings = RNG.normal(size=(12, 6)).astype("float32")
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    theirs = losses.SupConLoss(temperature=0.2, reducer=reducers.MeanReducer())
    found = batch_contrast.loss(*map(ops.convert_to_tensor, (labels, embeddings)), 0.2)
    expected = theirs(torch.tensor(embeddings), torch.tensor(labels))
    assert float(ops.mean(found)) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("distance", "theirs", "sign"),
    [
        ("squared_euclidean", distances.LpDistance(normalize_embeddings=False, power=2), -1),
        ("euclidean", distances.LpDistance(normalize_embeddings=False), -1),
        ("cosine", distances.CosineSimilarity(), 1),
    ],
)
def test_logits_are_the_distances_of_pytorch_metric_learning(distance, theirs, sign):
    """To the centroids that scikit-learn finds."""
    way, shots, queries = 4, 3, 5
    labels = np.concatenate([np.repeat(np.arange(way), shots), np.repeat(np.arange(way), queries)])
    embeddings = RNG.normal(size=(len(labels), 6)).astype("float32")
    support = way * shots
    centroids = NearestCentroid().fit(embeddings[:support], labels[:support]).centroids_
    expected = sign * theirs(torch.tensor(embeddings[support:]), torch.tensor(centroids).float())

    tensors = [ops.convert_to_tensor(array) for array in (labels, embeddings)]
    _, found = prototypical.queries(*tensors, way, shots, distance)
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("second_order", [True, False])
def test_meta_gradients_are_those_of_higher(second_order):
    """A convolutional network in torch, given our weights, adapted by three steps."""
    steps, rate = 3, 0.1
    ours = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, activation="tanh"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4),
        ]
    )
    for variable in ours.trainable_variables:
        variable.assign(RNG.normal(0, 0.5, variable.shape))
    kernel, bias, weight, offset = (torch.tensor(np.array(w)) for w in ours.get_weights())

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.head = torch.nn.Conv2d(2, 3, 3), torch.nn.Linear(3, 4)

        def forward(self, images):  # (n, h, w, 2)
            maps = torch.tanh(self.convolution(images.permute(0, 3, 1, 2)))  # (n, 3, 4, 4)
            return self.head(maps.mean((2, 3)))

    net = Net()
    with torch.no_grad():
        net.convolution.weight.copy_(kernel.permute(3, 2, 0, 1))  # HWIO to OIHW
        net.convolution.bias.copy_(bias)
        net.head.weight.copy_(weight.T)
        net.head.bias.copy_(offset)

    images = {n: torch.tensor(RNG.normal(size=(n, 6, 6, 2)).astype("float32")) for n in (8, 12)}
    labels = {n: torch.arange(n) % 4 for n in images}

    optimizer = torch.optim.SGD(net.parameters(), lr=rate)
    with higher.innerloop_ctx(net, optimizer, track_higher_grads=second_order) as (copy, inner):
        for _ in range(steps):
            inner.step(torch.nn.functional.cross_entropy(copy(images[8]), labels[8]))
        value = torch.nn.functional.cross_entropy(copy(images[12]), labels[12])
        wanted = copy.parameters(time=0 if second_order else -1)
        theirs = [g.detach().numpy() for g in torch.autograd.grad(value, list(wanted))]

    state = gradients.tensors(ours.non_trainable_variables)

    def loss_of(n):
        def loss(weights):
            logits, _ = ours.stateless_call(weights, state, images[n], training=True)
            return torch.nn.functional.cross_entropy(logits, labels[n]), logits

        return loss

    weights = gradients.tensors(ours.trainable_variables)
    found = maml.meta_gradients(loss_of(8), loss_of(12), weights, steps, rate, second_order)
    assert float(found[0]) == pytest.approx(value.item(), rel=1e-5)
    mine = [np.array(ops.convert_to_numpy(gradient)) for gradient in found[2]]
    for gradient, their, axes in zip(mine, theirs, [(3, 2, 0, 1), (0,), (1, 0), (0,)], strict=True):
        np.testing.assert_allclose(gradient.transpose(axes), their, atol=1e-5)
        assert np.abs(their).max() > 1e-3
