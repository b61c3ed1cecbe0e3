"""Draws of few images a class, of episodes and of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_cnn.errors import UserError

VERSION = 1  # raised when the same seed draws other images, episodes or pairs

# Indices into the labels (n,) and the labels of a task (n,), both int64.
Draw = tuple[np.ndarray, np.ndarray]
# Indices of left and of right images, int64 (n,), and whether both are of one class, bool (n,).
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]


def draw_shots(
    labels: np.ndarray, shots: int, seed: int, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """Draws the same number of images from each class, without replacement.

    The classes take turns, so that fewer shots with the same seed are the beginning of more. Each
    class has a random stream of its own: what other classes hold does not move its draw.

    Args:
        labels: Integer classes (n,).
        shots: Images from each class.
        seed: Not negative.
        class_names: In the order of the labels; images of each are then needed. None draws from
            the classes that occur.

    Returns:
        int64 (shots * classes,), indices into `labels`.

    Raises:
        UserError: A class has fewer images.
    """
    if shots < 1:
        raise UserError(f"shots is {shots}: at least 1 is needed")
    classes, members, name, count = _members(labels, class_names)
    if count < shots:
        raise UserError(
            f"{shots} shots a class: class {name} has {count} images; "
            f"at most {count} shots can be drawn"
        )
    return _in_turn(classes, members, shots, seed)


def draw_at_most(
    labels: np.ndarray, shots: int, seed: int, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """Draws as `draw_shots` does, and of a class with fewer images all.

    Args:
        labels: As for `draw_shots`, and so are the others.
        shots: Images from each class, at most.
        seed: Not negative.
        class_names: In the order of the labels; each then needs an image.

    Returns:
        int64, at most shots * classes indices into `labels`; where each class has as many images
        as are asked for, those that `draw_shots` gives.

    Raises:
        UserError: A class has no image.
    """
    classes, members, _, count = _members(labels, class_names)
    if shots < 1 or not count:
        return draw_shots(labels, shots, seed, class_names)  # which says what is wrong
    return _in_turn(classes, members, shots, seed)


def _in_turn(
    classes: np.ndarray, members: Sequence[np.ndarray], shots: int, seed: int
) -> np.ndarray:
    """Images of each class in an order of their own: the classes take turns while they last."""
    drawn = [
        np.random.default_rng([seed, int(label)]).permutation(indices)[:shots]
        for label, indices in zip(classes, members, strict=True)
    ]
    turns = np.concatenate([np.arange(len(indices)) for indices in drawn])
    return np.concatenate(drawn)[np.argsort(turns, kind="stable")]


def draw_episodes(
    labels: np.ndarray,
    count: int,
    way: int | None,
    support_shots: int,
    query_shots: int,
    rng: np.random.Generator,
    class_names: Sequence[str] | None = None,
) -> list[Draw]:
    """Draws small tasks: some classes, support images of each, and other images as queries.

    Args:
        labels: Integer classes (n,).
        count: How many episodes.
        way: Classes of an episode, drawn anew for each; None takes all.
        support_shots: Support images of each class.
        query_shots: Query images of each class; none of them is a support image.
        rng: Draws.
        class_names: As for `draw_shots`.

    Returns:
        For each episode the images' indices, the `way * support_shots` support images first, and
        their labels in the episode, 0 to way - 1. In each of the two parts the classes take turns.

    Raises:
        UserError: A class has too few images, or there are fewer classes.
    """
    classes, members, name, fewest = _members(labels, class_names)
    way = len(classes) if way is None else way
    if way > len(classes):
        raise UserError(f"way is {way}: there are {len(classes)} classes")
    shots = support_shots + query_shots
    if fewest < shots:
        raise UserError(
            f"episodes of {support_shots} support_shots and {query_shots} query_shots: class "
            f"{name} has {fewest} images; {shots} are needed"
        )
    episodes = []
    for _ in range(count):
        chosen = rng.choice(len(classes), way, replace=False)
        drawn = [rng.choice(members[index], shots, replace=False) for index in chosen]
        # (way, shots) -> (shots * way,): the classes take turns, so support comes first
        episodes.append((np.stack(drawn, axis=1).reshape(-1), np.tile(np.arange(way), shots)))
    return episodes


def split_batches(
    labels: np.ndarray, batch_size: int, support_images: int, rng: np.random.Generator
) -> list[Draw]:
    """Cuts all images, shuffled, into batches; the first images of each are its support.

    So the deck made its episodes. Classes that no support image of a batch shows are dropped, and
    those behind them move up: a query's label y then means the y-th of the classes that are there.

    Args:
        labels: Integer classes (n,).
        batch_size: Images a batch; the last one has what is left, and is left out where that
            leaves no query.
        support_images: How many images of a batch are its support.
        rng: Draws.

    Returns:
        For each batch the images' indices, the support images first, and their labels in it: of a
        support image its class's place among those that are there, of a query its class as it was,
        or -1 where that is no place.

    Raises:
        UserError: No batch has a query.
    """
    order = rng.permutation(len(labels))
    cut = [order[start : start + batch_size] for start in range(0, len(labels), batch_size)]
    batches = [
        (chosen, _shifted(labels[chosen], support_images))
        for chosen in cut
        if len(chosen) > support_images
    ]
    if not batches:
        raise UserError(
            f"batches of at most {min(batch_size, len(labels))} images leave no query beside "
            f"{support_images} support_images: set fewer"
        )
    return batches


def _shifted(labels: np.ndarray, support_images: int) -> np.ndarray:
    present = np.unique(labels[:support_images])
    support = np.searchsorted(present, labels[:support_images])
    queries = labels[support_images:]
    return np.concatenate([support, np.where(queries < len(present), queries, -1)])


def balanced_pairs(
    labels: np.ndarray, rng: np.random.Generator, class_names: Sequence[str] | None = None
) -> Pairs:
    """Gives each image another one; pairs of one class and of two take turns.

    Args:
        labels: Integer classes (n,).
        rng: Draws.
        class_names: As for `draw_shots`.

    Returns:
        The images on the left, each once, and on the right; none is paired with itself.

    Raises:
        UserError: A class has a single image, or there is only one class.
    """
    left = rng.permutation(len(labels))
    same = np.arange(len(labels)) % 2 == 0
    return left, _partners(labels, left, same, rng, class_names), same


def random_pairs(
    labels: np.ndarray, rng: np.random.Generator, class_names: Sequence[str] | None = None
) -> Pairs:
    """Draws images at random, and tosses a coin for whether the other one is of the same class.

    Args:
        labels: Integer classes (n,).
        rng: Draws.
        class_names: As for `draw_shots`.

    Returns:
        As `balanced_pairs`; an image may be on the left several times, or never.

    Raises:
        UserError: As `balanced_pairs` does.
    """
    left = rng.integers(0, len(labels), len(labels))
    same = rng.random(len(labels)) < 0.5
    return left, _partners(labels, left, same, rng, class_names), same


def _partners(
    labels: np.ndarray,
    left: np.ndarray,
    same: np.ndarray,
    rng: np.random.Generator,
    class_names: Sequence[str] | None,
) -> np.ndarray:
    """For each image another one, uniformly of its own class or of all others."""
    classes, members, name, fewest = _members(labels, class_names)
    sizes = np.array([len(indices) for indices in members])
    if len(classes) < 2 or fewest < 2:
        two = f"two images of each class: class {name} has {fewest}"
        needed = "two classes" if len(classes) < 2 else two
        raise UserError(f"pairs of the same class and of two need at least {needed}")
    by_class = np.concatenate(members)
    starts = np.cumsum(sizes) - sizes
    own = np.searchsorted(classes, labels[left])  # the place of each image's class
    size, start = sizes[own], starts[own]
    place = np.argsort(by_class)[left]  # of each image in `by_class`
    of_same = start + (place - start + rng.integers(1, size)) % size
    of_other = rng.integers(0, len(labels) - size)
    of_other = of_other + size * (of_other >= start)  # steps over the image's own class
    return by_class[np.where(same, of_same, of_other)]


def _members(
    labels: np.ndarray, class_names: Sequence[str] | None
) -> tuple[np.ndarray, list[np.ndarray], str, int]:
    """The classes, the indices of each one's images, and the smallest one's name and size."""
    classes = np.unique(labels) if class_names is None else np.arange(len(class_names))
    members = [np.flatnonzero(labels == label) for label in classes]
    smallest = min(range(len(members)), key=lambda index: len(members[index]))
    name = repr(class_names[smallest]) if class_names else str(classes[smallest])
    return classes, members, name, len(members[smallest])
