"""Folders as people have them: names of splits, groups of classes, folders in classes, strays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_folders import SIZE, fill, refusal

from keras_cnn import data
from keras_cnn.__main__ import main
from keras_cnn.data import folders, inspect, layout, sources


def class_names(folder: Path) -> tuple[str, ...]:
    return folders.source(folder).class_names


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "training_set", "train-data")),
        *((name, "test") for name in ("Test", "testing", "Test Set", "test_images", "testset")),
        *((name, "valid") for name in ("val", "Validation", "dev", "DevSet", "eval", "valid")),
        *(
            (name, None)
            for name in ("train_augmented", "trains", "tests", "trian", "images", "set")
        ),
        *((name, None) for name in ("devices", "contest", "old_test", "évaluation", "test2")),
    ],
)
def test_names_of_splits(name, split):
    assert layout.split_of(name) == split


@pytest.mark.parametrize(("train", "test"), [("Training", "TEST"), ("train_set", "Validation_Set")])
def test_splits_are_found_in_any_spelling(tmp_path, train, test):
    fill(tmp_path / train, 0, a=3, b=2)
    fill(tmp_path / test, 1, a=1, b=1)
    splits = data.load(str(tmp_path), SIZE).splits
    assert [len(splits[name].labels) for name in ("train", "test")] == [5, 2]
    alone = sources.load_for_testing(str(tmp_path), SIZE)
    assert len(alone.splits["test"].labels) == 2
    assert sources.count_shared(alone) == 0


def test_two_folders_that_are_one_split_are_refused_unless_one_is_a_link(tmp_path):
    for name in ("train", "test", "val"):
        fill(tmp_path / name, len(name), a=2, b=2)
    (tmp_path / "validation").symlink_to("val")
    assert set(folders.source(tmp_path).splits) == {"train", "valid", "test"}
    (tmp_path / "Training").mkdir()
    assert class_names(tmp_path) == ("a", "b")  # it holds no class
    fill(tmp_path / "Training", 0, a=1, b=1)
    assert "Training and train are one split, train: put their images into one" in refusal(tmp_path)


def test_folders_of_groups_hold_the_classes(tmp_path, capsys):
    for group, counts in (("animals", {"cat": 6, "dog": 5}), ("things", {"cup": 5, "other": 4})):
        fill(tmp_path / group, len(group), **counts)
    fill(tmp_path / "animals", 9, other=5)  # a name that two groups have
    dataset = data.load(str(tmp_path), SIZE)
    names = ("animals/cat", "animals/dog", "animals/other", "things/cup", "things/other")
    assert dataset.class_names == names
    counts = sum(np.bincount(split.labels) for split in dataset.splits.values())
    assert counts.tolist() == [6, 5, 5, 5, 4]
    line = "animals, things hold no images themselves and are read as groups of classes, such as"
    assert line in capsys.readouterr().err
    assert any(line in note for note in inspect.describe(str(tmp_path), SIZE).notes)
    whole = sources.load_for_testing(str(tmp_path), SIZE)
    assert whole.class_names == names


def test_an_image_in_a_group_makes_it_a_class(tmp_path, capsys):
    fill(tmp_path, 0, animals=2, things=3)
    fill(tmp_path / "animals", 1, cat=6, dog=5)
    fill(tmp_path / "things" / "cups", 2, deep=1)
    dataset = data.load(str(tmp_path), SIZE)
    assert dataset.class_names == ("animals", "things")
    counts = sum(np.bincount(split.labels) for split in dataset.splits.values())
    assert counts.tolist() == [13, 4]
    said = capsys.readouterr().err
    assert (
        "images in animals/cat, animals/dog, things/cups and 1 more are of the class whose" in said
    )


def test_folders_of_the_same_names_are_parts_of_classes(tmp_path):
    for animal in ("cat", "dog", "owl"):
        fill(tmp_path / animal, len(animal) + ord(animal[0]), monday=3, friday=2)
    fill(tmp_path / "cat", 0, sunday=4)
    dataset = data.load(str(tmp_path), SIZE)
    assert dataset.class_names == ("cat", "dog", "owl")
    counts = sum(np.bincount(split.labels) for split in dataset.splits.values())
    assert counts.tolist() == [9, 5, 5]
    (tmp_path / "groups").mkdir()
    for animal in ("cat", "dog", "owl"):
        place = "pets" if animal != "owl" else "birds"
        (tmp_path / "groups" / place).mkdir(exist_ok=True)
        (tmp_path / animal).rename(tmp_path / "groups" / place / animal)
    assert class_names(tmp_path / "groups") == ("birds/owl", "pets/cat", "pets/dog")


def test_all_splits_have_their_classes_at_the_depth_of_train(tmp_path):
    for group, counts in (("animals", {"cat": 3, "dog": 3}), ("things", {"cup": 3})):
        fill(tmp_path / "train" / group, len(group), **counts)
    for group, counts in (("animals", {"cat": 1, "dog": 1}), ("things", {"cup": 1})):
        fill(tmp_path / "test" / group, len(group) + 20, **counts)
    fill(tmp_path / "test", 30, animals=1)  # a stray, which makes no class of the group
    names = ("animals/cat", "animals/dog", "things/cup")
    assert class_names(tmp_path) == names
    source = folders.source(tmp_path)
    assert source.splits["test"]().strays == ("test/animals/0.png",)
    assert sources.load_for_testing(str(tmp_path), SIZE).class_names == names


def test_a_folder_that_only_wraps_the_images_is_entered(tmp_path):
    for split in ("train", "test"):
        fill(tmp_path / "archive" / "pictures" / split, len(split), a=3, b=2)
    (tmp_path / "__MACOSX" / "archive").mkdir(parents=True)
    assert len(data.load(str(tmp_path), SIZE).splits["train"].labels) == 5
    fill(tmp_path / "flat" / "wrapped", 0, a=5, b=5)
    assert class_names(tmp_path / "flat") == ("a", "b")
    files = data.load(str(tmp_path / "flat"), SIZE).files["train"]()
    assert files[0].startswith("wrapped/a/")


def test_splits_below_the_classes_are_refused(tmp_path):
    for animal in ("cat", "dog"):
        fill(tmp_path / animal, len(animal), train=3, test=2)
    assert "cat holds test and train: put the splits above the classes" in refusal(tmp_path)


def test_links_within_a_class_lead_nowhere_twice(tmp_path):
    fill(tmp_path, 0, a=3, b=3)
    fill(tmp_path / "elsewhere", 1, more=2)
    (tmp_path / "elsewhere").rename(tmp_path.with_name(f"{tmp_path.name} beside"))
    (tmp_path / "a" / "linked").symlink_to(tmp_path.with_name(f"{tmp_path.name} beside"))
    (tmp_path / "a" / "to b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to a").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "up").symlink_to("..")
    dataset = data.load(str(tmp_path), SIZE)
    counts = sum(np.bincount(split.labels) for split in dataset.splits.values())
    # Of a: its own, those linked, those of b, whose link back is none; likewise of b.
    assert counts.tolist() == [3 + 2 + 3, 3 + 3 + 2]


def test_a_folder_of_images_beside_the_splits_is_told_and_left_out(tmp_path, capsys):
    for split in ("train", "test"):
        fill(tmp_path / split, len(split), a=4, b=4)
    fill(tmp_path / "train_augmented", 0, a=9, b=9)
    (tmp_path / "empty").mkdir()
    line = (
        "the images of train_augmented/ beside train, test are left out: to use them, put them "
        "into the class folders of train"
    )
    dataset = data.load(str(tmp_path), SIZE)
    assert len(dataset.splits["train"].labels) == 8
    assert capsys.readouterr().err.count(line) == 1
    data.load(str(tmp_path), SIZE)
    assert line not in capsys.readouterr().err  # once is enough
    assert main(["data", str(tmp_path), "--image-size=8", f"--out={tmp_path / 'x.png'}"]) == 0
    assert line in capsys.readouterr().out
