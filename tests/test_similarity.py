"""Features of image files against a model made by hand, neighbours against NumPy."""

from __future__ import annotations

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_cnn
from keras_cnn import models, similarity
from keras_cnn.__main__ import main
from keras_cnn.errors import UserError
from keras_cnn.models import saved

SIZE = 8


@pytest.fixture(scope="module")
def model_path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.keras"
    network = models.classifier("baseline", 3, image_size=SIZE, hidden_units=4, dropout=0.5)
    saved.save(saved.classifier(network), path, {"class_names": ["a", "b", "c"]})
    return path


@pytest.fixture
def pictures(tmp_path) -> dict[Path, np.ndarray]:
    """Images of a folder in the order in which they are read, and their pixels."""
    random, found = np.random.default_rng(0), {}
    folder = tmp_path / "photos"
    (folder / "in").mkdir(parents=True)
    for name in ("=a.png", "b.png", "in/a.png", "in/b.png", "in/c.png", "z.png"):
        pixels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        found[folder / name] = pixels
    return found


def by_hand(model_path, pictures) -> np.ndarray:
    network = keras.models.load_model(model_path)
    features = keras.Model(network.input, network.get_layer("head_logits").input)
    # Dropout before the head drops nothing outside of training.
    return features.predict(np.stack([*pictures.values()]), verbose=0)


def test_features_are_what_the_head_is_given(model_path, pictures, capsys):
    expected = by_hand(model_path, pictures)
    folder = next(iter(pictures)).parent
    found = keras_cnn.embed(model_path, folder)
    assert found.paths == [*pictures] and found.unreadable == []
    np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-5)
    assert repr(found) == f"Features(6 images, {expected.shape[1]} channels)"
    names = [path.relative_to(folder).as_posix() for path in pictures]
    for suffix in (".npz", ".csv"):
        out = folder.parent / f"features{suffix}"
        assert main(["embed", str(model_path), str(folder), f"--out={out}"]) == 0
        assert capsys.readouterr().out == f"6 images, {expected.shape[1]} features of each: {out}\n"
    with np.load(folder.parent / "features.npz") as there:
        assert there["files"].tolist() == names
        np.testing.assert_array_equal(there["features"], found.features)
    with out.open(newline="") as file:
        heading, *rows = csv.reader(file)
    assert heading[:2] == ["file", "feature 0"] and rows[0][0] == "'=a.png"  # no formula
    np.testing.assert_array_equal(np.array(rows)[:, 1:].astype(np.float32), found.features)


def test_neighbours_are_by_cosine(model_path, pictures, capsys):
    features = by_hand(model_path, pictures)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    paths, query = [*pictures], 2
    cosines = units @ units[query]
    order = [k for k in np.argsort(-cosines) if k != query]
    found, unreadable = similarity.similar(model_path, paths[query], paths[0].parent, 3)
    assert [path for path, _ in found] == [paths[k] for k in order[:3]] and unreadable == []
    np.testing.assert_allclose([c for _, c in found], cosines[order[:3]], atol=1e-5)
    copy = paths[0].parent / "copy.png"
    copy.write_bytes(paths[query].read_bytes())
    (paths[0].parent / "empty.png").touch()
    with pytest.raises(SystemExit) as ended:
        main(["similar", str(model_path), str(paths[query]), str(copy.parent), "--top=2"])
    said = capsys.readouterr()
    assert ended.value.code == 2 and "empty.png: empty file" in said.err
    first, second = said.out.splitlines()
    assert first == f"{copy}: 1.000" and second.startswith(f"{paths[order[0]]}: ")


def test_what_has_no_features_is_refused(model_path, pictures, tmp_path, capsys):
    path, folder = tmp_path / "model.keras", next(iter(pictures)).parent
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 3)(image))
    for model, said in (
        (keras.Model(image, x), "is given (None, 8, 8, 3), not (n, channels)"),
        (keras.Model(image, keras.layers.GlobalAveragePooling2D()(image)), "has no features"),
        (keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.Model(image, x)]), "no features"),
    ):
        model.save(path)
        with pytest.raises(UserError) as refused:
            similarity.embed(path, folder)
        assert said in str(refused.value) and "\n" not in str(refused.value)
    for words, said in (
        (["embed", model_path, folder], "embed needs --out=FILE"),
        (["embed", model_path, folder, "--out=a.txt"], "embed needs --out=FILE"),
        (["similar", model_path, folder / "none.png", folder], "no such file"),
        (["similar", model_path, folder / "b.png", tmp_path / "none"], "no such file"),
    ):
        assert main([*map(str, words)]) == 2
        assert said in capsys.readouterr().err
