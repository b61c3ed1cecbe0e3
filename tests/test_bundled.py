"""The backbones that come with the package: whole, small, readable by Keras, better than none."""

from __future__ import annotations

import configparser

import h5py
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from keras_cnn import models, recipe
from keras_cnn.data import augment, crops
from keras_cnn.errors import UserError
from keras_cnn.pretrained import named, weights
from keras_cnn.recipe import resolve
from keras_cnn.results import identity

PACKAGE = named.BUNDLED_FOLDER
ROOT = PACKAGE.parents[1]


def test_all_of_them_are_small_in_half_precision_and_packed():
    files = [named.weights_file(name, "bundled") for name in named.BUNDLED]
    assert sorted(named.BUNDLED) == ["convnext_atto", "resnet18"]
    assert sorted(PACKAGE.glob("*.h5")) == sorted(files)
    assert sum(file.stat().st_size for file in files) < 30e6
    for file in files:
        with h5py.File(file) as tree:
            arrays = [a for layer in tree["layers"].values() for a in layer["vars"].values()]
            assert len(arrays) > 50 and {str(array.dtype) for array in arrays} == {"float16"}
        card = PACKAGE / f"{file.name.removesuffix('.weights.h5')}.md"
        assert named.fingerprint(file)[:12] in card.read_text(encoding="utf-8")
    packed = configparser.ConfigParser()
    packed.read(ROOT / "setup.cfg")
    patterns = packed["options.package_data"]["keras_cnn.pretrained"].split()
    assert sorted(patterns) == ["*.md", "*.weights.h5"]


@pytest.mark.every_backend
@pytest.mark.parametrize("name", sorted(named.BUNDLED))
def test_they_fit_and_kerass_own_reader_gives_the_same(name):
    file = named.weights_file(name, "bundled")
    model, kerass = models.backbone(name, 32, seed=1), models.backbone(name, 32, seed=2)
    weights.load(model, file)
    kerass.load_weights(file)
    for ours, theirs in zip(model.get_weights(), kerass.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert np.isfinite(ours).all()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Another place for the package's files; returns the weights' path there."""
    monkeypatch.setattr(named, "BUNDLED_FOLDER", tmp_path)
    return tmp_path / "convnext_atto.weights.h5"


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_a_file_that_is_not_as_it_came_is_one_line(package, fault):
    if fault == "damaged":
        content = bytearray((PACKAGE / package.name).read_bytes())
        content[len(content) // 2] ^= 1
        package.write_bytes(content)
    with pytest.raises(UserError) as caught:
        named.weights_file("convnext_atto", "bundled")
    (line,) = str(caught.value).splitlines()
    assert str(package) in line and f"is {fault}" in line and "--weights=random" in line


def test_a_network_without_bundled_weights_names_those_that_have_them():
    with pytest.raises(UserError, match=r"convnext_nano .*only of convnext_atto, resnet18"):
        named.weights_file("convnext_nano", "bundled")


def test_a_result_is_of_its_weights():
    plan = recipe.read("fewshot_convnext")
    bundled, random = (
        resolve.runs(plan, "mini", ["1"], repeats=1, overrides={"weights": name})[0]
        for name in ("bundled", "random")
    )
    assert resolve.runs(plan, "mini", ["1"], repeats=1)[0].spec.network.weights == "bundled"
    assert identity.identity(bundled.spec) != identity.identity(random.spec)
    found = identity.fingerprints(bundled.spec)["weights"]
    assert found == named.BUNDLED["convnext_atto"]


def views_of_photographs():
    """Two views (n, 32, 32, 3) of each of 96 places in scikit-learn's photographs."""
    photographs = load_sample_images().images
    patches = np.stack(
        [
            photograph[top : top + 64, left : left + 64]
            for photograph in photographs
            for top in range(0, photograph.shape[0] - 64, 72)
            for left in range(0, photograph.shape[1] - 64, 72)
        ]
    )
    generator = np.random.default_rng(0)
    for _ in range(2):
        view = crops.random_resized_crops(patches, 32, 0.35, generator)
        factors = generator.uniform(0.8, 1.2, (3, len(view)))
        yield augment.adjust_colour(view, *factors, np.zeros(len(view)))


@pytest.mark.parametrize("name", sorted(named.BUNDLED))
def test_they_find_a_place_again_where_random_weights_do_not(name):
    views = list(views_of_photographs())
    found = {}
    for start in ("bundled", "random"):
        model = models.backbone(name, 32, seed=1)
        if start == "bundled":
            weights.load(model, named.weights_file(name, start))
        features = np.stack([model.predict(view, verbose=0) for view in views])  # (2, n, c)
        features = (features - features.mean((0, 1))) / (features.std((0, 1)) + 1e-9)
        one, other = features / np.linalg.norm(features, axis=-1, keepdims=True)
        found[start] = ((one @ other.T).argmax(axis=1) == np.arange(len(one))).mean()
    assert found["bundled"] > max(0.5, 1.5 * found["random"]), found
