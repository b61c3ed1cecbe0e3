"""Pretraining: crops, the schedule's ends, going on after a kill, and what it hands over."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import keras
import method_runs
import numpy as np
import pytest
from scipy import stats

from keras_cnn import data, models, recipe
from keras_cnn.data import crops
from keras_cnn.methods import pretrain
from keras_cnn.methods.settings import Pretrain
from keras_cnn.models import saved
from keras_cnn.recipe import resolve
from keras_cnn.results import identity
from keras_cnn.runs import study, worker
from keras_cnn.training import checkpoint

GENERATOR = np.random.default_rng(0)
IMAGES = GENERATOR.integers(0, 256, (5, 24, 24, 3)).astype("uint8")


def weights(start, length, size, side):
    """Bilinear weights (size, side) of each pixel's neighbours, as wide as its part of the box."""
    scale = length / size
    centres = start + (np.arange(size) + 0.5) * scale
    distances = np.abs(np.arange(side) + 0.5 - centres[:, None]) / max(scale, 1)
    triangle = np.clip(1 - distances, 0, None)
    return triangle / triangle.sum(axis=1, keepdims=True)


def test_a_box_is_resized_as_its_weights_say():
    tops, lefts = GENERATOR.uniform(0, 6, (2, 5))
    heights, widths = GENERATOR.uniform(8, 18, (2, 5))
    flipped = np.array([False, True, False, True, True])
    found = crops.resized(IMAGES, tops, lefts, heights, widths, flipped, 12)
    for index in range(5):
        rows = weights(tops[index], heights[index], 12, 24)
        columns = weights(lefts[index], widths[index], 12, 24)
        expected = np.einsum("ir,rcd,jc->ijd", rows, IMAGES[index].astype(float), columns)
        expected = expected[:, ::-1] if flipped[index] else expected
        np.testing.assert_allclose(found[index], expected, atol=1.01)  # rounded twice


def test_crops_keep_to_the_shares_and_ratios_they_promise(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        crops,
        "resized",
        lambda images, tops, lefts, heights, widths, flipped, size: seen.update(
            tops=tops, lefts=lefts, heights=heights, widths=widths, flipped=flipped
        ),
    )
    many = np.broadcast_to(IMAGES[:1], (4000, 24, 24, 3))
    crops.random_resized_crops(many, 12, 0.25, np.random.default_rng(1))
    heights, widths = seen["heights"], seen["widths"]
    area = heights * widths / 24**2
    assert 0.25 <= area.min() < 0.27 and area.max() <= 1 + 1e-9
    small = area[area < 0.5]  # of these no side is longer than the image's, whatever the ratio
    assert stats.kstest(small, stats.uniform(0.25, 0.25).cdf).pvalue > 0.01
    assert len(small) == pytest.approx(4000 / 3, rel=0.07)
    ratio = widths / heights
    assert 0.74 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.34
    assert (seen["tops"] + heights).max() <= 24 + 1e-9 and seen["tops"].min() >= 0
    assert (seen["lefts"] + widths).max() <= 24 + 1e-9 and seen["lefts"].min() >= 0
    assert seen["flipped"].mean() == pytest.approx(0.5, abs=0.03)


SMALL = {"batch_size": 20, "epochs": 3, "warm_up_epochs": 1.0, "average_decay": 0.8}


def splits():
    """Training images of 24 pixels, to be cropped to 16, and test images of these."""
    train, test = (data.load("synthetic:120", size).splits for size in (24, 16))
    return train["train"], test["test"]


def trained(report=None, network=None, **settings):
    network = network or models.classifier("enhanced", 10, 16, hidden_units=4, seed=213)
    return pretrain.train(network, *splits(), report=report, **SMALL | settings)


