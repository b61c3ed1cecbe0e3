"""What is told of a data source: its numbers, its faults, its picture."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_cnn import data
from keras_cnn.__main__ import main
from keras_cnn.data import inspect, pictures
from keras_cnn.errors import UserError

SIZE = 8
COUNTS = {"train": (30, 24, 5), "valid": (6, 6, 6), "test": (8, 7, 6)}
CLASSES = ("ant", "bee", "cat")


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three splits without faults, but for the few cats in train."""
    rng = np.random.default_rng(0)
    for split, counts in COUNTS.items():
        for class_name, count in zip(CLASSES, counts, strict=True):
            for number in range(count):
                shade = rng.integers(0, 200)
                pixels = rng.integers(shade, 256, (SIZE, SIZE, 3), np.uint8)
                write(tmp_path / "data" / split / class_name / f"{number:02}.png", pixels)
    return tmp_path / "data"


def pixels_of(folder: Path) -> np.ndarray:
    paths = sorted(folder.glob("*/*.png"))
    return np.stack([np.asarray(Image.open(path)) for path in paths]) / 255


def test_numbers_are_numpys(folder):
    description = inspect.describe(str(folder), SIZE)
    assert list(description.splits) == ["train", "valid", "test"]
    assert description.class_names == CLASSES
    for name, split in description.splits.items():
        pixels = pixels_of(folder / name)
        assert split.counts == COUNTS[name]
        assert split.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=1e-12)
        assert split.standard_deviation == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=1e-12)
        assert (split.heights, split.widths) == ((SIZE, SIZE), (SIZE, SIZE))


def test_moments_over_several_blocks():
    images = np.random.default_rng(0).integers(0, 256, (2 * inspect.BLOCK + 7, 4, 4, 3), np.uint8)
    images[..., 1] //= 3
    mean, deviation = inspect._moments(images)
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(deviation, (images / 255).std(axis=(0, 1, 2)), rtol=1e-12)


def test_a_source_without_faults(folder):
    for number in range(5, 8):  # 8 cats are a third of the median, 24: no fault
        write(
            folder / "train" / "cat" / f"{number:02}.png",
            np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), np.uint8),
        )
    description = inspect.describe(str(folder), SIZE)
    assert description.duplicates == description.strays == ()
    for split in description.splits.values():
        assert split.unreadable == split.small_classes == split.small_images == ()
    assert "no faults" in inspect.render(description)


def test_unreadable_files_and_strays(folder):
    (folder / "test" / "bee" / "03.png").write_bytes(b"")
    (folder / "train" / "ant" / "notes.txt").touch()
    (folder / "extra").mkdir()
    description = inspect.describe(str(folder), SIZE)
    assert description.splits["test"].unreadable == (
        (os.path.join("test", "bee", "03.png"), "empty file"),
    )
    assert description.splits["test"].counts == (8, 6, 6)
    assert description.splits["train"].unreadable == ()
    assert sorted(description.strays) == ["extra/", os.path.join("train", "ant", "notes.txt")]
    text = inspect.render(description)
    assert "test/bee/03.png: empty file" in text
    assert "train/ant/notes.txt" in text


def test_names_stay_right_behind_an_unreadable_file(folder):
    (folder / "train" / "ant" / "00.png").write_bytes(b"")
    shutil.copy(folder / "train" / "ant" / "07.png", folder / "train" / "bee" / "03.png")
    ((first, second),) = inspect.describe(str(folder), SIZE).duplicates
    assert (first.name, second.name) == ("train/ant/07.png", "train/bee/03.png")


