"""That what is timed against each other computes the same; how fast it is, no test says."""

from __future__ import annotations

import importlib.util

import keras
import numpy as np
import pytest

from keras_cnn import models
from keras_cnn.bench import episodes, finetuning, serving

if keras.backend.backend() != "torch":
    pytest.skip("peers are in plain torch", allow_module_level=True)

NETWORKS = ["convnext_atto", "resnet18", "efficientnet_lite0"]


def skip_where_missing(network):
    if network not in models.NETWORKS:
        pytest.skip(f"there is no {network}")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("keeps_features", [True, False])
def test_fine_tuning_has_the_losses_of_a_plain_loop_before_and_after_a_step(
    network, keeps_features
):
    skip_where_missing(network)
    # All images are one batch, in whatever order: the second epoch is after one step of Adam.
    job = finetuning.Job(network, images=8, epochs=2, batch_size=8)
    expected = finetuning.torch_loop(job, keeps_features, channels_last=keeps_features)()
    assert finetuning.ours(job)() == pytest.approx(expected, rel=2e-4)
    assert abs(expected[0] - expected[1]) > 1e-3  # the step was one


@pytest.mark.parametrize("channels_last", [True, False])
def test_episodes_have_the_losses_that_easyfsl_would(channels_last):
    job = episodes.Job("convnext_atto", count=2, way=3, support=2, query=3)
    ours, peer = episodes.our_episodes(job), episodes.easyfsl_episodes(job, channels_last)
    # The second turn's are after two steps, on other episodes.
    assert [ours(), ours()] == pytest.approx([peer(), peer()], rel=2e-3)


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("peer", [episodes.functional_tasks, episodes.higher_tasks])
def test_tasks_have_the_losses_of_plain_loops_before_and_after_a_step(peer, second_order):
    job = episodes.Job("fewshot_cnn", count=1, way=3, support=2, query=2)
    ours, other = episodes.our_tasks(job, second_order), peer(job, second_order)
    found, expected = [ours(), ours()], [other(), other()]
    assert found == pytest.approx(expected, rel=1e-4)
    assert abs(found[0] - found[1]) > 1e-4


def test_first_and_second_order_differ():
    job = episodes.Job("fewshot_cnn", count=1, way=3, support=2, query=2)
    first, second = (episodes.functional_tasks(job, order) for order in (False, True))
    assert first() == pytest.approx(second())
    assert first() != pytest.approx(second(), rel=1e-7)


@pytest.fixture(scope="module")
def served():
    """A few files of the network's own size, which nobody has to scale, and what we say of them."""
    job = serving.Job(images=5, size=32, width=32, height=32)
    return job, serving.predicting_ours(job)()


@pytest.mark.parametrize("channels_last", [True, False])
def test_predictions_are_those_of_plain_torch(served, channels_last):
    job, ours = served
    peer = serving.predicting_in_torch(job, channels_last)()
    np.testing.assert_allclose(ours, peer, atol=1e-5)
    assert np.ptp(ours, axis=0).max() > 1e-4  # images differ


@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="no onnxruntime")
def test_predictions_are_those_of_onnxruntime(served):
    job, ours = served
    np.testing.assert_allclose(ours, serving.predicting_in_onnxruntime(job)(), atol=1e-5)


@pytest.mark.parametrize(("width", "height"), [(48, 32), (60, 48)])
def test_both_decoders_read_the_same_images(width, height):
    from keras_cnn.data import decode

    size = 32 if height == 32 else 24  # scaled or not, the two cut out the same square
    job = serving.Job(images=3, size=size, width=width, height=height)
    paths = serving._written(job)
    (ours,) = decode.batches(paths, size)
    (peer,) = serving._loader(paths, size)
    difference = np.abs(ours.images - 255 * peer.permute(0, 2, 3, 1).numpy())
    assert difference.mean() < 0.5 and ours.images.std() > 30
    assert serving.decoding_ours(job)() == serving.decoding_in_loader(job)() == 3
