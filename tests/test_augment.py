"""Augmentation: each kind against a computation of its own, and what training does with it."""

from __future__ import annotations

import colorsys
import subprocess
import sys
import typing

import keras
import numpy as np
import pytest
from PIL import Image

from keras_cnn import data, environment, methods, recipe, torch_fast
from keras_cnn.__main__ import main
from keras_cnn.data import Split, augment
from keras_cnn.deck import supervised_as_run
from keras_cnn.errors import UserError
from keras_cnn.methods.settings import Supervised
from keras_cnn.models import heads
from keras_cnn.recipe import resolve
from keras_cnn.training import feed, frozen

COUNT, CLASSES = 60, 7
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 12, 16, 3)).astype("uint8")
LABELS = np.random.default_rng(1).integers(0, CLASSES, COUNT)


def made(kind, images=IMAGES, labels=LABELS, seed=0, classes=CLASSES):
    return augment.KINDS[kind](images, labels, classes, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", augment.KINDS)
def test_the_same_seed_gives_the_same_pictures_and_originals_stay(kind):
    images, labels = IMAGES.copy(), LABELS.copy()
    first, second, other = (made(kind, images, labels, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert first[0].dtype == np.uint8 and first[0].shape == IMAGES.shape
    for one, again in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, again)
    assert (first[0] != other[0]).any() and (first[0] != IMAGES).any()
    assert not np.shares_memory(first[0], images)
    if kind in augment.MIXES_LABELS:
        assert first[1].dtype == np.float32 and first[1].shape == (COUNT, CLASSES)
        np.testing.assert_allclose(first[1].sum(axis=1), 1, atol=1e-6)
    else:
        np.testing.assert_array_equal(first[1], LABELS)
    none, one = IMAGES[:0], IMAGES[:1]
    assert made(kind, none, LABELS[:0])[0].shape == none.shape
    assert made(kind, one, LABELS[:1])[0].shape == one.shape


@pytest.mark.parametrize("kind", augment.KINDS)
def test_blocks_do_not_show(kind, monkeypatch):
    whole = made(kind)
    monkeypatch.setattr(augment, "BLOCK_PIXELS", 7 * 12 * 16)
    for one, other in zip(whole, made(kind), strict=True):
        np.testing.assert_array_equal(one, other)


def test_settings_know_every_kind():
    choices = typing.get_args(Supervised.model_fields["augment"].annotation)
    assert choices == ("none", *augment.KINDS)


def test_the_names_are_read_without_numpy_and_pillow():
    code = (
        "import sys; from keras_cnn.data import augment; "
        "print(len(augment.KINDS), sorted({'numpy', 'PIL', 'keras'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout == f"{len(augment.KINDS)} []\n", answer.stderr


def test_flip_mirrors_about_half():
    images = np.repeat(IMAGES[:1], 2000, axis=0)
    flipped, _ = made("flip", images, np.zeros(2000, int))
    mirrored = (flipped == images[:, :, ::-1]).all((1, 2, 3))
    same = (flipped == images).all((1, 2, 3))
    assert (mirrored ^ same).all()
    assert abs(mirrored.mean() - 0.5) < 0.045  # four standard deviations


@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 20)])
def test_rotation_is_scipys(height, width):
    from scipy import ndimage

    images = np.random.default_rng(3).integers(0, 256, (40, height, width, 3)).astype("uint8")
    degrees = np.random.default_rng(4).uniform(-180, 180, 40)
    degrees[:3] = 0, 90, 180
    found = augment.rotate(images, degrees)
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    for image, angle, ours in zip(images, np.deg2rad(degrees), found, strict=True):
        # Rows run downwards: a point of the result is turned back clockwise to where it was.
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        for channel in range(3):
            expected = ndimage.affine_transform(
                image[..., channel].astype(float),
                turn,
                centre - turn @ centre,
                order=1,
                mode="grid-constant",
            )
            fraction = expected - ours[..., channel]  # which Pillow leaves out
            assert fraction.min() > -0.01 and fraction.max() < 1.01
    np.testing.assert_array_equal(found[0], images[0])
    np.testing.assert_array_equal(found[2], images[2, ::-1, ::-1])
    if height == width:
        np.testing.assert_array_equal(found[1], np.rot90(images[1]))  # counterclockwise


