"""Pretraining: crops, the schedule's ends, going on after a kill, and what it hands over."""

from __future__ import annotations

import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from scipy import stats

from keras_cnn import data, environment, recipe
from keras_cnn.data import crops
from keras_cnn.methods import pretrain
from keras_cnn.models import saved
from keras_cnn.recipe import resolve
from keras_cnn.results import store
from keras_cnn.runs.worker import run_one
from keras_cnn.training import checkpoint

NAMES = [str(digit) for digit in range(10)]
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


def specified(**settings):
    overrides = {
        "data": "synthetic:120",
        "model": "enhanced",
        "hidden_units": 4,
        "stochastic_depth": 0.0,
        "image_size": 16,
        "crop_from": 24,
        "batch_size": 20,
        "epochs": 3,
        "warm_up_epochs": 1.0,
        "average_decay": 0.8,
    }
    plan = recipe.read("pretrain")
    backend = keras.backend.backend()
    overrides |= settings
    return resolve.runs(plan, "mini", ["convnext_atto"], overrides=overrides, backend=backend)[0]


def trained(run, report=lambda record: None):
    loaded = data.load(run.data.data, run.data.image_size).splits
    environment.seed_everything(run.training_seed)
    return pretrain.train(run, loaded["train"], loaded["test"], NAMES, report)


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path))
    return tmp_path


class Killed(Exception):
    pass


@pytest.mark.every_backend
def test_a_killed_run_goes_on_to_the_same_result(home, tmp_path):
    run = specified(dropout=0.5)  # whose seeds go on, too
    whole = trained(run)
    assert [record["epoch"] for record in whole.history] == [1, 2, 3]
    store.checkpoint_file(run).unlink()

    def killed_in_the_third(record):
        if record["epoch"] == 3:
            raise Killed

    with pytest.raises(Killed):
        trained(run, killed_in_the_third)
    assert len(list((home / "checkpoints").glob("*.h5"))) == 1
    again = []
    gone_on = trained(run, again.append)
    ahead = {"epochs": 3, "images": 120}
    assert again == [record | ahead for record in gone_on.history]
    for one, other in zip(whole.history, gone_on.history, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    np.testing.assert_array_equal(gone_on.probabilities, whole.probabilities)

    last = whole.history[-1]
    labels = data.load(run.data.data, 16).splits["test"].labels
    hits = whole.probabilities.argmax(axis=1) == labels
    assert last["test_accuracy"] == pytest.approx(hits.mean(), abs=1e-6)  # that of the average
    saved.save(whole.model, tmp_path / "model.keras", {})
    loaded, _ = saved.load(tmp_path / "model.keras")
    images = data.load(run.data.data, 16).splits["test"].images
    again = loaded.predict(images, verbose=0)
    np.testing.assert_allclose(again, whole.probabilities, atol=1e-5)


def test_it_learns_and_the_rate_rises_and_falls_to_zero(home):
    outcome = trained(specified(epochs=8, learning_rate=0.01, smallest_crop=0.8, cutmix_share=0.0))
    rates = [record["learning_rate"] for record in outcome.history]
    assert max(rates) == pytest.approx(0.01, rel=0.05) and rates.index(max(rates)) <= 1
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert outcome.history[-1]["test_accuracy"] > 0.3  # chance is 0.1


def test_cutmix_changes_a_share_of_images_and_splits_their_labels():
    run, classes = specified(cutmix_share=0.4, label_smoothing=0.1), 10
    large = data.load("synthetic:600", 24).splits["train"]
    plain = pretrain._changed(specified(cutmix_share=0.0), large, classes, epoch=2)
    changed = pretrain._changed(run, large, classes, epoch=2)
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
def test_minutes_decide_how_many_epochs_there_are(home, monkeypatch, minutes, epochs):
    # All steps of an epoch are tried, 8 s; drawing its images and a test pass take 2 s.
    clock = iter([0.0, 8.0, 100.0, 102.0])
    monkeypatch.setattr(pretrain, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert len(trained(specified(minutes=minutes)).history) == epochs
    assert next(clock, None) is None


def test_an_epochs_seconds_have_the_drawing_of_its_images_in_them(home, monkeypatch):
    changed = pretrain._changed

    def slowly(*arguments):
        time.sleep(0.3)
        return changed(*arguments)

    monkeypatch.setattr(pretrain, "_changed", slowly)
    records = trained(specified()).history
    assert all(record["seconds"] > 0.3 for record in records[1:])


def test_a_checkpoint_goes_when_the_result_is_on_disk_and_not_before(home, tmp_path, monkeypatch):
    spec = specified(epochs=1)

    def full(*arguments):
        raise OSError("no space left")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="no space"):
        patched.setattr(saved, "save", full)
        run_one(spec, store.run_folder(spec, tmp_path), lambda record: None)
    assert len(list((home / "checkpoints").glob("*.h5"))) == 1
    run_one(spec, store.run_folder(spec, tmp_path), lambda record: None)
    assert not list((home / "checkpoints").glob("*"))


def test_a_fresh_run_begins_anew(home, tmp_path):
    spec = specified()

    def killed_after(epochs):
        def report(record):
            if record["epoch"] > epochs:
                raise Killed

        return report

    with pytest.raises(Killed):
        trained(spec, killed_after(1))
    folder = store.run_folder(spec, tmp_path)
    for fresh, checkpoints in ((False, 1), (True, 0)):
        with pytest.raises(Killed):
            run_one(spec, folder, killed_after(0), fresh)
        assert len(list((home / "checkpoints").glob("*.h5"))) == checkpoints


def test_a_damaged_checkpoint_is_as_none(tmp_path):
    path = tmp_path / "some.h5"
    path.write_bytes(b"half a file")
    assert checkpoint.Checkpoint(path).planned_epochs() is None
