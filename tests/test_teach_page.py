from __future__ import annotations

import html.parser
import os
import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_cnn import data
from keras_cnn.errors import printable
from keras_cnn.methods.settings import LinearProbe, NearestMean
from keras_cnn.models import saved
from keras_cnn.results.scores import calibration_error
from keras_cnn.teach import page, tuning
from keras_cnn.teach.calibration import Calibration
from keras_cnn.teach.candidates import Candidate
from keras_cnn.teach.page.album import MOST
from keras_cnn.teach.page.measured import uncalibrated
from keras_cnn.teach.taught import Accuracy, Point, Scored, Taught, Told

HOSTILE = (
    "<script>alert(1)<script>.jpg",
    "\"quoted' & <b>&amp;.jpg",
    "\u05e9\u05dc\u05d5\u05dd\u202egpj.jpg",
    "a line\nand another.jpg",
    os.fsdecode(b"caf\xe9.jpg"),
    "x" * 200 + ".jpg",
    "$title ${body}.jpg",
)
CLASSES = ("<i>ants</i>", 'be"es', "\u05d3\u05d1\u05d5\u05e8\u05d4")
VOID = {"meta", "line", "br"}


class Reader(html.parser.HTMLParser):
    """The page's text, tags, tables, and the text of each element with an id."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.tables, self.text = [], {}, ""
        self.by_id, self._open = {}, []
        self.feed(page)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self._open.append((tag, attributes.get("id")))
        if tag == "table":
            self.rows = []
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self._open.pop()[0] == tag
        if tag == "caption":
            self.tables[self.caption.strip()] = self.rows

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        opened = [tag for tag, _ in self._open]
        if "style" in opened:
            return
        self.text += data
        if "caption" in opened:
            self.caption = data
        elif {"td", "th"} & {*opened}:
            self.rows[-1][-1] += data
        for _, name in self._open:
            if name:
                self.by_id.setdefault(name, []).append((opened, data))

    def files_of(self, anchor):
        return [data for opened, data in self.by_id[anchor] if "bdi" in opened and "li" in opened]


def shown_name(file):
    shown = printable(file)
    return shown if len(shown) <= 120 else f"{shown[:60]}…{shown[-59:]}"


def accuracy(right):
    return Accuracy(float(np.mean(right)), 0.1, 0.9, len(right))


def shares(generator, labels, classes):
    logits = generator.normal(size=(len(labels), classes)) + 1.5 * np.eye(classes)[labels]
    powers = np.exp(2 * logits)
    return powers / powers.sum(axis=1, keepdims=True)


def taught_on(folder, files, labels, test_files, test_labels, class_names, model_file):
    generator = np.random.default_rng(0)
    train = Told(files, labels, shares(generator, labels, len(class_names)), np.ones(len(files)))
    tested = shares(generator, test_labels, len(class_names))
    test = Told(test_files, test_labels, tested, np.linspace(0, 1, len(test_files)))
    chosen = Candidate("resnet18", "bundled", 32, "pad", LinearProbe(regularization_strength=10.0))
    other = replace(chosen, settings=NearestMean())
    foretold = accuracy(train.predicted == labels)
    return Taught(
        folder=folder,
        class_names=class_names,
        chosen=chosen,
        why_backbone="It was <best>.",
        candidates=(Scored(chosen, foretold, 0.5, 12.3), Scored(other, foretold, 0.7, 4.5)),
        train=train,
        test=test,
        foretold=foretold,
        tested=accuracy(test.predicted == test_labels),
        runner_up=Accuracy(0.4321, 0.3, 0.5, len(test_files)),
        majority=0.25,
        calibration=Calibration(1.5, 0.1, 0.7, (0.8, 0.95), (0.3, 0.05), 0.2),
        curve=(Point(4, (0.5, 0.6)), Point(8, (0.7, 0.8))),
        gain=0.2,
        model_file=model_file,
        command="python -m keras_cnn teach 'my folder'",
        seconds=12.0,
        equal=((files[0], test_files[-1]),),
        near=((files[1], files[-1]),),
        notes=("a <val> folder is not used",),
        faults=("unreadable (1)", "    <broken>.jpg: empty file"),
        environment={"backend": "torch", "versions": {"keras_cnn": "0.1"}},
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """What was taught on photographs and classes with names of all kinds."""
    folder = tmp_path_factory.mktemp("taught")
    generator = np.random.default_rng(1)
    files, labels = [], []
    for label, _ in enumerate(CLASSES):
        for name in (*HOSTILE, *(f"{number}.jpg" for number in range(13))):
            file = f"class {label}/{name}"
            (folder / file).parent.mkdir(exist_ok=True)
            pixels = generator.integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(folder / file)
            files.append(file)
            labels.append(label)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(4, 8, strides=8)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(len(CLASSES), "softmax")(x))
    model_file = folder / "the model's.keras"
    saved.save(model, model_file, {"class_names": list(CLASSES)})
    files, labels = np.array(files, object), np.array(labels)
    is_test = (np.arange(len(files)) + labels) % 2 == 0
    return taught_on(
        folder,
        files[~is_test].tolist(),
        labels[~is_test],
        files[is_test].tolist(),
        labels[is_test],
        CLASSES,
        model_file,
    )


@pytest.fixture(scope="module")
def written(example, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    page.write(example, path)
    return path.read_text(encoding="utf-8")


def table(reader, begins):
    (found,) = [rows for caption, rows in reader.tables.items() if caption.startswith(begins)]
    return found


def test_nothing_of_a_name_becomes_markup_and_nothing_is_fetched(example, written):
    reader = Reader(written)
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "b", "link", "iframe", "img"}
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith("#")
    assert {*re.findall(r"url\((.{5})", written)} == {"data:"}
    assert "http" not in reader.text and "@import" not in written
    for name in (*CLASSES, *HOSTILE):
        assert (printable(name) if len(name) < 100 else "xxx…xxx") in reader.text
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len({*ids})
    opened = {a["popovertarget"] for _, a in reader.tags if "popovertarget" in a}
    assert opened <= {*ids}


def test_cells_hold_their_images(example, written):
    reader, test = Reader(written), example.test
    rows = table(reader, "Images set aside by class")[1:]
    for true, (name, *counts, total) in enumerate(rows):
        assert name == printable(CLASSES[true])
        assert int(total) == (test.labels == true).sum()
        for said, count in enumerate(counts):
            inside = np.flatnonzero((test.labels == true) & (test.predicted == said))
            assert int(count or 0) == len(inside)
            if len(inside):
                sure = test.probabilities[inside, said]
                ordered = inside[np.argsort(sure if true == said else -sure, kind="stable")]
                expected = [shown_name(test.files[image]) for image in ordered]
                listed = [x for x in reader.files_of(f"cell-{true}-{said}") if x not in CLASSES]
                assert listed[: len(expected)] == expected


def test_mistakes_are_shown_with_what_speaks_for_them(example, written):
    wrong = np.flatnonzero(example.test.predicted != example.test.labels)
    surest = wrong[example.test.probabilities.max(axis=1)[wrong].argmax()]
    body = written[written.index('id="mistakes"') : written.index('id="labels"')]
    first = body.index('<li class="wrong">')
    assert printable(example.test.files[surest]).split("/")[1][:3] in body[first : first + 900]
    assert f"Wrong are {len(wrong)} images of the {len(example.test.files)}" in body
    assert body.count('class="picture p') == body.count('class="picture d') == 24
    for kind in ("p", "d"):
        used = {*re.findall(rf'class="picture ({kind}\d+)"', written)}
        assert used == {*re.findall(rf"^\.({kind}\d+){{background-image", written, re.MULTILINE)}


def test_doubtful_labels_copies_and_faults(example, written):
    text = Reader(written).text
    differ = int((example.train.predicted != example.train.labels).sum())
    assert f"Of {len(example.train.files)} training images, {differ} were called" in text
    assert "labels differ; one trains, one tests" in text
    assert "<broken>.jpg: empty file" in text and "a <val> folder is not used" in text
    own = example.train.probabilities[np.arange(len(example.train.labels)), example.train.labels]
    worst = np.log(own / example.train.probabilities.max(axis=1)).argmin()
    shown = Reader(written).text
    first = shown[shown.index("mend the folder") :]
    assert first.index(shown_name(example.train.files[worst])) < first.index("labelled")
    assert "1 pair of files has the same pixels. In 1 the labels differ. In 1 one trains" in text


def test_figures_are_those_of_numpy(example, written):
    reader, test, train = Reader(written), example.test, example.train
    right = test.predicted == test.labels
    assert f"{100 * right.mean():.1f}%" in reader.text and "43.2% (30.0 to 50.0)" in reader.text
    sure = test.probabilities.max(axis=1)
    before, after = table(reader, "Before and after")[1:]
    assert after[1] == f"{100 * sure.mean():.1f}%" and after[2] == f"{100 * right.mean():.1f}%"
    assert after[3] == f"{100 * calibration_error(test.labels, test.probabilities):.1f}%"
    own = test.probabilities[np.arange(len(right)), test.labels]
    assert after[4] == f"{-np.log(own).mean():.3f}"
    raised = test.probabilities**1.5
    raised /= raised.sum(axis=1, keepdims=True)
    assert before[4] == f"{-np.log(raised[np.arange(len(right)), test.labels]).mean():.3f}"
    answered = sure >= 0.7
    _, kept, unsure = table(reader, "Errors")[1:]
    assert kept[1:3] == [str(answered.sum()), str((answered & ~right).sum())]
    assert unsure[3] == f"{100 * (~right)[~answered].mean():.1f}%"
    for row, least in zip(table(reader, "Prediction sets")[1:], (0.3, 0.05), strict=True):
        assert row[1].startswith(f"{100 * (own >= least).mean():.1f}% (")
        assert row[2] == f"{(test.probabilities >= least).sum(axis=1).mean():.2f}"
    assert f"{100 * (test.familiar < 0.2).mean():.1f}% (n = {len(right)})" in reader.text
    for label, row in enumerate(table(reader, "Classes")[1:]):
        assert row[1:3] == [str((part.labels == label).sum()) for part in (train, test)]
        assert row[3].startswith(f"{100 * right[test.labels == label].mean():.1f}% (")
        of = test.predicted == label
        assert row[4] == f"{100 * right[of].mean():.1f}% of {of.sum()}"
    chosen, other = table(reader, "Candidates")[1:]
    assert chosen[0] == "linear probe chosen" and other[0] == "nearest mean"
    assert chosen[1] == "regularization_strength=10" and chosen[-2:] == ["0.500", "12.3"]


def test_temperature_is_taken_back():
    logits = np.random.default_rng(2).normal(size=(5, 4)) * 3
    powers = np.exp(logits / 2.5)
    plain = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = uncalibrated(powers / powers.sum(axis=1, keepdims=True), 2.5)
    np.testing.assert_allclose(found, plain, rtol=1e-9)


def test_usage_names_the_real_files(example, written):
    text = Reader(written).text
    model = str(example.model_file)
    assert f"predict({model!r}, ['photo.jpg'])" in text
    assert f"keras_cnn evaluate '{example.folder}/the model'\"'\"'s.keras'" in text
    assert text.count(example.command) == 2
    assert "Made with backend torch, keras cnn 0.1." in text


def test_images_of_a_data_source_are_seen_without_files():
    album = page.Album(Path("digits"), 16, "crop")
    digits = data.load("digits", 16).splits["test"].images
    np.testing.assert_array_equal(album.pixels("test 3", 16), digits[3])
    assert album.pixels("test 3").shape == (128, 128, 3)
    for name in ("test 1000000", "test", "3", "gone/photo.jpg", "a 3"):
        assert album.pixels(name) is None


def test_a_curve_needs_two_points(example):
    body = page.curve.section(example).body
    assert "<svg" in body and "brought +20.0 points" in body
    for points in (
        (),
        (Point(4, (0.5,)),),
    ):
        body = page.curve.section(replace(example, curve=points)).body
        assert "<svg" not in body and "too few images" in body
    flat = (Point(4, (0.0, 0.0)), Point(8, (0.0,)), Point(16, (0.0,)))
    assert "nan" not in page.curve.section(replace(example, curve=flat)).body


def test_the_curve_of_a_fine_tuned_model_says_that_it_is_a_probes(example):
    assert "linear probe" not in page.curve.section(example).body
    tuned = replace(example, chosen=replace(example.chosen, settings=tuning.SETTINGS))
    assert "of the linear probe that fine-tuning begins with" in page.curve.section(tuned).body


def test_images_without_numbers_and_classes_without_images(example):
    untold = example.test.probabilities.copy()
    untold[:5] = np.nan
    test = replace(example.test, probabilities=untold)
    no_strangers = replace(test, familiar=np.full(len(untold), np.nan))
    named = (*CLASSES, "never seen")
    padded = np.pad(untold, ((0, 0), (0, 1)))
    train = replace(
        example.train, probabilities=np.pad(example.train.probabilities, ((0, 0), (0, 1)))
    )
    for other in (
        replace(example, test=no_strangers, equal=(), near=(), notes=(), faults=(), runner_up=None),
        replace(example, class_names=named, test=replace(test, probabilities=padded), train=train),
        replace(example, test=replace(test, probabilities=np.full_like(untold, np.nan))),
    ):
        other = replace(other, folder=Path("/gone"))  # and no photograph is to be had
        assert (
            "5 images the model gives no number" in page.page(other)
            or not np.isfinite(other.test.probabilities).any()
        )


@pytest.mark.parametrize("classes", [40, 1000])
def test_the_page_stays_small(classes, tmp_path):
    generator = np.random.default_rng(3)
    count = 20_000
    names = tuple(f"a class of things number {number}" for number in range(classes))
    noise = generator.integers(0, 256, (128, 128, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    files = []
    for number in range(count):
        files.append(f"test/{names[number % classes]}/{number:06}.png")
    labels = np.arange(count) % classes
    taught = taught_on(tmp_path, files[:500], labels[:500], files, labels, names, tmp_path / "no")
    # Pixels that no JPEG makes small, in the place of every file.
    taught = replace(taught, equal=tuple(zip(files[:300], files[300:600], strict=True)))
    album = page.Album(tmp_path, 32, "crop")
    for file in files:
        album.add(file)
    album.pixels = lambda file, side=128: noise
    assert album.style().count("background-image") == MOST
    text = page.page(taught)
    assert len(text.encode()) + len(album.style()) < 8e6
    reader = Reader(text)
    assert any(caption.startswith("Images set aside") for caption in reader.tables) == (
        classes == 40
    )
    assert len(table(reader, "Confusions")) > 5
    assert ("more images." in text) == (classes == 40)