def test_rotated_corners_are_black_and_angles_uniform(monkeypatch):
    drawn = []
    rotate = augment.rotate

    def noted(images, degrees):
        drawn.append(degrees)
        return rotate(images, degrees)

    monkeypatch.setattr(augment, "rotate", noted)
    white = np.full((400, 32, 32, 3), 255, np.uint8)
    rotated, _ = made("rotation", white, np.zeros(400, int))
    (degrees,) = drawn
    assert degrees.min() > -30 and degrees.max() < 30
    ranks = np.sort(degrees)
    assert np.abs(ranks - np.linspace(-30, 30, 400)).max() < 60 * 1.95 / 20  # Kolmogorov, 0.1 %
    turned = rotated[np.abs(degrees) > 12]
    for row in (0, -1):
        for column in (0, -1):
            assert (turned[:, row, column] == 0).all()
    assert (rotated[:, 8:24, 8:24] == 255).all()


def jittered(pixels, brightness, contrast, saturation, hue):
    """Pixel by pixel, as torchvision defines it; hue by the standard library."""

    def grey(colour):
        return 0.2989 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]

    def blended(colour, towards, factor):
        return [min(max(factor * c + (1 - factor) * towards, 0), 1) for c in colour]

    colours = [blended([c / 255 for c in pixel], 0, brightness) for pixel in pixels.reshape(-1, 3)]
    mean = sum(grey(colour) for colour in colours) / len(colours)
    result = []
    for colour in colours:
        colour = blended(colour, mean, contrast)
        colour = blended(colour, grey(colour), saturation)
        h, s, v = colorsys.rgb_to_hsv(*colour)
        result.append(colorsys.hsv_to_rgb((h + hue) % 1, s, v))
    return 255 * np.array(result).reshape(pixels.shape)


def test_jitter_is_the_computation_pixel_by_pixel():
    images = np.concatenate([IMAGES[:8], np.repeat(IMAGES[8:10, ..., :1], 3, axis=3)])  # some grey
    images[0, 0, :6] = [
        [0, 0, 0],
        [255, 255, 255],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [9, 9, 0],
    ]
    generator = np.random.default_rng(5)
    factors = [*generator.uniform(0.5, 1.5, (3, 10)), generator.uniform(-0.5, 0.5, 10)]
    found = augment.adjust_colour(images, *factors)
    for image, ours, *of_image in zip(images, found, *factors, strict=True):
        assert np.abs(ours - jittered(image, *of_image)).max() < 0.51
    unchanged = augment.adjust_colour(images, *np.ones((3, 10)), np.zeros(10))
    np.testing.assert_array_equal(unchanged, images)


def test_jitter_draws_its_factors_uniformly(monkeypatch):
    drawn = []
    monkeypatch.setattr(augment, "adjust_colour", lambda images, *factors: drawn.extend(factors))
    made("jitter", np.zeros((1000, 1, 1, 3), np.uint8), np.zeros(1000, int))
    for factors, middle in zip(drawn, (1, 1, 1, 0), strict=True):
        assert factors.shape == (1000,)
        expected = np.linspace(middle - 0.2, middle + 0.2, 1000)
        assert np.abs(np.sort(factors) - expected).max() < 0.4 * 1.95 / 1000**0.5
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.15


def test_mixed_is_the_three_in_turn():
    generator = np.random.default_rng(6)
    expected = IMAGES
    for augmentation in (augment.flip, augment.rotation, augment.jitter):
        expected, _ = augmentation(expected, LABELS, CLASSES, generator)
    np.testing.assert_array_equal(made("mixed", seed=6)[0], expected)