def test_duplicates(folder):
    train, valid, test = (folder / split for split in COUNTS)
    shutil.copy(train / "ant" / "00.png", train / "ant" / "20.png")  # in one class
    shutil.copy(train / "ant" / "01.png", train / "bee" / "01.png")  # in two classes
    shutil.copy(train / "ant" / "02.png", test / "ant" / "02.png")  # in train and test
    shutil.copy(train / "bee" / "05.png", test / "bee" / "05.png")
    shutil.copy(train / "bee" / "05.png", train / "bee" / "06.png")  # and twice in train
    shutil.copy(valid / "cat" / "00.png", test / "ant" / "00.png")
    # Other bytes, the same pixels:
    Image.open(train / "cat" / "00.png").save(train / "cat" / "01.png", compress_level=0)
    description = inspect.describe(str(folder), SIZE)

    def names(groups):
        return {tuple(picture.name for picture in group) for group in groups}

    assert names(description.shared("train", "train")) == {
        ("train/ant/00.png", "train/ant/20.png"),
        ("train/ant/01.png", "train/bee/01.png"),
        ("train/bee/05.png", "train/bee/06.png"),
        ("train/cat/00.png", "train/cat/01.png"),
    }
    assert description.shared("test", "test") == []
    assert names(description.shared("train", "test")) == {
        ("train/ant/02.png", "test/ant/02.png"),
        ("train/bee/05.png", "train/bee/06.png", "test/bee/05.png"),
    }
    assert names(description.shared("valid", "test")) == {("valid/cat/00.png", "test/ant/00.png")}
    assert description.shared("train", "valid") == []
    assert names(description.conflicting()) == {
        ("train/ant/01.png", "train/bee/01.png"),
        ("valid/cat/00.png", "test/ant/00.png"),
    }
    text = inspect.render(description)
    assert "same pixels in train and test (2)" in text
    assert "same pixels more than once in train (4)" in text
    assert "same pixels in different classes (2)" in text
    assert "train/ant/01.png (ant) = train/bee/01.png (bee)" in text


def test_all_images_alike(folder):
    for path in folder.glob("*/*/*.png"):
        write(path, np.full((SIZE, SIZE, 3), 51, np.uint8))
    description = inspect.describe(str(folder), SIZE)
    (group,) = description.duplicates
    assert len(group) == sum(map(sum, COUNTS.values()))
    assert description.splits["train"].mean == pytest.approx((0.2, 0.2, 0.2))
    assert description.splits["train"].standard_deviation == pytest.approx((0, 0, 0))


def test_small_classes(folder):
    description = inspect.describe(str(folder), SIZE)
    small = {name: split.small_classes for name, split in description.splits.items()}
    assert small == {"train": ("cat",), "valid": (), "test": ()}  # 5 of a median of 24
    assert "cat: 5" in inspect.render(description)


def test_small_images_and_the_range_of_sizes(folder):
    rng = np.random.default_rng(0)
    write(folder / "test" / "ant" / "00.png", rng.integers(0, 256, (3, 40, 3), np.uint8))
    write(folder / "test" / "ant" / "01.png", rng.integers(0, 256, (4, 4, 3), np.uint8))
    description = inspect.describe(str(folder), SIZE)
    split = description.splits["test"]
    assert (split.heights, split.widths) == ((3, SIZE), (4, 40))
    assert split.small_images == ("test/ant/00.png",)
    assert "3 to 8" in inspect.render(description)
    assert len(inspect.describe(str(folder), 17).splits["train"].small_images) == 59


def test_sources_without_files():
    description = inspect.describe("synthetic:40", 32)
    dataset = data.load("synthetic:40")
    for name, split in description.splits.items():
        images = dataset.splits[name].images / 255
        assert split.mean == pytest.approx(images.mean(axis=(0, 1, 2)))
        assert split.counts == (4,) * 10
    assert description.duplicates == ()


def test_text_gives_examples_not_all(folder):
    for number in range(10, 20):
        (folder / "train" / "ant" / f"{number}.png").write_bytes(b"")
    text = inspect.render(inspect.describe(str(folder), SIZE))
    assert "files that cannot be decoded and are left out (10)" in text
    assert "and 5 more" in text
    assert text.count("empty file") == 5


