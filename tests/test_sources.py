"""Named sources: digits, synthetic, and how names are looked up."""

from __future__ import annotations

import socket
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_cnn import data
from keras_cnn.data import sources
from keras_cnn.errors import UserError


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_digits_are_100_a_class_and_the_rest(no_network):
    dataset = data.load("digits")
    train, test = dataset.splits["train"], dataset.splits["test"]
    assert dataset.class_names == tuple("0123456789")
    assert np.bincount(train.labels).tolist() == [100] * 10
    assert train.images.shape == (1000, 32, 32, 3)
    assert test.images.shape == (797, 32, 32, 3)
    of_each = np.bincount(np.concatenate([train.labels, test.labels]))
    assert of_each.tolist() == np.bincount(load_digits().target).tolist()


def test_digits_are_scikit_learns_each_once(no_network):
    """Scaled back by block means, each image is nearest to an original of its own class."""
    bunch = load_digits()
    dataset = data.load("digits")
    matched = []
    for split in dataset.splits.values():
        assert (split.images == split.images[..., :1]).all()  # grey
        blocks = split.images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) * 16 / 255
        # |b - o|^2 less |b|^2, (n, 1797)
        distances = (bunch.data**2).sum(axis=1) - 2 * blocks.reshape(-1, 64) @ bunch.data.T
        nearest = distances.argmin(axis=1)
        assert (bunch.target[nearest] == split.labels).all()
        matched += nearest.tolist()
    assert len(set(matched)) >= 1790  # a few originals are all but alike


def orientation_energies(images: np.ndarray) -> np.ndarray:
    """Power of the spatial frequencies (n, 32 * 17), as shares: blind to phase and contrast."""
    centred = images - images.mean(axis=(1, 2), keepdims=True)
    spectrum = np.abs(np.fft.rfft2(centred, axes=(1, 2)))  # (n, 32, 17, 3)
    power = (spectrum**2).sum(axis=3).reshape(len(images), -1)
    return power / power.sum(axis=1, keepdims=True)


def nearest_centroid_accuracy(dataset: data.Dataset, features) -> float:
    train, test = dataset.splits["train"], dataset.splits["test"]
    of_train, of_test = features(train.images), features(test.images)
    centroids = np.stack([of_train[train.labels == label].mean(axis=0) for label in range(10)])
    distances = ((of_test[:, None] - centroids) ** 2).sum(axis=2)
    return float((distances.argmin(axis=1) == test.labels).mean())


def test_synthetic_classes_differ_in_orientation_and_wavelength_alone(no_network):
    dataset = data.load("synthetic")
    assert nearest_centroid_accuracy(dataset, orientation_energies) > 0.95
    pixels = nearest_centroid_accuracy(dataset, lambda images: images.reshape(len(images), -1) / 1)
    means = nearest_centroid_accuracy(dataset, lambda images: images.mean(axis=(1, 2)))
    assert pixels < 0.25  # chance is 0.10
    assert means < 0.20


def test_synthetic_gratings_lie_as_their_names_say():
    """The strongest spatial frequency has the class's wavelength and angle."""
    dataset = data.load("synthetic:400")
    split = dataset.splits["train"]
    spectrum = np.fft.rfft2(split.images[..., 0])  # of red, (n, 32, 17)
    spectrum[:, 0, 0] = 0
    strongest = np.abs(spectrum).reshape(400, -1).argmax(axis=1)
    rows, columns = np.unravel_index(strongest, (32, 17))
    fy, fx = np.fft.fftfreq(32)[rows], np.fft.rfftfreq(32)[columns]
    angle = np.rad2deg(np.arctan2(fy, fx)) % 180
    for label, name in enumerate(dataset.class_names):
        wavelength, expected = name.split("_")
        of_class = split.labels == label
        off = np.abs((angle[of_class] - int(expected) + 90) % 180 - 90)
        length = 1 / np.hypot(fy, fx)[of_class]
        assert np.median(off) < 12
        assert np.median(length) == pytest.approx({"fine": 4, "coarse": 8}[wavelength], rel=0.15)
        # Phases lie all around the circle; twice the angle, because contrast changes sign.
        same_bin = of_class & (strongest == np.bincount(strongest[of_class]).argmax())
        phase = np.angle(spectrum[same_bin, rows[same_bin], columns[same_bin]])
        assert len(phase) > 15
        assert np.abs(np.exp(2j * phase).mean()) < 0.6


def test_synthetic_is_seeded_and_its_splits_differ():
    first = data.load("synthetic:1200")
    other_home = sources.find("synthetic:1200").splits["train"]().content()
    np.testing.assert_array_equal(first.splits["train"].images, other_home[0])
    np.testing.assert_array_equal(first.splits["train"].labels, other_home[1])
    images = np.concatenate([split.images for split in first.splits.values()])
    assert len({image.tobytes() for image in images}) == 2400
    assert np.bincount(first.splits["test"].labels).tolist() == [120] * 10


def test_synthetic_sizes():
    assert len(data.load("synthetic").splits["test"].labels) == 1000
    assert data.load("synthetic:10", 16).splits["train"].images.shape == (10, 16, 16, 3)
    for size in ("9", "-10", "1e3", "x", "²", "1000001", "9" * 5000):
        name = f"synthetic:{size}"
        with pytest.raises(UserError, match="whole number of at least 10"):
            data.load(name)
    with pytest.raises(UserError, match="no data 'synthetic:'"):
        data.load("synthetic:")


def test_a_misspelt_source_and_split():
    with pytest.raises(UserError, match="did you mean 'cinic10'"):
        data.load("cinic")
    with pytest.raises(UserError, match="no split 'tset': did you mean 'test'"):
        data.load("digits", splits=("tset",))


def test_sources_to_be_fetched_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path))
    for name in ("cinic10", "cifar10"):
        with pytest.raises(UserError, match=f"fetch {name}"):
            data.load(name)


def test_a_sources_name_goes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert len(data.load("digits").splits["test"].labels) == 797


def test_fingerprint_is_that_of_the_dataset():
    dataset = data.load("synthetic:20")
    assert data.fingerprint("synthetic:20") == dataset.fingerprint
    others = [data.fingerprint("synthetic:30"), data.fingerprint("synthetic:20", 16)]
    assert len({dataset.fingerprint, *others}) == 3


def test_loading_imports_no_framework():
    code = (
        "import sys; from keras_cnn import data; from keras_cnn.data import inspect; "
        "data.load('synthetic:10'); inspect.describe('synthetic:10', 32); "
        "print([m for m in ('keras', 'torch', 'tensorflow', 'jax', 'sklearn') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout == "[]\n", answer.stderr
