"""Draws of few images a class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_cnn.errors import UserError


def draw_shots(
    labels: np.ndarray, shots: int, seed: int, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """Draws the same number of images from each class, without replacement.

    The classes take turns: one image of each, then the next of each. So any stretch of the draw is
    balanced, and fewer shots with the same seed are the beginning of more. Each class has a random
    stream of its own; what other classes hold does not move its draw.

    Args:
        labels: Integer classes (n,).
        shots: Images from each class.
        seed: Not negative; NumPy's global state plays no part.
        class_names: In the order of the labels; each of these classes is then needed. None draws
            from the classes that occur.

    Returns:
        int64 (shots * classes,), indices into `labels`.

    Raises:
        UserError: A class has fewer images.
    """
    if shots < 1:
        raise UserError(f"shots is {shots}: at least 1 is needed")
    classes = np.unique(labels) if class_names is None else np.arange(len(class_names))
    members = [np.flatnonzero(labels == label) for label in classes]
    fewest = min(range(len(members)), key=lambda index: len(members[index]))
    if len(members[fewest]) < shots:
        name = repr(class_names[fewest]) if class_names else classes[fewest]
        raise UserError(
            f"{shots} shots a class: class {name} has {len(members[fewest])} images; "
            f"at most {len(members[fewest])} shots can be drawn"
        )
    drawn = [
        np.random.default_rng([seed, int(label)]).permutation(indices)[:shots]
        for label, indices in zip(classes, members, strict=True)
    ]
    return np.stack(drawn, axis=1).reshape(-1)  # (shots, classes): the classes take turns
