"""`teach`: its parts by NumPy and simulation, the whole on a folder."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score

from keras_cnn import ImageClassifier, data, prediction, results
from keras_cnn.errors import UserError
from keras_cnn.methods.settings import LinearDiscriminant, LinearProbe, NearestMean
from keras_cnn.models import saved
from keras_cnn.teach import (
    Request,
    backbones,
    calibration,
    curve,
    familiar,
    figures,
    folds,
    keeping,
    learners,
    lesson,
    pictures,
    search,
    teach,
    terminal,
    tuning,
)

ROOMY = {"backbone": "convnext_atto", "method": "nearest_mean"}  # quick, and always at hand


@pytest.fixture(scope="module")
def shirts():
    """Forty photographs of three kinds of clothing."""
    split = data.load("clothing").splits["train"]
    kept = np.concatenate([np.flatnonzero(split.labels == label)[:40] for label in (1, 4, 6)])
    return np.asarray(split.images[kept]), np.array(split.class_names)[split.labels[kept]]


@pytest.fixture
def folder(tmp_path, shirts):
    """Two classes, twelve images to train on and eight to test on; one of them twice."""
    images, names = shirts
    for name in ("hat", "pants"):
        for place, image in enumerate(images[names == name][:20]):
            split = "train" if place < 12 else "test"
            path = tmp_path / "photos" / split / f"{name} <b>" / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[:, 8:56]).save(path)  # taller than wide
    first = tmp_path / "photos" / "train" / "hat <b>" / "0.png"
    first.with_name("again.png").write_bytes(first.read_bytes())
    return tmp_path / "photos"


def test_a_group_is_in_one_fold_and_classes_in_all():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    groups = np.arange(200) // 2
    labels = labels[groups * 2]  # copies have one label
    for drawn in folds.draw(labels, groups, seed=1):
        assert all(len(np.unique(drawn[groups == group])) == 1 for group in np.unique(groups))
        for fold in range(5):
            counts = np.bincount(labels[drawn == fold], minlength=4)
            assert (np.abs(counts - np.bincount(labels) / 5) <= 4).all()


def test_of_few_images_the_folds_are_drawn_several_times_and_differently():
    labels = np.arange(50) % 5
    drawn = folds.draw(labels, np.arange(50), seed=1)
    assert len(drawn) == 10 and len(np.unique(drawn, axis=0)) == 10
    assert len(folds.draw(np.arange(2000) % 5, np.arange(2000), seed=1)) == 1


def test_where_nothing_can_be_held_out_a_line_says_so():
    with pytest.raises(UserError, match="no class has two training images"):
        folds.draw(np.arange(3), np.arange(3), seed=1)
    with pytest.raises(UserError, match="no class has two training images"):
        folds.draw(np.array([0, 0, 1]), np.array([5, 5, 6]), seed=1)  # the first two are copies
    assert folds.draw(np.array([0, 0, 1]), np.arange(3), seed=1).max() == 1


def test_held_out_images_are_not_learnt_from():
    """Labels that have nothing to do with the features are told no better than by chance."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(600, 50)), rng.integers(0, 2, 600)
    learn = learners.on_features(NearestMean(), features, labels)
    found = search.said(learn, labels, folds.draw(labels, np.arange(600), 0))
    assert abs(found.right.mean() - 0.5) < 0.08