def small_network(image_size, seed):
    """A convolution and BatchNorm: with dropout, all kinds of state that a checkpoint holds."""
    inputs = keras.Input((image_size, image_size, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


class Killed(Exception):
    pass


@pytest.mark.every_backend
def test_a_killed_run_goes_on_to_the_same_result(tmp_path):

    def again_trained(report=None, **settings):  # dropout's seeds go on, too
        name = f"{__name__}.small_network"
        network = models.classifier(name, 10, 16, dropout=0.5, seed=213)
        return trained(report, network, **settings)

    whole = again_trained()
    assert [record["epoch"] for record in whole.history] == [1, 2, 3]
    state = tmp_path / "state.h5"

    def killed_in_the_third(record):
        if record["epoch"] == 3:
            raise Killed

    with pytest.raises(Killed):
        again_trained(killed_in_the_third, checkpoint=state)
    assert state.is_file()
    again = []
    gone_on = again_trained(again.append, checkpoint=str(state))
    ahead = {"epochs": 3, "images": 120}
    assert again == [record | ahead for record in gone_on.history]
    for one, other in zip(whole.history, gone_on.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    np.testing.assert_array_equal(gone_on.probabilities, whole.probabilities)
    finished = again_trained(checkpoint=state)  # with nothing left to do
    np.testing.assert_array_equal(finished.probabilities, whole.probabilities)

    _, test = splits()
    accuracy = (whole.probabilities.argmax(axis=1) == test.labels).mean()
    last = whole.history[-1]
    assert last["test_accuracy"] == pytest.approx(accuracy, abs=1e-6)  # that of the average
    method_runs.assert_saved_whole(whole, test.images, tmp_path)


def test_it_learns_and_the_rate_rises_and_falls_to_zero():
    result = trained(epochs=8, learning_rate=0.01, smallest_crop=0.8, cutmix_share=0.0)
    rates = [record["learning_rate"] for record in result.history]
    assert max(rates) == pytest.approx(0.01, rel=0.05) and rates.index(max(rates)) <= 1
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert result.history[-1]["test_accuracy"] > 0.3  # chance is 0.1


def test_cutmix_changes_a_share_of_images_and_splits_their_labels():
    large = data.load("synthetic:600", 24).splits["train"]
    plain, changed = (
        pretrain._changed(large, Pretrain(cutmix_share=share), 16, 10, seed=213, epoch=2)
        for share in (0.0, 0.4)
    )
    np.testing.assert_allclose(changed.labels.sum(axis=1), 1, atol=1e-6)
    same = (changed.images == plain.images).all(axis=(1, 2, 3))
    assert same.mean() == pytest.approx(0.6, abs=0.1)
    np.testing.assert_array_equal(changed.labels[same], plain.labels[same])
    own = changed.labels[np.arange(len(large.labels)), large.labels]
    # A box's sides are sqrt(u) of the image's, u uniform; what is left of one inside the image is
    # sqrt(u) - u / 4 on average, of the area 0.5 - 0.2 + 1 / 48; nine in ten are another class's.
    assert own[~same].mean() == pytest.approx(0.01 + 0.9 * (1 - 0.9 * 0.3208), abs=0.04)
    assert plain.labels[0].max() == pytest.approx(0.91)  # 0.9, and a tenth of 0.1


@pytest.mark.parametrize(("minutes", "epochs"), [(1e-6, 1), (0.5, 3), (0.66, 3), (0.67, 4)])
def test_minutes_decide_how_many_epochs_there_are(monkeypatch, minutes, epochs):
    # All steps of an epoch are tried, 8 s; drawing its images and a test pass take 2 s.
    clock = iter([0.0, 8.0, 100.0, 102.0])
    monkeypatch.setattr(pretrain, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert len(trained(minutes=minutes).history) == epochs
    assert next(clock, None) is None


def test_an_epochs_seconds_have_the_drawing_of_its_images_in_them(monkeypatch):
    changed = pretrain._changed

    def slowly(*arguments):
        time.sleep(0.3)
        return changed(*arguments)

    monkeypatch.setattr(pretrain, "_changed", slowly)
    records = trained().history
    assert all(record["seconds"] > 0.3 for record in records[1:])


@pytest.fixture
def run_and_folder(monkeypatch, tmp_path):
    """A run, its folder, and a home of its own, where its checkpoint goes."""
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path / "home"))
    overrides = {"data": "synthetic:120", "image_size": 16, "crop_from": 24, **SMALL}
    overrides |= {"model": "enhanced", "hidden_units": 4, "stochastic_depth": 0.0}
    (run,) = resolve.runs(recipe.read("pretrain"), "mini", ["convnext_atto"], overrides=overrides)
    return run, identity.run_folder(run, tmp_path)


def killed_after(epochs):
    def report(record):
        if record["epoch"] > epochs:
            raise Killed

    return report


def test_a_checkpoint_goes_when_the_result_is_on_disk_and_not_before(run_and_folder, monkeypatch):
    run, folder = run_and_folder

    def full(*arguments):
        raise OSError("no space left")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr(saved, "save", full)
        worker.make(run, folder, lambda record: None)
    assert identity.checkpoint_file(run.spec).is_file()
    worker.make(run, folder, lambda record: None)
    assert not identity.checkpoint_file(run.spec).exists()


def test_a_fresh_run_begins_anew(run_and_folder):
    run, folder = run_and_folder
    with pytest.raises(Killed):
        worker.make(run, folder, killed_after(1))
    for fresh in (False, True):
        with pytest.raises(Killed):
            worker.make(run, folder, killed_after(0), fresh)
        assert identity.checkpoint_file(run.spec).exists() != fresh


@pytest.mark.parametrize("damage", ["half", "flipped", "empty"])
def test_a_damaged_checkpoint_is_as_none(damage, tmp_path, caplog):
    path = tmp_path / "some.h5"
    trained(epochs=1, checkpoint=path)
    assert checkpoint.Checkpoint(path).planned_epochs() == 1 and not caplog.messages
    content = bytearray(path.read_bytes())
    for position in range(0, len(content), len(content) // 20) if damage == "flipped" else [0]:
        changed = {"half": content[: len(content) // 2], "empty": b""}.get(damage, content.copy())
        if damage == "flipped":
            changed[position] ^= 1
        path.write_bytes(changed)
        caplog.clear()
        assert checkpoint.Checkpoint(path).planned_epochs() is None
        assert caplog.messages == [f"{path} is damaged: training begins anew"]


def test_a_checkpoint_is_read_without_a_lock(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    path = tmp_path / "state.h5"
    trained(epochs=1, checkpoint=path)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # what HDF5 by itself would not open
        assert checkpoint.Checkpoint(path).planned_epochs() == 1


def test_a_checkpoint_of_ones_own_touches_nothing_beside_it(tmp_path):
    old = tmp_path / "old.h5"
    old.write_bytes(b"mine")
    os.utime(old, (0, 0))
    trained(epochs=1, checkpoint=tmp_path / "state.h5")
    assert {path.name for path in tmp_path.iterdir()} == {"old.h5", "state.h5"}


def test_a_checkpoint_goes_with_its_result_or_after_a_month(run_and_folder):
    """Also where a kill came between the result and the removal."""
    run, folder = run_and_folder
    state = identity.checkpoint_file(run.spec)
    forgotten, recent = (state.with_name(f"{name}.h5") for name in ("forgotten", "recent"))
    for path in (state, forgotten, recent):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    os.utime(forgotten, (time.time() - 31 * 24 * 3600,) * 2)
    worker.make(run, folder, lambda record: None)
    assert [path.name for path in state.parent.iterdir()] == ["recent.h5"]
    state.write_bytes(b"")
    settings = run.spec.settings
    overrides = {name: settings[name] for name in ("data", "image_size", "crop_from", *SMALL)}
    overrides |= {"model": "enhanced", "hidden_units": 4, "stochastic_depth": 0.0}
    out = folder.parents[1]
    plan = study.plan("pretrain", rows=["convnext_atto"], overrides=overrides, out=out)
    assert not study.prepare(plan).missing
    assert not state.exists() and recent.exists()
