from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_cnn import data
from keras_cnn.data import clothing, image_file
from keras_cnn.errors import UserError

# From the listing of the repository's own folders.
PHOTOGRAPHS = {
    "train": (241, 123, 455, 184, 468, 290, 198, 202, 112, 795),
    "valid": (32, 14, 49, 24, 49, 29, 26, 25, 12, 81),
    "test": (15, 12, 72, 38, 42, 26, 73, 30, 12, 52),
}


def test_the_parts_are_their_authors_and_names_lead_back_to_the_photographs():
    with zipfile.ZipFile(clothing.BUNDLE) as bundle:
        names = json.loads(bundle.read("names.json"))
        assert bundle.read("LICENSE").startswith(
            b"Creative Commons Legal Code\n\nCC0 1.0 Universal"
        )
    assert sum(map(len, names.values())) == len({one for part in names.values() for one in part})
    loaded = data.load("clothing", splits=("train", "valid", "test"))
    for split, counts in PHOTOGRAPHS.items():
        assert tuple(np.bincount(loaded.splits[split].labels)) == counts
        listed = [len(names[f"{split}/{name}"]) for name in loaded.class_names]
        assert tuple(listed) == counts
        assert loaded.splits[split].images.shape == (sum(counts), 32, 32, 3)


def test_a_large_test_part_leaves_the_smallest_class_s_number_to_train_on():
    whole = clothing.source().splits["train"]().content()
    splits = clothing.large_test().splits
    train, test = splits["train"]().content(), splits["test"]().content()
    assert np.array_equal(np.bincount(train[1]), [112] * 10)
    given = clothing.source().splits["test"]().content()
    assert len(test[1]) == 2320 == len(whole[1]) - 1120 + len(given[1])
    together = np.concatenate([train[0], test[0][: -len(given[0])]])
    for images, parts in ((whole[0], together), (given[0], test[0][-len(given[0]) :])):
        assert sorted(map(bytes, images)) == sorted(map(bytes, parts))
    for label in range(10):  # also by class
        assert {*map(bytes, train[0][train[1] == label])} <= {
            *map(bytes, whole[0][whole[1] == label])
        }


def test_choices_are_tested_on_photographs_that_are_neither_training_nor_test():
    whole = data.load("clothing", splits=("train", "valid", "test")).splits
    chosen_on = data.load("clothing:choices").splits
    for split, part in {"train": "train", "test": "valid"}.items():
        np.testing.assert_array_equal(chosen_on[split].images, whole[part].images)
        np.testing.assert_array_equal(chosen_on[split].labels, whole[part].labels)


def test_it_is_made_from_the_folder_by_the_decoding_any_folder_gets(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "LICENSE").write_text("license")
    squares = {}
    for part in clothing.PARTS.values():
        for name in clothing.CLASS_NAMES:
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(2):
                coarse = rng.integers(0, 255, (3, 4, 3), dtype=np.uint8)
                photograph = Image.fromarray(coarse).resize((90, 70), Image.Resampling.BICUBIC)
                photograph.save(folder / f"{number}.jpg", quality=95)
                raw = (folder / f"{number}.jpg").read_bytes()
                squares[part, name, number] = image_file.decode_image(raw, 64)[0]
    bundle = tmp_path / "made.zip"
    clothing.make(tmp_path, bundle)
    with zipfile.ZipFile(bundle) as made:
        strip = np.asarray(Image.open(made.open("valid/hat.jpg"))).reshape(-1, 64, 64, 3)
    for number, square in enumerate(strip):
        wanted = squares["validation", "hat", number].astype(int)
        assert np.abs(square - wanted).mean() < 3  # JPEG's loss
    with pytest.raises(UserError, match="no LICENSE"):
        clothing.make(tmp_path / "train", bundle)


@pytest.mark.parametrize("damage", ["bit", "cut", "missing"])
def test_a_damaged_bundle_is_one_line(tmp_path, monkeypatch, damage):
    raw = bytearray(clothing.BUNDLE.read_bytes())
    raw[len(raw) // 2] ^= 1
    path = tmp_path / "clothing.zip"
    if damage != "missing":
        path.write_bytes(raw[: len(raw) // 2] if damage == "cut" else raw)
    monkeypatch.setattr(clothing, "BUNDLE", path)
    with pytest.raises(UserError, match="install keras_cnn again"):
        clothing._read("train")