@pytest.mark.parametrize("fold_count", [2, 3, 5])
def test_the_forecast_goes_on_from_the_images_that_a_fold_had(fold_count: int):
    """A line through half of a fold's images and all of them, read off at all there are."""
    rng = np.random.default_rng(0)
    labels, folds_drawn = np.arange(300) % 2, (np.arange(300) // 2 % fold_count)[None]
    logits = rng.normal(size=(1, 300, 2)) + 0.5 * np.eye(2)[labels]
    found = figures.out_of_fold(labels, logits)
    share = folds.trained_share(folds_drawn)
    held_out = [(folds_drawn != fold).sum() for fold in folds_drawn[0]]
    assert share == pytest.approx(np.mean(held_out) / 300)
    foretold = figures.foretold(found, 0.08, share, images=200)
    right = (logits[0].argmax(axis=1) == labels).mean()
    of_a_fold = 150 - 150 / fold_count  # images a class
    line = np.polyfit(np.log([of_a_fold / 2, of_a_fold]), [right - 0.08, right], 1)
    assert foretold.value == pytest.approx(np.polyval(line, np.log(150)))
    for gain in (-0.1, None):  # more images are never foretold to do harm
        assert figures.foretold(found, gain, share, images=200).value == pytest.approx(right)


def test_a_doubling_is_from_half_of_each_class_to_all_of_it():
    """Nearest means by NumPy, which are given the halves."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), (40, 10, 5))
    features = rng.normal(size=(55, 6)) + 0.8 * np.eye(3, 6)[labels]
    drawn = folds.draw(labels, np.arange(55), 0)
    learn = learners.on_features(NearestMean(), features, labels)
    accuracies = {1: [], 2: []}
    for fold_of in drawn:
        for fold in range(5):
            (training,), (held_out,) = np.nonzero(fold_of != fold), np.nonzero(fold_of == fold)
            shuffled = np.random.default_rng(len(training)).permutation(training)
            for part, found in accuracies.items():
                own = [shuffled[labels[shuffled] == label] for label in range(3)]
                assert [len(one) for one in own] == [32, 8, 4]
                kept = np.concatenate([one[: len(one) // part] for one in own])
                answers = learn(kept, held_out).argmax(axis=1)
                found.append((answers == labels[held_out]).mean())
    whole, half = (np.mean(accuracies[part]) for part in (1, 2))
    gain = curve.gain_of_doubling(NearestMean(), features, labels, drawn)
    assert gain == pytest.approx(whole - half) and gain > 0
    alone = curve.gain_of_doubling(NearestMean(), features[:2], np.arange(2), np.array([[0, 1]]))
    assert alone is None


def test_of_a_class_with_one_image_nothing_is_told():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 6 + [1] * 6 + [2])
    features = rng.normal(size=(13, 4)) + 5 * np.eye(4)[labels]
    learn = learners.on_features(NearestMean(), features, labels)
    found = search.said(learn, labels, folds.draw(labels, np.arange(13), 0))
    assert found.told.tolist() == [True] * 12 + [False]
    assert np.isnan(found.probabilities[-1]).all()
    assert np.isfinite(figures.log_loss(found))


@pytest.mark.parametrize("true", [0.2, 1.0, 4.0])
def test_the_temperature_that_made_the_labels_is_found(true: float):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 4)) * 3
    shares = softmax(logits / true, axis=1)
    labels = (shares.cumsum(axis=1) < rng.random((len(logits), 1))).sum(axis=1)
    found = calibration.temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.05)
    grid = np.geomspace(0.05, 20, 200)
    losses = [-log_softmax(logits / t, axis=1)[np.arange(20_000), labels].mean() for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.05)


def test_where_all_is_right_the_temperature_leaves_as_much_doubt_as_so_few_images_do():
    """Logits of one margin: then each probability is the one that is most likely, by hand."""
    labels = np.arange(28) % 2
    logits = 3.0 * np.eye(2)[labels]
    for images, given in ((28, None), (7, 7)):  # of four repeats
        found = calibration.temperature(logits, labels, given)
        right = softmax(logits / found, axis=1)[np.arange(28), labels]
        np.testing.assert_allclose(right, (images + 1) / (images + 2), rtol=1e-3)
    more = np.pad(logits, ((0, 0), (0, 1)), constant_values=-np.inf)  # of a class no fold had
    assert calibration.temperature(more, labels) == calibration.temperature(logits, labels)
    labels[0] = 1  # one is wrong: then the share that is right is the most likely
    found = calibration.temperature(logits, labels)
    np.testing.assert_allclose(softmax(logits / found, axis=1).max(axis=1), 27 / 28, rtol=1e-3)


def test_answers_above_the_threshold_keep_the_error_rate_and_no_lower_one_would():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(500, 3)) * 2
    shares = softmax(logits, axis=1)
    labels = (shares.cumsum(axis=1) < rng.random((500, 1))).sum(axis=1)
    threshold = calibration.threshold(shares, labels, 0.1)
    sure, wrong = shares.max(axis=1), shares.argmax(axis=1) != labels
    assert wrong[sure >= threshold].mean() <= 0.1
    lower = np.unique(sure[sure < threshold])
    assert all(wrong[sure >= other].mean() > 0.1 for other in lower)
    assert calibration.threshold(shares, labels, 0.9) == 0
    assert calibration.threshold(shares, (shares.argmax(axis=1) + 1) % 3, 0.1) == 1


def test_prediction_sets_cover_what_they_promise():
    """Over 2,000 draws of held-out images, the mean coverage of new ones."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        shares = softmax(rng.normal(size=(60, 5)), axis=1)
        labels = (shares.cumsum(axis=1) < rng.random((60, 1))).sum(axis=1)
        least = calibration.least_of_set(shares[:39], labels[:39], 0.9)
        told = shares[39:, :][np.arange(21), labels[39:]]
        covered.append((told >= least).mean())
    assert np.mean(covered) == pytest.approx(0.9, abs=0.01)  # (39 + 1) * 0.9 is whole
    assert calibration.least_of_set(shares[:5], labels[:5], 0.95) == 0


def test_familiarity_is_the_cosine_of_the_fifth_nearest():
    rng = np.random.default_rng(0)
    features, new = rng.normal(size=(30, 8)), rng.normal(size=(6, 8))
    kept = familiar.of(features, seed=0)
    moved, other = features - features.mean(axis=0), new - features.mean(axis=0)
    cosines = (other @ moved.T) / np.outer(
        np.linalg.norm(other, axis=1), np.linalg.norm(moved, axis=1)
    )
    np.testing.assert_allclose(kept.score(new), np.sort(cosines, axis=1)[:, -5], atol=2e-3)
    alone = familiar.among_themselves(features, np.arange(30), seed=0)
    cosines = moved @ moved.T / np.outer(*[np.linalg.norm(moved, axis=1)] * 2)
    np.fill_diagonal(cosines, -1)
    np.testing.assert_allclose(alone, np.sort(cosines, axis=1)[:, -5], atol=1e-5)


def test_a_folder_is_taught_tested_and_kept(folder: Path, tmp_path: Path):
    request = Request(str(folder), tmp_path / "out", **ROOMY)
    taught = teach(request)
    assert taught.class_names == ("hat <b>", "pants <b>")
    assert len(taught.train.labels) == 25 and len(taught.test.labels) == 16
    assert {*taught.equal} == {("train/hat <b>/0.png", "train/hat <b>/again.png")}
    assert len(taught.candidates) == 3  # a fit each
    # The file gives what was said of the test images, and the runs are read as any.
    evaluation = prediction.evaluate(taught.model_file, str(folder))
    np.testing.assert_allclose(evaluation.probabilities, taught.test.probabilities, atol=1e-4)
    assert evaluation.accuracy == taught.tested.value
    for one in taught.candidates:
        result = results.read(one.folder)
        assert result.metrics["test_accuracy_over_images"] == pytest.approx(
            one.accuracy.value, abs=0.1
        )
        assert result.predictions.names.tolist() == taught.train.files
    page = (tmp_path / "out" / "index.html").read_text()
    assert "hat &lt;b&gt;" in page and "hat <b>" not in page
    card = json.loads(zipfile.ZipFile(taught.model_file).read(saved.CARD))
    assert card["calibration"]["temperature"] == taught.calibration.temperature
    # `predict` says of the answers what the file knows: as from features and probabilities.
    paths = [folder / name for name in taught.test.files]
    told = prediction.predict(taught.model_file, paths)
    np.testing.assert_array_equal(
        told.unsure, told.probabilities.max(axis=1) < taught.calibration.threshold
    )
    strange = taught.test.familiar < taught.calibration.familiar_threshold
    assert (told.strange == strange).mean() > 0.9  # features are kept in 16 bits
    least = dict(zip(taught.calibration.coverages, taught.calibration.least, strict=True))
    for names, row in zip(told.sets(0.9), told.probabilities, strict=True):
        held = {taught.class_names[k] for k in np.flatnonzero(row >= least[0.9])}
        assert {*names} == held | {taught.class_names[row.argmax()]}
    again = teach(request)
    np.testing.assert_array_equal(again.test.probabilities, taught.test.probabilities)


def test_a_validation_folder_is_left_alone_and_told(folder: Path):
    (folder / "Val").mkdir()
    for name in ("hat <b>", "pants <b>"):
        (folder / "Val" / name).mkdir()
        (folder / "Val" / name / "broken.png").write_bytes(b"no image")
    notes, faults = pictures.of(str(folder), 64, None, 0).notes_and_faults()
    assert [line for line in notes if "the 2 images of the valid folder are not used" in line]
    assert not any("broken" in line for line in faults)


def test_no_test_image_has_a_say_in_the_choice(folder: Path, tmp_path: Path):
    first = teach(Request(str(folder), tmp_path / "one", **ROOMY))
    for path in sorted(folder.glob("test/*/*.png")):  # every test image in the wrong class
        other = "pants <b>" if path.parent.name == "hat <b>" else "hat <b>"
        path.rename(folder / "test" / other / f"moved-{path.name}")
    second = teach(Request(str(folder), tmp_path / "two", **ROOMY))
    assert [one.candidate for one in first.candidates] == [
        one.candidate for one in second.candidates
    ]
    assert first.calibration == second.calibration
    assert second.tested.value == pytest.approx(1 - first.tested.value)


def test_the_estimator_is_one_of_scikit_learns(shirts, tmp_path: Path):
    images, names = shirts
    classifier = ImageClassifier(**ROOMY)
    assert clone(classifier).get_params() == classifier.get_params()
    scores = cross_val_score(classifier, images, names, cv=2)
    assert scores.mean() > 0.7  # a third is chance
    searched = GridSearchCV(classifier, {"square": ["crop", "pad"]}, cv=2).fit(images, names)
    assert searched.predict(images[:2]).tolist() == names[:2].tolist()
    model = searched.best_estimator_
    model.save(tmp_path / "clothes.keras")
    paths = []
    for place in (0, 50):
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(images[place]).save(paths[-1])
    told = prediction.predict(tmp_path / "clothes.keras", paths)
    assert told.class_names == ["hat", "pants", "shoes"]
    np.testing.assert_allclose(told.probabilities, model.predict_proba(paths), atol=1e-4)


def test_a_saved_model_knows_strangers_whatever_its_head_does_to_features(shirts, tmp_path):
    """As by the features themselves, also of heads that centre them or bring them to length 1."""
    images, names = shirts
    kept = names != "shoes"
    shown, labels = images[kept], np.unique(names[kept], return_inverse=True)[1]
    paths = [tmp_path / f"{place}.png" for place in range(120)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    backbone = backbones.Backbone("convnext_atto", "bundled", "")
    photos = search.Photos(labels, np.arange(80), lambda image_size, fit: shown)
    methods = (
        NearestMean(centered=False, normalised=True),
        NearestMean(),
        LinearDiscriminant(normalised=False),
        LinearProbe(regularization_strength=1.0),
    )
    for one in search.search(photos, [backbone], ["crop"], methods, search.Clock(600), seed=0):
        taught = lesson.of(one, [backbone], photos, 0.05, seed=0)
        scores = taught.familiar.score(backbones.features(taught.network, images))
        half = float(np.median(scores))  # a threshold that many images are on either side of
        told_apart = dataclasses.replace(taught.calibration, familiar_threshold=half)
        taught = dataclasses.replace(taught, calibration=told_apart)
        keeping.save(taught, ["a", "b"], tmp_path / "model.keras")
        told = prediction.predict(tmp_path / "model.keras", paths)
        clear = np.abs(scores - half) > 1e-3
        assert clear.sum() > 90
        np.testing.assert_array_equal(
            told.strange[clear], scores[clear] < half, one.candidate.title
        )


@pytest.mark.parametrize(
    ("settings", "images", "labels", "words"),
    [
        ({"backbone": "vgg"}, 4, 4, "no backbone 'vgg'"),
        ({"method": "svm"}, 4, 4, "no method 'svm'"),
        ({"error_rate": 0}, 4, 4, "the error rate is 0 percent"),
        ({}, 4, 3, "4 images and 3 labels"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_line(settings, images: int, labels: int, words: str):
    pixels = np.zeros((images, 8, 8, 3), np.uint8)
    with pytest.raises(UserError, match=words):
        ImageClassifier(**{**ROOMY, **settings}).fit(pixels, np.arange(labels) % 2)


def test_with_balance_the_table_shows_the_loss_that_chose(folder: Path, tmp_path, monkeypatch):
    """From each run's probabilities by NumPy: the mean over classes of the mean over images."""
    for place, path in enumerate(sorted(folder.glob("train/pants*/*.png"))):
        if place < 6:
            path.unlink()
        elif place < 9:  # labels that are wrong, so that there is a loss
            path.rename(folder / "train" / "hat <b>" / f"moved-{path.name}")
    monkeypatch.setattr(folds, "IMAGES_OF_REPEATS", 1)  # folds once, of which runs keep all
    asked = {"backbone": "convnext_atto", "method": "linear_discriminant", "fit": "crop"}
    taught = teach(Request(str(folder), tmp_path / "out", balance=True, **asked))
    own, plain = [], []
    for one in taught.candidates:
        kept = results.read(one.folder).predictions
        told = kept.probabilities[np.arange(len(kept.labels)), kept.labels].astype(np.float64)
        losses = -np.log(told)
        plain.append(losses.mean())
        own.append(np.mean([losses[kept.labels == label].mean() for label in (0, 1)]))
    assert np.abs(np.subtract(own, plain)).max() > 0.01  # 16 hats and 3 pants
    assert own == sorted(own) and taught.chosen == taught.candidates[0].candidate
    table = [line.split() for line in terminal.lines(taught) if "linear_discriminant" in line]
    shown = [float(row[-1]) for row in table]
    assert shown == pytest.approx(own[: len(shown)], abs=2e-3) and len(shown) == terminal.SHOWN


def test_with_balance_every_class_counts_alike():
    rng = np.random.default_rng(0)
    labels = np.array([0] * 90 + [1] * 10)
    logits = rng.normal(size=(1, 100, 2)) + 2 * np.eye(2)[labels]
    found = figures.out_of_fold(labels, logits)
    losses = -np.log(found.probabilities[np.arange(100), labels])
    assert figures.log_loss(found) == pytest.approx(losses.mean())
    of_classes = losses[:90].mean(), losses[90:].mean()
    assert figures.log_loss(found, balance=True) == pytest.approx(np.mean(of_classes))
    probes = [one for one in search.heads("auto", balance=True) if one.name() == "linear_probe"]
    assert probes and all(one.balanced for one in probes)


def test_fine_tuning_begins_with_the_probe_and_no_held_out_image_has_a_say(shirts):
    images, names = shirts
    labels = np.unique(names, return_inverse=True)[1]
    backbone = backbones.Backbone("convnext_atto", "bundled", "")
    features = backbones.features(backbones.network(backbone), images)
    material = tuning.material(backbone, images, features, labels, seed=0)
    training = np.arange(0, 120, 2)
    held_out = np.arange(1, 120, 2)
    # A rate of next to nothing leaves the linear probe as it is.
    still = tuning.SETTINGS.model_copy(update={"epochs": 1, "learning_rate": 1e-12})
    probe = learners.on_features(tuning.START, features, labels)(training, held_out)
    np.testing.assert_allclose(material.learner(still)(training, held_out), probe, atol=1e-3)
    logits = material.learner(tuning.SETTINGS)(training, held_out)
    assert np.abs(logits - probe).max() > 0.01  # it did learn
    mixed = material.labels.copy()
    mixed[held_out] = (mixed[held_out] + 1) % 3
    other = dataclasses.replace(material, labels=mixed)
    again = other.learner(tuning.SETTINGS)(training, held_out)
    np.testing.assert_array_equal(again, logits)


def test_what_fine_tuning_learnt_is_kept_for_the_same_images_and_settings(shirts, monkeypatch):
    images, names = shirts
    labels = np.unique(names, return_inverse=True)[1]
    backbone = backbones.Backbone("convnext_atto", "bundled", "")
    features = backbones.features(backbones.network(backbone), images)
    material = tuning.material(backbone, images, features, labels, seed=3)
    training, settings = np.arange(60), tuning.SETTINGS.model_copy(update={"epochs": 2})
    before = material.learner(settings)(training, np.arange(60, 120))

    def learn(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning.supervised, "learn", learn)
    again = material.learner(settings)(training, np.arange(60, 120))
    np.testing.assert_array_equal(again, before)
    others = (
        (material, settings, training[1:]),
        (material, settings.model_copy(update={"epochs": 3}), training),
        (dataclasses.replace(material, seed=4), settings, training),
        (dataclasses.replace(material, labels=np.roll(labels, 50)), settings, training),
        (dataclasses.replace(material, features=features + 1e-3), settings, training),
    )
    for material, settings, training in others:
        with pytest.raises(KeyboardInterrupt):
            material.tuned(settings, training)


def test_a_fine_tuned_model_is_kept_as_it_was_tested(folder: Path, tmp_path: Path):
    asked = {"backbone": "convnext_atto", "method": "fine_tuning", "fit": "crop"}
    taught = teach(Request(str(folder), tmp_path / "out", **asked))
    evaluation = prediction.evaluate(taught.model_file, str(folder))
    np.testing.assert_allclose(evaluation.probabilities, taught.test.probabilities, atol=1e-4)
    assert results.read(taught.candidates[0].folder).spec["method"] == "supervised"


def test_with_many_images_fine_tuning_is_judged_in_fewer_folds_and_says_so(shirts, monkeypatch):
    images, names = shirts
    labels = np.unique(names, return_inverse=True)[1]
    photos = search.Photos(labels, np.arange(120), lambda image_size, fit: images)
    backbone = backbones.Backbone("convnext_atto", "bundled", "")
    monkeypatch.setattr(folds, "IMAGES_OF_REPEATS", 120)
    methods = [*search.heads("nearest_mean"), tuning.SETTINGS.model_copy(update={"epochs": 1})]
    compared = search.search(photos, [backbone], ["crop"], methods, search.Clock(600), seed=0)
    shares = {one.candidate.method: one.trained_share for one in compared}
    assert shares == pytest.approx({"nearest_mean": 4 / 5, "fine_tuning": 2 / 3}, abs=0.01)
    assert {one.fold_count for one in compared} == {3, 5}
