"""What was measured, as tables: probabilities, classes, candidates, and how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from keras_cnn import pages
from keras_cnn.results import scores
from keras_cnn.teach.calibration import Calibration, log_loss
from keras_cnn.teach.figures import accuracy
from keras_cnn.teach.page.wording import (
    Section,
    of_images,
    paragraph,
    percent,
    small_print,
    with_interval,
)
from keras_cnn.teach.taught import Scored, Taught


def probabilities(taught: Taught) -> Section:
    """Whether the probabilities are what they say: reliability, unsure answers, sets, strangers."""
    test, calibration = taught.test, taught.calibration
    told = test.predicted >= 0
    shares, labels = test.probabilities[told].astype(np.float64), test.labels[told]
    if not len(labels):
        body = paragraph("The model gives no number for any image.")
        return Section("probabilities", "What its probabilities are worth", "probabilities", body)
    parts = [
        paragraph(
            "Where the model says 80 percent, it should be right 8 times of 10. The folds set one "
            f"number for that, a temperature of {calibration.temperature:.2f}, by which the model "
            "divides its logits."
        ),
        _reliability(shares, labels, calibration),
        _unsure(shares, labels, calibration),
    ]
    if calibration.coverages:
        parts.append(_sets(shares, labels, calibration))
    parts.append(_strangers(taught))
    return Section(
        "probabilities", "What its probabilities are worth", "probabilities", "\n".join(parts)
    )


def _reliability(shares: np.ndarray, labels: np.ndarray, calibration: Calibration) -> str:
    right = float((shares.argmax(axis=1) == labels).mean())
    rows = [
        [
            name,
            percent(float(given.max(axis=1).mean())),
            percent(right),
            percent(scores.calibration_error(labels, given)),
            f"{log_loss(given, labels):.3f}",
        ]
        for name, given in (
            ("before", uncalibrated(shares, calibration.temperature)),
            ("after", shares),
        )
    ]
    return pages.table(
        f"Before and after calibration, images set aside, n = {len(labels):,}",
        ["", "says on average", "is right", "calibration error", "log loss"],
        [False, True, True, True, True],
        rows,
    ) + small_print(
        "Calibration error (Guo et al. 2017, 15 bins): how far what it says is from how often it "
        "is right; of few images it is above 0 by chance alone. Lower is better, of the log loss "
        "too."
    )


def uncalibrated(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """The probabilities (n, classes) of the same logits, not divided by the temperature."""
    tiny = np.finfo(np.float32).tiny
    logits = temperature * np.log(np.maximum(probabilities, tiny))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _unsure(shares: np.ndarray, labels: np.ndarray, calibration: Calibration) -> str:
    wrong = shares.argmax(axis=1) != labels
    answered = shares.max(axis=1) >= calibration.threshold
    rows = [
        ["all answers", f"{len(labels):,}", f"{wrong.sum():,}", percent(float(wrong.mean()))],
        *(
            [name, f"{which.sum():,}", f"{wrong[which].sum():,}", _mean(wrong[which])]
            for name, which in (("sure", answered), ("unsure", ~answered))
        ),
    ]
    asked = percent(calibration.error_rate)
    table = pages.table(
        "Errors, with and without the unsure answers",
        ["", "images", "wrong", "share wrong"],
        [False, True, True, True],
        rows,
    )
    if calibration.threshold >= 1:
        rule = (
            f"Asked for at most {asked} wrong, no threshold of the folds kept it: all are unsure."
        )
    elif calibration.threshold <= 0:
        rule = (
            f"Asked for at most {asked} wrong, the folds keep it with all answers: none is unsure."
        )
    else:
        rule = (
            f"Below a probability of {percent(calibration.threshold)} the answer is <i>unsure</i>: "
            f"on the folds at most {asked} of the answers above it were wrong. Here "
            f"{percent(float((~answered).mean()))} of {of_images(len(labels))} are unsure."
        )
    return paragraph(rule) + table


def _mean(which: np.ndarray) -> str:
    return percent(float(which.mean())) if len(which) else "-"


def _sets(shares: np.ndarray, labels: np.ndarray, calibration: Calibration) -> str:
    rows = []
    for coverage, least in zip(calibration.coverages, calibration.least, strict=True):
        inside = shares >= least
        held = inside[np.arange(len(labels)), labels]
        sizes = inside.sum(axis=1)
        rows.append(
            [
                f"{100 * coverage:g}%",
                with_interval(accuracy(float(held.mean()), len(labels))),
                f"{sizes.mean():.2f}",
                percent(float((sizes == 0).mean())),
            ]
        )
    return pages.table(
        f"Prediction sets: all classes that are probable enough, n = {len(labels):,}",
        ["asked", "held the class (95 percent interval)", "classes a set", "empty"],
        [False, True, True, True],
        rows,
    )


def _strangers(taught: Taught) -> str:
    familiar = taught.test.familiar
    known = familiar[np.isfinite(familiar)]
    if not len(known):
        return ""
    strange = known < taught.calibration.familiar_threshold
    return paragraph(
        f"Of the images set aside, {percent(float(strange.mean()))} (n = {len(known):,}) look like "
        "none of the training images; of the training images 5 percent do. Far more in your own "
        "photographs means that the model was taught on others."
    )


def classes(taught: Taught) -> Section:
    """Recall and precision of each class."""
    count = len(taught.class_names)
    labels, predicted = taught.test.labels, taught.test.predicted
    train, test = (
        np.bincount(part.labels, minlength=count) for part in (taught.train, taught.test)
    )
    said = np.bincount(predicted[predicted >= 0], minlength=count)
    right = np.bincount(labels[labels == predicted], minlength=count)
    rows = []
    for label, name in enumerate(taught.class_names):
        recall = precision = "-"
        if test[label]:
            recall = with_interval(accuracy(right[label] / test[label], int(test[label])))
        if said[label]:
            precision = f"{percent(right[label] / said[label])} of {said[label]:,}"
        rows.append([pages.name(name), f"{train[label]:,}", f"{test[label]:,}", recall, precision])
    body = paragraph(
        "Recall is the share of a class's images that the model calls by it, precision the share "
        "of what it calls so that is. With few images of a class both are rough."
    ) + pages.table(
        f"Classes, on {of_images(len(labels), 'image')} set aside",
        ["class", "training images", "test images", "recall (95 percent interval)", "precision"],
        [False, True, True, True, True],
        rows,
    )
    return Section("classes", "Class by class", "classes", body)


def candidates(taught: Taught) -> Section:
    """All that was compared."""
    rows = [_candidate(scored, scored.candidate == taught.chosen) for scored in taught.candidates]
    images = {scored.accuracy.images for scored in taught.candidates}
    n = f", n = {images.pop():,}" if len(images) == 1 else ""
    body = paragraph(
        "Each was taught on some of the training images and tried on the others, in turns. The "
        "images set aside took no part in the choice."
    ) + pages.table(
        f"Candidates, best first, on held-out training images{n}",
        [
            *("method", "settings", "backbone", "images"),
            *("accuracy (95 percent interval)", "log loss", "seconds"),
        ],
        [False, False, False, False, True, True, True],
        rows,
    )
    return Section("candidates", "What was compared", "compared", body)


def _candidate(scored: Scored, is_chosen: bool) -> list[str]:
    one = scored.candidate
    name = pages.text(one.method.replace("_", " "))
    return [
        f'{name} <span class="mark chosen">chosen</span>' if is_chosen else name,
        pages.text(one.own_settings) or "-",
        pages.text(f"{one.backbone}, {one.weights}"),
        pages.text(f"{one.image_size:,} pixels, {one.fit}"),
        with_interval(scored.accuracy),
        f"{scored.log_loss:.3f}",
        f"{scored.seconds:.1f}",
    ]


def made(taught: Taught) -> Section:
    """The command that makes it again, how long it took, and on what."""
    parts = [paragraph(f"{pages.code(taught.command)} took {taught.seconds:,.0f} s.")]
    if taught.environment:
        told = ", ".join(_facts(taught.environment))
        parts.append(paragraph(f"Made with {pages.text(told)}."))
    return Section("made", "How it was made", "made", "\n".join(parts))


def _facts(facts: Mapping[str, object]) -> Iterator[str]:
    """`device cpu`, `keras 3.15.1`: also those within."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _facts(value)
        else:
            yield f"{name.replace('_', ' ')} {value}"
