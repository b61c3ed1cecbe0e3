"""Tiny ImageNet's published layout, made small."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_cnn import data
from keras_cnn.downloads import fetch, registry
from keras_cnn.errors import UserError

CLASSES = {"n03": "red fox, Vulpes vulpes", "n01": "crane", "n02": "crane"}
COLOURS = {"n01": (200, 10, 10), "n02": (10, 200, 10), "n03": (10, 10, 200)}


def write(folder):
    """Three classes of two training images and one validation image, each in its colour."""
    root = folder / "tiny-imagenet-200"
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    words = {"n00": "entity", **CLASSES}
    (root / "words.txt").write_text("".join(f"{key}\t{text}\n" for key, text in words.items()))
    annotations = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        images = root / "train" / name / "images"
        images.mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (64, 64), colour).save(images / f"{name}_{index}.JPEG")
        (root / "train" / name / f"{name}_boxes.txt").write_text("not an image\n")
        Image.new("RGB", (64, 64), colour).save(root / "val" / "images" / f"val_{number}.JPEG")
        annotations.append(f"val_{number}.JPEG\t{name}\t0\t0\t62\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(annotations)))
    return root


def colours(images):
    return [
        tuple(round(value, -1) for value in image.mean(axis=(0, 1)).tolist()) for image in images
    ]


def test_images_and_names_go_with_their_classes(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path))
    write(tmp_path / "tiny_imagenet")
    loaded = data.load("tiny_imagenet", 64)
    assert loaded.class_names == ("crane (n01)", "crane (n02)", "red fox")
    for split, a_class in (("train", 2), ("test", 1)):
        expected = np.repeat([0, 1, 2], a_class)
        assert loaded.splits[split].labels.tolist() == expected.tolist()
        shown = colours(loaded.splits[split].images)
        assert shown == [tuple(map(float, list(COLOURS.values())[label])) for label in expected]


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path))
    with pytest.raises(UserError, match="fetch tiny_imagenet"):
        data.load("tiny_imagenet")
    root = write(tmp_path / "tiny_imagenet")
    (root / "val" / "images" / "val_1.JPEG").unlink()
    with pytest.raises(UserError, match=r"val_1\.JPEG is missing: delete the folder"):
        data.load("tiny_imagenet")
    annotations = root / "val" / "val_annotations.txt"
    for content, said in (
        (b"val_1.JPEG\tn99\t0\n", "damaged"),
        (b"\n", "damaged"),
        (b"\xff", "read"),
    ):
        annotations.write_bytes(content)
        with pytest.raises(UserError, match=f"val_annotations.txt .*{said}"):
            data.load("tiny_imagenet")
    (root / "wnids.txt").unlink()
    with pytest.raises(UserError, match=r"wnids\.txt is missing"):
        data.load("tiny_imagenet")


def archived(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))


def test_a_zip_that_lies_in_downloads_is_checked_and_unpacked(monkeypatch, tmp_path):
    home = tmp_path / "home"
    monkeypatch.setenv("KERAS_CNN_HOME", str(home))
    write(tmp_path / "made")
    (home / "downloads").mkdir(parents=True)
    file = home / "downloads" / "tiny-imagenet-200.zip"
    archived(tmp_path / "made", file)
    published = registry.DOWNLOADS["tiny_imagenet"]
    fields = {**vars(published), "size_bytes": file.stat().st_size}
    with pytest.raises(UserError, match="md5"):
        monkeypatch.setitem(registry.DOWNLOADS, "tiny_imagenet", registry.Download(**fields))
        fetch.fetch("tiny_imagenet")
    fields["digest"] = registry.file_hash(file, "md5")
    monkeypatch.setitem(registry.DOWNLOADS, "tiny_imagenet", registry.Download(**fields))
    assert fetch.fetch("tiny_imagenet") == [home / "tiny_imagenet"]
    assert len(data.load("tiny_imagenet").splits["train"].labels) == 6


def test_a_zip_stays_in_its_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_CNN_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "downloads").mkdir(parents=True)
    file = tmp_path / "home" / "downloads" / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("tiny-imagenet-200/wnids.txt", "")
        archive.writestr("../../outside.txt", "should not leave")
    published = registry.DOWNLOADS["tiny_imagenet"]
    fields = {
        **vars(published),
        "size_bytes": file.stat().st_size,
        "digest": registry.file_hash(file, "md5"),
    }
    monkeypatch.setitem(registry.DOWNLOADS, "tiny_imagenet", registry.Download(**fields))
    fetch.fetch("tiny_imagenet")
    outside = [path for path in tmp_path.rglob("outside.txt")]
    assert all((tmp_path / "home" / "tiny_imagenet") in path.parents for path in outside)
