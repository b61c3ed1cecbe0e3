"""Tasks that a meta-learner learns to learn: support and query images under labels of their own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from keras_cnn.data import Split
from keras_cnn.errors import UserError

VERSION = 1  # raised when the same seed draws other tasks
Labelled = tuple[np.ndarray, np.ndarray]  # images (n, …) float32, labels (n,) int32


class Task(NamedTuple):
    """What one inner loop learns from, and what it is then asked.

    Attributes:
        support: Images (way * support_shots, …) float32, or their features, and labels (n,)
            int32 from 0 to way - 1.
        query: Likewise, of other images.
    """

    support: Labelled
    query: Labelled


class Tasks:
    """Draws tasks of some images.

    Args:
        train: Images or features (n, …) and labels (n,): support, and queries of training tasks.
        test: Likewise: queries of test tasks.
        way: Classes of a task.
        support_shots: Support images a class.
        query_shots: Query images a class.

    Raises:
        UserError: A class has too few images for a task.
    """

    def __init__(
        self, train: Split, test: Split, way: int, support_shots: int, query_shots: int
    ) -> None:
        self._train, self._test, self._way = train, test, way
        self._support, self._query = support_shots, query_shots
        shots = support_shots + query_shots
        self._train_members = _members(train)
        for name, members in zip(train.class_names, self._train_members, strict=True):
            if len(members) < shots:
                raise UserError(
                    f"a task needs {shots} images a class, class {name!r} has {len(members)}: "
                    "lower support_shots and query_shots"
                )
        self._test_members = _members(test)

    def training_task(self, rng: np.random.Generator) -> Task:
        """Draws a task of training images, support and query apart."""
        # A class's place is its label in the task.
        classes = rng.permutation(len(self._train_members))[: self._way]
        drawn = self._drawn(self._train_members, classes, self._support + self._query, rng)
        support, query = drawn[:, : self._support], drawn[:, self._support :]
        return Task(_taken(self._train, support), _taken(self._train, query))

    def test_task(self, rng: np.random.Generator) -> Task:
        """Draws a task with support from the training images and queries from the test images.

        It is of classes that have test images, so of fewer than `way` where only fewer have.
        """
        queried = np.flatnonzero([len(members) for members in self._test_members])
        classes = rng.permutation(queried)[: self._way]
        fewest = min(len(self._test_members[label]) for label in classes)
        support = self._drawn(self._train_members, classes, self._support, rng)
        query = self._drawn(self._test_members, classes, min(self._query, fewest), rng)
        return Task(_taken(self._train, support), _taken(self._test, query))

    def _drawn(
        self,
        members: list[np.ndarray],
        classes: np.ndarray,
        shots: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Indices of different images (classes, shots)."""
        return np.stack([rng.choice(members[label], shots, replace=False) for label in classes])


def _members(split: Split) -> list[np.ndarray]:
    """The indices of each class's images."""
    return [np.flatnonzero(split.labels == label) for label in range(len(split.class_names))]


def _taken(split: Split, indices: np.ndarray) -> Labelled:
    """Images (classes * shots, …) and their labels in the task, of indices (classes, shots)."""
    labels = np.repeat(np.arange(indices.shape[0], dtype=np.int32), indices.shape[1])
    return np.asarray(split.images[indices.reshape(-1)], np.float32), labels
