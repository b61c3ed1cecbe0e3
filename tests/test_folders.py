"""Layouts of image folders: which splits, classes and images are found, and what is refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_cnn import data
from keras_cnn.data import folders, sources
from keras_cnn.errors import UserError

SIZE = 6


def fill(folder: Path, seed: int = 0, **counts: int) -> dict[str, np.ndarray]:
    """Writes random images, `<class>/0.png` and so on; returns them by path within the folder."""
    rng = np.random.default_rng([seed, len(counts)])
    written = {}
    for class_name, count in counts.items():
        (folder / class_name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(folder / class_name / f"{number}.png")
            written[f"{class_name}/{number}.png"] = pixels
    return written


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        data.load(str(folder), SIZE)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text or folder.name in text
    return text


def test_train_valid_and_test_folders_are_the_splits(tmp_path):
    written = {
        split: fill(tmp_path / split, seed, dog=3, cat=2, ant=4)
        for seed, split in enumerate(("train", "valid", "test"))
    }
    dataset = data.load(str(tmp_path), SIZE, ("train", "valid", "test"))
    assert dataset.class_names == ("ant", "cat", "dog")
    assert dataset.image_size == SIZE
    for split, images in written.items():
        names = sorted(images)
        np.testing.assert_array_equal(
            dataset.splits[split].images, np.stack([images[name] for name in names])
        )
        assert [dataset.class_names[label] for label in dataset.splits[split].labels] == [
            name.split("/")[0] for name in names
        ]
        assert dataset.splits[split].labels.dtype == np.int64
        assert dataset.splits[split].images.dtype == np.uint8


@pytest.mark.parametrize("name", ["valid", "val", "validation"])
def test_names_of_the_validation_folder(tmp_path, name):
    for split in ("train", name, "test"):
        fill(tmp_path / split, len(split), a=1, b=1)
    source = folders.source(tmp_path)
    assert set(source.splits) == {"train", "valid", "test"}
    assert source.notes == ()


@pytest.mark.parametrize("name", ["valid", "val"])
def test_validation_images_serve_as_test_where_there_are_no_others(tmp_path, name):
    fill(tmp_path / "train", 0, a=2, b=2)
    images = fill(tmp_path / name, 1, a=1, b=2)
    assert name in folders.source(tmp_path).notes[0]
    dataset = data.load(str(tmp_path), SIZE)
    np.testing.assert_array_equal(dataset.splits["test"].images, np.stack(list(images.values())))
    with pytest.raises(UserError, match="no split 'valid'"):
        data.load(str(tmp_path), SIZE, ("valid",))


def test_flat_folder_is_split_within_each_class(tmp_path):
    images = fill(tmp_path, 0, a=10, b=50, c=200)
    dataset = data.load(str(tmp_path), SIZE)
    train, test = dataset.splits["train"], dataset.splits["test"]
    counts = np.bincount(test.labels)
    # A binomial's central 99.9 percent; each class has at least one.
    assert (counts >= [1, 2, 22]).all() and (counts <= [7, 20, 60]).all()

    labels = {pixels.tobytes(): "abc".index(name[0]) for name, pixels in images.items()}
    seen = [pixels.tobytes() for pixels in (*train.images, *test.images)]
    assert sorted(seen) == sorted(labels)  # each image once, in one of the two
    assert [labels[pixels] for pixels in seen] == [*train.labels, *test.labels]


def test_flat_split_is_always_the_same_and_not_the_first_files(tmp_path):
    images = fill(tmp_path / "one", 0, a=20, b=20)
    fill(tmp_path / "two", 0, a=20, b=20)
    drawn = [data.load(str(tmp_path / at), SIZE).splits["test"].images for at in ("one", "two")]
    np.testing.assert_array_equal(*drawn)
    of_a = [pixels for name, pixels in images.items() if name.startswith("a")]
    assert not np.array_equal(drawn[0][:4], of_a[:4])
    assert not np.array_equal(drawn[0][:4], of_a[-4:])


def test_a_flat_folder_keeps_equal_images_on_one_side(tmp_path):
    """Each image twice, as another file of the same pixels, under a class drawn at random."""
    rng = np.random.default_rng(0)
    images = fill(tmp_path, 0, a=20, b=20, c=20)
    for number, pixels in enumerate(images.values()):
        copy = tmp_path / "abc"[rng.integers(3)] / f"copy {number}.png"
        Image.fromarray(pixels).save(copy, compress_level=0)
    dataset = data.load(str(tmp_path), SIZE)
    train, test = ({i.tobytes() for i in split.images} for split in dataset.splits.values())
    assert not train & test and len(train | test) == 60
    assert sum(len(split.labels) for split in dataset.splits.values()) == 120
    assert 18 <= len(dataset.splits["test"].labels) <= 30
    assert sources.count_shared(dataset) == 0


def test_a_class_of_equal_images_is_split_all_the_same(tmp_path):
    fill(tmp_path, 0, a=10, b=10)
    for path in (tmp_path / "b").iterdir():
        Image.new("RGB", (SIZE, SIZE), (1, 2, 3)).save(path)
    dataset = data.load(str(tmp_path), SIZE)
    assert np.bincount(dataset.splits["test"].labels)[1] == 1
    assert np.bincount(dataset.splits["train"].labels)[1] == 9


def test_images_of_test_that_are_training_images_are_counted(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, len(split), a=6, b=6)
    for number in range(3):
        raw = (tmp_path / "train" / "a" / f"{number}.png").read_bytes()
        (tmp_path / "test" / "b" / f"x{number}.png").write_bytes(raw)
    dataset = data.load(str(tmp_path), SIZE, ("test",))
    assert sources.count_shared(dataset) == 3
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    assert sources.count_shared(dataset) == 0


def test_two_forms_of_a_name_are_one_class(tmp_path):
    one, other = "caf\u00e9", "cafe\u0301"
    fill(tmp_path / "train", 0, **{one: 2, "tea": 1})
    fill(tmp_path / "train" / "more", 1, **{other: 3})
    (tmp_path / "train" / "more" / other).rename(tmp_path / "train" / other)
    (tmp_path / "train" / "more").rmdir()
    fill(tmp_path / "test", 1, **{other: 1, "tea": 1})
    tmp_path.rename(tmp_path.with_name(other))
    dataset = data.load(str(tmp_path.with_name(one)), SIZE)  # as a keyboard gives it
    assert dataset.class_names == (one, "tea")
    assert np.bincount(dataset.splits["train"].labels).tolist() == [5, 1]
    assert np.bincount(dataset.splits["test"].labels).tolist() == [1, 1]


def test_links_to_themselves_are_passed_over(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, len(split), a=2, b=2)
    for link, target in (
        ("train/a/loop.png", "loop.png"),
        ("train/a/up", ".."),
        ("train/all", "."),
        ("test/all", ".."),
        ("valid", "valid"),
        ("back", "."),
        ("loop", "loop"),
    ):
        (tmp_path / link).symlink_to(target)
    dataset = data.load(str(tmp_path), SIZE)
    assert dataset.class_names == ("a", "b")
    assert len(dataset.splits["train"].labels) == 4
    source = folders.source(tmp_path)
    assert "train/a/loop.png" in source.splits["train"]().strays
    with pytest.raises(UserError, match="no data"):
        data.load(str(tmp_path / "loop"))


def test_a_folder_to_test_on_needs_neither_training_images_nor_two_classes(tmp_path):
    written = fill(tmp_path / "test", 0, a=3, b=2)
    (tmp_path / "test" / "empty").mkdir()
    fill(tmp_path / "valid", 1, c=4)
    dataset = sources.load_for_testing(str(tmp_path), SIZE)
    assert dataset.class_names == ("a", "b")
    np.testing.assert_array_equal(dataset.splits["test"].images, np.stack([*written.values()]))
    assert sources.load_for_testing(str(tmp_path), SIZE, "valid").class_names == ("c",)
    with pytest.raises(UserError, match="no split 'train'"):
        sources.load_for_testing(str(tmp_path), SIZE, "train")


def test_of_a_flat_folder_all_is_test_but_for_a_model_trained_on_it(tmp_path):
    fill(tmp_path, 0, a=10, b=5)
    trained = data.load(str(tmp_path), SIZE)
    whole = sources.load_for_testing(str(tmp_path), SIZE)
    assert np.bincount(whole.splits["test"].labels).tolist() == [10, 5]
    again = sources.load_for_testing(str(tmp_path), SIZE, trained_on=trained.fingerprint)
    np.testing.assert_array_equal(again.splits["test"].images, trained.splits["test"].images)
    fill(tmp_path / "single", 0, a=1)
    alone = sources.load_for_testing(str(tmp_path / "single"), SIZE, trained_on="0")
    assert alone.class_names == ("a",) and len(alone.splits["test"].labels) == 1


def test_endings_in_any_case(tmp_path):
    for class_name in ("a", "b"):
        (tmp_path / "train" / class_name).mkdir(parents=True)
        (tmp_path / "test" / class_name).mkdir(parents=True)
        for split in ("train", "test"):
            for ending in ("PNG", "jpg", "JPEG", "webp", "Bmp"):
                path = tmp_path / split / class_name / f"x.{ending}"
                Image.new("RGB", (SIZE, SIZE)).save(path)
    assert len(data.load(str(tmp_path), SIZE).splits["train"].labels) == 10


def test_strays_are_named_and_hidden_files_passed_over(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / split, 0, a=2, b=2)
    (tmp_path / "classes.tsv").touch()  # no stray: it lies where notes are usual
    (tmp_path / "trian").mkdir()
    (tmp_path / "train" / "a" / "notes.txt").touch()
    (tmp_path / "train" / "a" / "more.png").mkdir()
    (tmp_path / "train" / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "train" / "0.png").touch()
    for hidden in (".DS_Store", "train/.thumbnails/0.png", "train/a/.0.png"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).touch()
    source = folders.source(tmp_path)
    assert source.strays == ("trian/",)
    listing = source.splits["train"]()
    assert sorted(listing.strays) == [
        "train/0.png",
        "train/a/gone.png",
        "train/a/more.png/",
        "train/a/notes.txt",
    ]
    assert len(listing.content()[0]) == 4


def test_strays_of_a_flat_folder(tmp_path):
    fill(tmp_path, 0, a=5, b=5)
    (tmp_path / "README.md").touch()
    (tmp_path / "x.png").touch()
    (tmp_path / "b" / "z.gif").touch()
    assert folders.source(tmp_path).splits["test"]().strays == ("x.png", "b/z.gif")


def test_listing_key_sees_a_changed_file(tmp_path):
    fill(tmp_path, 0, a=5, b=5)
    source = folders.source(tmp_path)
    before = source.splits["train"]().key
    assert source.splits["test"]().key == before  # parts of one file
    stat = (tmp_path / "a" / "0.png").stat()
    os.utime(tmp_path / "a" / "0.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert source.splits["train"]().key != before


def test_class_folders_must_agree(tmp_path):
    fill(tmp_path / "train", 0, ant=1, bee=1, cat=1)
    fill(tmp_path / "test", 0, ant=1, bee=1)
    assert "test lacks cat" in refusal(tmp_path)
    fill(tmp_path / "test", 0, cat=1, dog=1)
    assert "train lacks dog" in refusal(tmp_path)


def test_train_alone(tmp_path):
    fill(tmp_path / "train", 0, a=5, b=5)
    text = refusal(tmp_path)
    assert "neither test nor valid" in text
    assert str(tmp_path / "train") in text  # what to give instead; and that works:
    assert len(data.load(str(tmp_path / "train"), SIZE).splits["test"].labels) == 2


def test_test_alone(tmp_path):
    fill(tmp_path / "test", 0, a=5, b=5)
    assert "no train" in refusal(tmp_path)


def test_one_class(tmp_path):
    fill(tmp_path / "flat", 0, a=5)
    assert "one class only (a)" in refusal(tmp_path / "flat")
    for split in ("train", "test"):
        fill(tmp_path / "split" / split, 0, a=5)
    assert "one class only (a)" in refusal(tmp_path / "split")


def test_nothing_there(tmp_path):
    assert "no folders of images" in refusal(tmp_path)
    fill(tmp_path, 0, a=0, b=0)
    assert "no images" in refusal(tmp_path)


def test_an_empty_class(tmp_path):
    fill(tmp_path, 0, a=5, b=0)
    assert f"{tmp_path / 'b'} holds no images" in refusal(tmp_path)


def test_images_without_class_folders(tmp_path):
    fill(tmp_path, 0, a=5)
    refusal(tmp_path / "a")


@pytest.mark.parametrize("counts", [{"a": 2, "b": 2, "c": 2}, {"a": 2, "b": 47, "c": 47}])
def test_of_two_images_one_is_test(tmp_path, counts):
    fill(tmp_path, 0, **counts)
    splits = data.load(str(tmp_path), SIZE).splits
    for split in ("train", "test"):
        found = np.bincount(splits[split].labels)
        assert found.min() >= 1 and found[0] == 1


def test_too_few_images_for_a_flat_split(tmp_path):
    fill(tmp_path, 0, a=1, b=20)
    with pytest.raises(UserError, match="smallest class has 1"):
        data.load(str(tmp_path), SIZE)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_class_folder_that_is_not_named_in_utf8(tmp_path):
    fill(tmp_path, a=6, b=6)
    os.rename(tmp_path / "b", os.fsencode(tmp_path) + b"/caf\xe9")
    assert "'caf\\udce9' is not named in UTF-8: rename it" in refusal(tmp_path)


def test_a_file_and_a_missing_folder(tmp_path):
    (tmp_path / "x.png").touch()
    assert "is a file" in refusal(tmp_path / "x.png")
    assert "no data" in refusal(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no data ''"):
        data.load("")


def test_a_link_to_itself_as_the_folder_is_told(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="loop"):
        data.load(str(tmp_path / "loop"))
    assert sources.title(str(tmp_path / "loop")) == "loop"
