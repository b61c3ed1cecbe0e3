"""What `teach` has found out, as plain data: the page, the terminal and Python read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_cnn.teach.calibration import Calibration
from keras_cnn.teach.candidates import Candidate


@dataclass(frozen=True)
class Accuracy:
    """A share of images classified right, with its 95 percent interval on new images.

    Attributes:
        value: In [0, 1].
        low: The interval's lower end.
        high: Its upper end.
        images: Of how many.
    """

    value: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class Scored:
    """A candidate, and what the folds of the training images say of it.

    Attributes:
        candidate: What was tried.
        accuracy: Over the held-out images.
        log_loss: Their mean negative log likelihood, after calibration.
        seconds: It took.
        folder: Its run folder; None where nothing is written, as from Python.
    """

    candidate: Candidate
    accuracy: Accuracy
    log_loss: float
    seconds: float
    folder: Path | None = None


@dataclass(frozen=True, repr=False)
class Told:
    """What is said of a part of the images.

    Attributes:
        files: Each image's file, relative to the folder of photographs, as it is named there.
        labels: Its true class, int64 (n,).
        probabilities: (n, classes), calibrated: of training images by a model of a fold that has
            not seen them (a row of nan where no fold can say), of test images by the final model.
        familiar: (n,), how near an image's features come to those of the training images: low for
            what is nothing of the kind.
    """

    files: list[str]
    labels: np.ndarray
    probabilities: np.ndarray
    familiar: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class, (n,); -1 where nothing is said."""
        is_told = np.isfinite(self.probabilities).all(axis=1)
        return np.where(is_told, np.nan_to_num(self.probabilities).argmax(axis=1), -1)


@dataclass(frozen=True)
class Point:
    """A point of the learning curve, from the folds.

    Attributes:
        images_a_class: Training images of each class, at most.
        accuracies: Of the held-out images, one for each draw.
    """

    images_a_class: int
    accuracies: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class Taught:
    """A model taught from a folder of photographs, and all that was measured on the way.

    Attributes:
        folder: The photographs.
        class_names: In the order of the labels.
        chosen: The candidate that the model is.
        why_backbone: A sentence: which backbone, and why.
        candidates: All that were compared, best first.
        train: What the folds say of the training images.
        test: What the model says of the images set aside.
        foretold: The accuracy on the test images that the folds foretell.
        tested: The accuracy on them, measured once.
        runner_up: Of the best candidate of another method, measured beside it; None without one.
        majority: The share of test images of the class that has most training images.
        calibration: Temperature, threshold of `unsure`, prediction sets.
        curve: Accuracy against training images a class.
        gain: What twice as many training images of each class brought on the folds; None where
            there were too few.
        notes: How the folder was read, a line each: what is not used, what serves as test.
        faults: A line for each kind of fault of the folder: unreadable files, strays.
        equal: Pairs of files with the same pixels.
        near: Pairs of files that look nearly the same.
        model_file: The saved model.
        command: The command line that makes it again.
        seconds: It all took.
        environment: Backend, device and versions.
    """

    folder: Path
    class_names: tuple[str, ...]
    chosen: Candidate
    why_backbone: str
    candidates: tuple[Scored, ...]
    train: Told
    test: Told
    foretold: Accuracy
    tested: Accuracy
    runner_up: Accuracy | None
    majority: float
    calibration: Calibration
    curve: tuple[Point, ...]
    gain: float | None
    model_file: Path
    command: str
    seconds: float
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    equal: tuple[tuple[str, str], ...] = ()
    near: tuple[tuple[str, str], ...] = ()
    environment: dict[str, object] = field(default_factory=dict)