def marked(count=3000, size=32):
    """Images that tell of each pixel from which image and which place it comes."""
    images = np.empty((count, size, size, 3), np.uint8)
    images[..., 0] = (np.arange(count) % 256)[:, None, None]
    images[..., 1] = (np.arange(count) // 256)[:, None, None]
    images[..., 2] = np.arange(size)[:, None] * (256 // size) + np.arange(size) // (size // 8)
    return images, np.arange(count)


def test_cutmix_shares_are_the_pixels_counted():
    images, labels = marked()
    pasted, shares = made("cutmix", images, labels, classes=len(images))
    source = pasted[..., 0].astype(int) + 256 * pasted[..., 1].astype(int)
    np.testing.assert_array_equal(pasted[..., 2], images[..., 2])  # at the same place
    areas, others = [], []
    for index, (of_pixels, share) in enumerate(zip(source, shares, strict=True)):
        found, pixels = np.unique(of_pixels, return_counts=True)
        np.testing.assert_array_equal(np.flatnonzero(share), found)
        np.testing.assert_array_equal(share[found], (pixels / 1024).astype("float32"))
        other = of_pixels != index
        rows, columns = np.flatnonzero(other.any(1)), np.flatnonzero(other.any(0))
        if len(rows):
            assert other[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()  # a box
            others.append(of_pixels[rows[0], columns[0]])
            assert (of_pixels[other] == others[-1]).all()
        areas.append(other.mean())
    # A box of area a = 1 - lambda, uniform, and centred anywhere keeps (1 - sqrt(a) / 4)^2 of it.
    side = np.sqrt(np.linspace(0, 1, 2001))
    expected = (side * (1 - side / 4)) ** 2
    assert np.mean(areas) == pytest.approx(expected.mean(), abs=0.02)
    ours = np.quantile(areas, [0.25, 0.5, 0.75, 0.95])
    assert ours[1] == pytest.approx(0.33, abs=0.06) and ours[3] < 0.95
    assert len(set(others)) > 1700  # partners are any images: 1 - 1/e of 3,000 is 1,896


def test_partners_are_others_and_all_alike():
    partners = augment._partners(5, np.random.default_rng(0))
    for seed in range(1, 2000):
        partners = np.concatenate([partners, augment._partners(5, np.random.default_rng(seed))])
    pairs = partners.reshape(2000, 5)
    for image in range(5):
        counts = np.bincount(pairs[:, image], minlength=5)
        assert counts[image] == 0
        assert np.abs(np.delete(counts, image) - 500).max() < 90


def test_mixup_is_the_formula():
    first = np.full((500, 4, 4, 3), 10, np.uint8)
    first[1::2] = 210
    labels = np.arange(500) % 2
    averaged, shares = made("mixup", first, labels, classes=3)
    assert (averaged == averaged[:, :1, :1, :1]).all()
    expected = 10 * shares[:, 0].astype(float) + 210 * shares[:, 1]
    assert np.abs(averaged[:, 0, 0, 0] - expected).max() <= 0.5001
    assert (shares[:, 2] == 0).all()
    own = shares[np.arange(500), labels][shares.max(axis=1) < 1]  # of those with another class
    assert np.abs(np.sort(own) - np.linspace(0, 1, len(own))).max() < 1.95 / len(own) ** 0.5

    averaged, shares = made("mixup", IMAGES, np.arange(COUNT), classes=COUNT)
    np.testing.assert_allclose(averaged, np.tensordot(shares, IMAGES, axes=1), atol=0.501)
    assert (np.count_nonzero(shares, axis=1) == 2).all()


def test_cutout_covers_a_square_with_the_mean():
    images = np.random.default_rng(7).integers(0, 100, (600, 32, 32, 3)).astype("uint8")
    images[..., 2] += 150
    covered, _ = made("cutout", images, np.zeros(600, int))
    mean = np.rint(images.reshape(-1, 3).mean(axis=0))
    sizes = []
    for before, after in zip(images, covered, strict=True):
        grey = (after == mean).all(axis=-1)
        rows, columns = np.flatnonzero(grey.sum(1) > 4), np.flatnonzero(grey.sum(0) > 4)
        box = np.zeros((32, 32), bool)
        box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        assert grey[box].all()
        np.testing.assert_array_equal(after[~box], before[~box])
        sizes += [len(rows), len(columns)]
    assert max(sizes) == 16 and min(sizes) == 8
    # 32 centres: 17 leave the whole side in the image.
    assert np.mean(np.array(sizes) == 16) == pytest.approx(17 / 32, abs=0.06)


@pytest.mark.parametrize("kind", ["rotation", "cutmix"])
def test_the_share_is_kept_and_drawn_anew(kind):
    changed = {}
    for epoch in (0, 1):
        images, labels = augment.augmented(IMAGES, LABELS, CLASSES, kind, 0.25, (9, epoch))
        changed[epoch] = np.flatnonzero((images != IMAGES).any((1, 2, 3)))
        assert 13 <= len(changed[epoch]) <= 15  # of 15: a tiny box or angle changes nothing
        if kind == "cutmix":
            whole = np.setdiff1d(np.arange(COUNT), changed[epoch])
            np.testing.assert_array_equal(labels[whole], np.eye(CLASSES)[LABELS[whole]])
            mixed = np.flatnonzero(labels.max(axis=1) < 1)
            assert set(mixed) <= set(changed[epoch]) and len(mixed) > 8
        again = augment.augmented(IMAGES, LABELS, CLASSES, kind, 0.25, (9, epoch))
        np.testing.assert_array_equal(images, again[0])
    assert set(changed[0]) != set(changed[1])
    everything, _ = augment.augmented(IMAGES, LABELS, CLASSES, "rotation", 1.0, (9, 0))
    assert ((everything != IMAGES).any((1, 2, 3))).all()


@pytest.mark.every_backend
def test_a_feed_gives_what_is_drawn_for_its_epoch():
    drawn = []

    def redraw(epoch):
        drawn.append(epoch)
        images, shares = augment.augmented(IMAGES, LABELS, CLASSES, "cutmix", 0.5, (1, epoch))
        return Split(images, shares)

    batches = feed.shuffled(redraw, batch_size=16, seed=5)
    for epoch in (0, 1, 1):
        batches.begin_epoch(epoch)
        expected = augment.augmented(IMAGES, LABELS, CLASSES, "cutmix", 0.5, (1, epoch))
        order = np.random.default_rng((5, epoch)).permutation(COUNT)
        given = zip(*map(batches.__getitem__, range(4)), strict=True)
        for array, found in zip(expected, given, strict=True):
            found = np.concatenate([keras.ops.convert_to_numpy(part) for part in found])
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array[order])
    assert drawn == [0, 1]  # `fit` begins the first epoch that has been drawn already


def tiny():
    """One convolution that is frozen, one that trains, under a head; stages named as others'."""
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = keras.layers.Conv2D(4, 8, 8, name="stage1_conv", trainable=False)(x)
    x = keras.layers.Conv2D(4, 1, name="stage2_conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="features_pool")(x)
    return keras.Model(inputs, heads.logits(x, 10, "dense", 0.0, 3))


def trained(monkeypatch, method, **settings):
    """What a method gives, the images given, and the images and labels it was fed each epoch."""
    epochs = []

    def noting(make):
        def made(*arguments):
            batches = make(*arguments)
            begin = batches.begin_epoch

            def begin_epoch(epoch):
                begin(epoch)
                numpy = keras.ops.convert_to_numpy
                parts = zip(*batches._batches, strict=True)
                cut, labels = (np.concatenate([*map(numpy, part)]) for part in parts)
                images = numpy(batches._images)
                epochs.append((images, labels[np.argsort(cut)]))

            batches.begin_epoch = begin_epoch
            return batches

        return made

    monkeypatch.setattr(feed, "shuffled", noting(feed.shuffled))
    splits = data.load("synthetic:30").splits
    train = Split(np.array(splits["train"].images), splits["train"].labels)
    environment.seed_everything(0)
    made = method(tiny(), train, splits["test"], learning_rate=1e-9, **settings)
    return made, train, epochs


def losses(probabilities, shares):
    """Cross-entropies (n,)."""
    return -(shares * np.log(probabilities)).sum(axis=1)


@pytest.mark.every_backend
@pytest.mark.parametrize(("kind", "over_batches"), [("cutmix", False), ("mixup", True)])
def test_training_on_mixed_labels_is_numpys(kind, over_batches, monkeypatch):
    method = methods.supervised.train
    settings = {"augment": kind, "augment_share": 0.5, "batch_size": 15, "epochs": 2}
    if over_batches:  # means over batches of 20 and 10 images
        method = supervised_as_run.train
        settings |= {"batch_size": 20, "eval_mode_sticks": False}
    outcome, train, epochs = trained(monkeypatch, method, **settings)
    assert len(epochs) == 2
    for epoch, (record, (images, shares)) in enumerate(zip(outcome.history, epochs, strict=True)):
        expected = augment.augmented(train.images, train.labels, 10, kind, 0.5, (213, epoch))
        np.testing.assert_array_equal(images, expected[0])
        np.testing.assert_array_equal(shares, expected[1])
        assert 8 <= (shares.max(axis=1) < 1).sum() <= 15  # of 15: some partners share a class
        assert not np.array_equal(images, epochs[epoch - 1][0])
        # A rate of almost 0: the last epoch's model is the first one's.
        probabilities = outcome.model.predict(images, verbose=0)
        hits = probabilities.argmax(axis=1) == shares.argmax(axis=1)
        order = np.random.default_rng((213, epoch)).permutation(30)
        cuts = [order[:20], order[20:]] if over_batches else [order]
        loss = np.mean([losses(probabilities, shares)[cut].mean() for cut in cuts])
        assert record["train_loss"] == pytest.approx(loss, abs=1e-5)
        assert record["train_accuracy"] == pytest.approx(np.mean([hits[c].mean() for c in cuts]))
    whole = np.eye(10)[data.load("synthetic:30").splits["test"].labels]
    loss = losses(outcome.probabilities, whole)
    loss = (loss[:20].mean() + loss[20:].mean()) / 2 if over_batches else loss.mean()
    assert outcome.history[-1]["test_loss"] == pytest.approx(loss, abs=1e-5)


def test_as_run_draws_once_and_keeps_the_first_label(monkeypatch):
    kept = []
    skip = frozen.skip_constant_part

    def noted(network, train, test):
        kept.append(train.images)
        return skip(network, train, test)

    monkeypatch.setattr(frozen, "skip_constant_part", noted)
    as_run = {"frozen_statistics_move": True, "dropout_on_logits": True, "augment_once": True}
    settings = {"augment": "cutmix", "augment_share": 1.0, "epochs": 3}
    _, train, epochs = trained(monkeypatch, supervised_as_run.train, **settings, **as_run)
    (images,) = kept
    expected, _ = augment.augmented(train.images, train.labels, 10, "cutmix", 1.0, (213, 0))
    np.testing.assert_array_equal(images, expected)
    assert (images != train.images).any((1, 2, 3)).sum() > 25
    assert len(epochs) == 3 and epochs[0][0].shape[-1] == 4  # kept features
    for features, labels in epochs:
        np.testing.assert_array_equal(features, epochs[0][0])
        np.testing.assert_array_equal(labels, train.labels)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="a matter of the lean step")
def test_the_lean_step_takes_shares_as_keras_does():
    import torch

    inputs = keras.Input((3,))
    model = torch_fast.fast(keras.Model(inputs, keras.layers.Dense(4)(inputs)))
    model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    logits = torch.tensor(np.random.default_rng(0).normal(size=(5, 4)), dtype=torch.float32)
    shares = torch.tensor(np.random.default_rng(1).dirichlet(np.ones(4), 5), dtype=torch.float32)
    expected = -(shares * torch.log_softmax(logits, dim=1)).sum(1).mean()
    torch.testing.assert_close(model._plain_cross_entropy()(None, shares, logits), expected)
    smoothed = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(loss=smoothed)
    assert model._plain_cross_entropy() is None


def test_files_are_refused_with_one_line(tmp_path):
    plan = recipe.read("fewshot_augmentation")
    with pytest.raises(UserError, match=r"^command line: feed is 'files': .*memory") as error:
        resolve.runs(plan, "mini", ["1"], overrides={"feed": "files"})
    assert "\n" not in str(error.value)
    assert resolve.runs(plan, "mini", ["6"], overrides={"feed": "files"})  # changes nothing

    lines = (recipe.folder() / "fewshot_augmentation.yaml").read_text().splitlines()
    at = lines.index("settings:")
    copy = tmp_path / "copy.yaml"
    copy.write_text("\n".join([*lines[: at + 1], "  feed: files", *lines[at + 1 :]]))
    with pytest.raises(UserError, match=f"copy.yaml:{at + 2}: feed is 'files'"):
        recipe.read(str(copy))

    split = Split(IMAGES, LABELS, ("a", "b"))
    with pytest.raises(UserError, match="memory"):
        Supervised(feed="files", augment="flip").check_images(split, split)


@pytest.mark.parametrize(("kind", "rows"), [("cutmix", 5), ("all", 15)])
def test_the_command_draws_originals_above_what_becomes_of_them(kind, rows, tmp_path, capsys):
    for label, colour in enumerate([(200, 0, 0), (0, 200, 0), (0, 0, 200)]):
        for split in ("train", "test"):
            folder = tmp_path / "data" / split / f"class{label}"
            folder.mkdir(parents=True)
            Image.new("RGB", (16, 16), colour).save(folder / "0.png")
    out = tmp_path / "grid.png"
    command = ["data", str(tmp_path / "data"), "--image-size=16", f"--augment={kind}"]
    assert main([*command, f"--out={out}"]) == 0
    assert str(out) in capsys.readouterr().out
    picture = np.asarray(Image.open(out).convert("RGB"))
    red = np.flatnonzero((picture == (200, 0, 0)).all(axis=2).sum(axis=1) > 10)
    assert 1 + (np.diff(red) > 1).sum() >= (rows if kind == "cutmix" else 8)
    first = picture[red[0] : red[0] + 50]
    for colour in [(0, 200, 0), (0, 0, 200)]:
        assert (first == colour).all(axis=2).sum() > 1000


def test_an_unknown_kind_is_named(tmp_path, capsys):
    assert main(["data", "synthetic:30", "--augment=cutmx", f"--out={tmp_path / 'a.png'}"]) == 2
    said = capsys.readouterr().err
    assert "cutmix" in said and said.count("\n") == 1
