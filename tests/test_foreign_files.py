"""Files that others wrote: what is no plain model or weights file is refused in one line."""

from __future__ import annotations

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_cnn import models
from keras_cnn.errors import UserError
from keras_cnn.models import archive, saved
from keras_cnn.pretrained import keras_files, weights

SECRET = np.full((3, 3, 3, 64), 0.625, "float32")  # of stem_conv's shape, in another file


def tiny(image_size, seed):
    images = keras.Input((image_size, image_size, 3))
    x = keras.layers.Conv2D(64, 3, name="stage1_conv")(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


def network():
    return models.classifier(f"{__name__}.tiny", 2, 8)


@pytest.fixture
def model_file(tmp_path):
    path = tmp_path / "model.keras"
    saved.save(saved.classifier(network()), path, {"class_names": ["cat", "dog"]})
    return path


@pytest.fixture
def weights_file(model_file, tmp_path):
    path = tmp_path / "tiny.weights.h5"
    keras_files.write_backbone(model_file, path)
    return path


def with_member(path, name, content, **how):
    """Replaces a member of an archive, or adds it."""
    with zipfile.ZipFile(path) as source:
        members = {each: source.read(each) for each in source.namelist()} | {name: content}
    with zipfile.ZipFile(path, "w") as target:
        for each, value in members.items():
            target.writestr(each, value, **(how if each == name else {}))


def line_of(act, *arguments):
    with pytest.raises(UserError) as caught:
        act(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def kernel_of(file):
    return file["layers/conv2d/vars"], "0"


def external(file, tmp_path):
    SECRET.tofile(tmp_path / "secret.bin")
    arrays, name = kernel_of(file)
    del arrays[name]
    where = [(str(tmp_path / "secret.bin"), 0, SECRET.nbytes)]
    arrays.create_dataset(name, SECRET.shape, "f4", external=where)


def external_link(file, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["kernel"] = SECRET
    arrays, name = kernel_of(file)
    del arrays[name]
    arrays[name] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/kernel")


def virtual(file, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as other:
        other["kernel"] = SECRET
    arrays, name = kernel_of(file)
    del arrays[name]
    layout = h5py.VirtualLayout(SECRET.shape, "f4")
    layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "kernel", SECRET.shape)
    arrays.create_virtual_dataset(name, layout)


def soft_link(file, tmp_path):
    arrays, name = kernel_of(file)
    file.move(f"{arrays.name}/{name}", "/elsewhere")
    arrays[name] = h5py.SoftLink("/elsewhere")


def replaced(**how):
    def act(file, tmp_path):
        arrays, name = kernel_of(file)
        del arrays[name]
        arrays.create_dataset(name, **how)

    return act


def group_for_array(file, tmp_path):
    arrays, name = kernel_of(file)
    del arrays[name]
    arrays.create_group(name)


def array_for_group(file, tmp_path):
    del file["layers"]
    file["layers"] = SECRET


def circle(file, tmp_path):
    file["layers"]["again"] = file["/"]


def without_name(file, tmp_path):
    arrays, _ = kernel_of(file)
    arrays.attrs["name"] = np.arange(3)


def not_finite(file, tmp_path):
    arrays, name = kernel_of(file)
    arrays[name][..., 0] = np.nan


HDF5 = {
    "lies in other files": (external, virtual),
    "is a link to elsewhere": (external_link, soft_link),
    "is declared larger": (replaced(shape=(10**12,), dtype="f4"), replaced(dtype="f4", shape=(9,))),
    "is compressed": (replaced(data=np.zeros((3, 3, 3, 64), "f4"), compression="gzip"),),
    "no real numbers": (
        replaced(data=SECRET.astype("complex64")),
        replaced(data=np.array(["a"], dtype=object), dtype=h5py.string_dtype()),
    ),
    "damaged": (group_for_array, without_name),
    "no layers of Keras 3": (array_for_group,),
    "groups 50 deep": (circle,),
    "not finite": (not_finite,),
}


@pytest.mark.parametrize(
    ("words", "change"), [(words, act) for words, acts in HDF5.items() for act in acts]
)
def test_hdf5_that_is_no_plain_array_of_the_file_is_refused(
    words, change, weights_file, model_file, tmp_path
):
    content = weights_file.read_bytes()
    (tmp_path / "unsealed.weights.h5").write_bytes(content[: -keras_files.files.SEAL_BYTES])
    with h5py.File(tmp_path / "unsealed.weights.h5", "r+") as file:
        change(file, tmp_path)
    with zipfile.ZipFile(model_file) as members:
        inside = io.BytesIO(members.read("model.weights.h5"))
    with h5py.File(inside, "r+") as file:
        change(file, tmp_path)
    with_member(model_file, "model.weights.h5", inside.getvalue())
    for path in (tmp_path / "unsealed.weights.h5", model_file):
        other = network()
        before = other.get_weights()
        assert words in line_of(weights.load, other, path)
        assert all(map(np.array_equal, before, other.get_weights()))
        if change is not not_finite:
            assert words in line_of(keras_files.write_backbone, path, tmp_path / "x.weights.h5")
    if change not in (not_finite, array_for_group, without_name):
        line_of(saved.load, model_file)


def test_a_flipped_bit_of_a_written_backbone_is_found(weights_file):
    content = bytearray(weights_file.read_bytes())
    content[len(content) // 2] ^= 4
    weights_file.write_bytes(content)
    assert "is damaged" in line_of(weights.load, network(), weights_file)


def test_weights_are_read_without_a_lock(weights_file):
    fcntl = pytest.importorskip("fcntl")
    with weights_file.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # what HDF5 by itself would not open
        weights.load(network(), weights_file)


def test_bfloat16_is_read(tmp_path):
    model = network()
    path = tmp_path / "half.keras"
    clone = keras.models.clone_model(
        model,
        clone_function=lambda layer: type(layer).from_config(
            {**layer.get_config(), "dtype": "bfloat16"}
        ),
    )
    clone.set_weights(model.get_weights())
    clone.save(path)
    other = models.classifier(f"{__name__}.tiny", 2, 8, seed=1)
    weights.load(other, path)
    loaded, _ = saved.load(path)
    expected = keras.ops.convert_to_numpy(keras.ops.cast(loaded.layers[1].kernel, "float32"))
    np.testing.assert_array_equal(other.layers[1].get_weights()[0], expected)
    np.testing.assert_allclose(expected, model.layers[1].get_weights()[0], rtol=2**-8)


@pytest.mark.every_backend
def test_a_model_of_more_weights_than_its_file_is_refused(model_file):
    with zipfile.ZipFile(model_file) as members:
        config = members.read("config.json").decode()
    assert '"units": 2' in config
    with_member(model_file, "config.json", config.replace('"units": 2', '"units": 10000000000'))
    assert "is made of 650,000,001,792 weights" in line_of(saved.load, model_file)


CARDS = {
    "is no JSON": (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 5_000),
    "no list of class names": (b"[]", b"3", b"null", b'"card"', b"1e999"),
    "no list of class": tuple(
        json.dumps({"class_names": names}).encode() for names in (5, None, "cat", [1, 2], {}, [[]])
    ),
    "names a class twice": (b'{"class_names": ["cat", "cat"]}',),
}


@pytest.mark.parametrize(
    ("words", "content"), [(words, card) for words, cards in CARDS.items() for card in cards]
)
def test_a_card_that_is_none_is_one_line(words, content, model_file):
    with_member(model_file, saved.CARD, content)
    assert words in line_of(saved.load, model_file)


def encrypted(path):
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + at] |= 1
    path.write_bytes(content)


def flipped(path):
    with zipfile.ZipFile(path) as members:
        start = members.getinfo("model.weights.h5").header_offset
    content = bytearray(path.read_bytes())
    content[start + 4_000] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-50])


def bomb(path, name=saved.CARD, size=archive.SPARE_BYTES + 20_000_000):
    with_member(path, name, bytes(size), compress_type=zipfile.ZIP_DEFLATED)


ZIP = {
    "is encrypted": encrypted,
    "not a .keras file": cut,
    "a damaged one": flipped,
    "would unpack to": bomb,
    "the limit is": lambda path: bomb(path, size=saved.LARGEST_CARD + 1),
    "config.json in it has": lambda path: with_member(
        path, "config.json", b" " * (saved.LARGEST_JSON + 1)
    ),
    "a method of its own": lambda path: with_member(
        path, "assets", b"x" * 99, compress_type=zipfile.ZIP_LZMA
    ),
    "no model.weights.h5": lambda path: zipfile.ZipFile(path, "w").close(),
}


@pytest.mark.parametrize("words", ZIP)
def test_an_archive_that_is_odd_is_one_line(words, model_file):
    ZIP[words](model_file)
    said = line_of(saved.load, model_file)
    assert words in said or words.startswith("no model")
    if words not in ("the limit is", "config.json in it has"):
        assert words in line_of(weights.load, network(), model_file)


def test_small_and_capital_letters_are_one_ending(model_file, weights_file):
    expected, _ = saved.load(model_file)
    capital = model_file.rename(model_file.with_name("MODEL.KERAS"))
    found, card = saved.load(capital)
    assert card["class_names"] == ["cat", "dog"]
    assert all(map(np.array_equal, expected.get_weights(), found.get_weights()))
    for path in (capital, weights_file.rename(weights_file.with_name("TINY.WEIGHTS.H5"))):
        weights.load(network(), path)