def test_many_classes_are_summed_up(tmp_path):
    for label in range(41):
        for split, count in (("train", 2 + label % 2), ("test", 1)):
            for number in range(count):
                pixels = np.random.default_rng([label, number, len(split)]).integers(
                    0, 256, (4, 4, 3)
                )
                write(
                    tmp_path / split / f"class{label:02}" / f"{number}.png", pixels.astype(np.uint8)
                )
    text = inspect.render(inspect.describe(str(tmp_path), 4))
    assert "41 classes" in text
    assert "2 to 3" in text
    assert "class07" not in text
    dataset = data.load(str(tmp_path), 4)
    pictures.samples(dataset, tmp_path / "grid.png")
    assert Image.open(tmp_path / "grid.png").width > 300


def test_samples_show_each_class_in_its_row():
    labels = np.repeat([0, 1, 2], [5, 2, 9])
    images = np.empty((16, 4, 4, 3), np.uint8)
    images[:] = (labels * 50 + 10)[:, None, None, None]
    images[:, 0, 0, 0] = np.arange(16)  # which image it is
    dataset = data.Dataset("x", ("a", "b", "c"), {"train": data.Split(images, labels)}, "", 4)
    cells = pictures._samples(dataset, 3, 5)
    for row, (shade, present) in enumerate([(10, 5), (60, 2), (110, 5)]):
        assert (cells[row, :present, 1:] == shade).all()
        assert (cells[row, present:] == 255).all()
        shown = cells[row, :present, 0, 0, 0].tolist()
        assert len(set(shown)) == present
        assert (labels[shown] == row).all()
    mosaic = pictures._mosaic(cells, 2)
    assert mosaic.shape == (18, 25, 3) and (mosaic[4:6] == 255).all()
    np.testing.assert_array_equal(mosaic[6:10, 5:9], cells[1, 1])


def test_picture_holds_the_samples(folder, tmp_path):
    """Each class painted in one colour: the colours stand in the picture, from top to bottom."""
    colours = {"ant": (200, 0, 0), "bee": (0, 200, 0), "cat": (0, 0, 200)}
    for path in folder.glob("*/*/*.png"):
        write(path, np.full((SIZE, SIZE, 3), colours[path.parent.name], np.uint8))
    pictures.samples(data.load(str(folder), SIZE), tmp_path / "grid.png")
    picture = np.asarray(Image.open(tmp_path / "grid.png").convert("RGB"))
    middles = []
    for colour in colours.values():
        rows = np.nonzero((picture == colour).all(axis=2))[0]
        assert len(rows) > 1000
        middles.append(rows.mean())
    assert middles == sorted(middles)


def test_a_picture_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        pictures.samples(data.load("synthetic:10"), tmp_path / "nowhere" / "grid.png")


def test_the_command(folder, tmp_path, capsys):
    (folder / "test" / "bee" / "03.png").write_bytes(b"text")
    out = tmp_path / "samples.png"
    assert main(["data", str(folder), "--image-size=8", f"--out={out}"]) == 0
    said = capsys.readouterr().out
    assert "test/bee/03.png: not a PNG" in said
    assert f"samples: {out}" in said
    assert Image.open(out).format == "PNG"
    assert main(["data", str(folder), "--image-size=8", f"--out={tmp_path / 'grid.svg'}"]) == 0
    assert "<svg" in (tmp_path / "grid.svg").read_text()


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "one class"])
def test_the_command_on_bad_input(tmp_path, capsys, kind):
    path = tmp_path / "source"
    if kind == "file":
        path.touch()
    elif kind != "missing":
        path.mkdir()
    if kind == "one class":
        write(path / "ant" / "0.png", np.zeros((4, 4, 3), np.uint8))
    assert main(["data", str(path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("keras_cnn: ")
    assert str(path) in said.err
    assert said.err.count("\n") == 1
