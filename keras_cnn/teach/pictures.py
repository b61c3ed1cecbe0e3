"""The images of a folder, as `teach` sees them: at any size, brought to a square in any way."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from keras_cnn import data
from keras_cnn.data import Dataset, inspect, near_duplicates, sources
from keras_cnn.data.fit import FITS
from keras_cnn.data.sampling import draw_at_most
from keras_cnn.teach.search import Photos

Pairs = tuple[tuple[str, str], ...]
USED = ("train", "test")  # splits
MOST_PAIRS = 200  # of equal or alike images that are told


@dataclass(frozen=True)
class Pictures:
    """A folder's training and test images.

    Attributes:
        source: A folder, or a data source's name.
        image_size: Height and width, in pixels, at which equal images are looked for.
        chosen: The training images that are used, places in the training split.
        loaded: What has been loaded, by image size and fit.
    """

    source: str
    image_size: int
    chosen: np.ndarray
    loaded: dict[tuple[int, str], Dataset] = field(default_factory=dict, repr=False, compare=False)

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return tuple(self._dataset().class_names)

    def training(self) -> Photos:
        """The training images, those that look nearly the same in one group."""
        dataset = self._dataset()
        labels = np.asarray(dataset.splits["train"].labels)[self.chosen]
        groups = near_duplicates.chains(dataset.hashes["train"][self.chosen])
        return Photos(labels, groups, self._training_images)

    def all_labels(self) -> np.ndarray:
        """Of all training images of the folder, used or not."""
        return np.asarray(self._dataset().splits["train"].labels)

    def test_labels(self) -> np.ndarray:
        """Of the test images."""
        return np.asarray(self._dataset().splits["test"].labels)

    def test_images(self, image_size: int, fit: str) -> np.ndarray:
        """uint8 (n, s, s, 3)."""
        return self._dataset(image_size, fit).splits["test"].images

    def files(self, split: str) -> list[str]:
        """Each image's file, relative to the folder; of a data source, its place."""
        dataset = self._dataset()
        if split in dataset.files:
            names = dataset.files[split]()
        else:
            names = [f"{split} {place}" for place in range(len(dataset.splits[split].labels))]
        return [names[place] for place in self.chosen] if split == "train" else names

    def notes_and_faults(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """How the folder was read, and its faults with the first cases of each, a line for each."""
        found = inspect.describe(self.source, self.image_size, wanted=USED)
        return (*found.notes, *_unused(self.source)), tuple(inspect.faults_of(found))

    def copies(self) -> tuple[Pairs, Pairs]:
        """Pairs of files with the same pixels, and pairs of others that look nearly the same."""
        names = [*self.files("train"), *self.files("test")]
        digests, hashes = self._of_all("digests"), self._of_all("hashes")
        pairs = near_duplicates.pairs(hashes)
        are_equal = digests[pairs[:, 0]] == digests[pairs[:, 1]]
        equal, near = pairs[are_equal][:MOST_PAIRS], pairs[~are_equal][:MOST_PAIRS]
        return (
            tuple((names[one], names[other]) for one, other in equal),
            tuple((names[one], names[other]) for one, other in near),
        )

    def _of_all(self, what: str) -> np.ndarray:
        """Of the training and the test images, one number each."""
        numbers = getattr(self._dataset(), what)
        return np.concatenate([numbers["train"][self.chosen], numbers["test"]])

    def _training_images(self, image_size: int, fit: str) -> np.ndarray:
        images = self._dataset(image_size, fit).splits["train"].images
        return images if len(self.chosen) == len(images) else images[self.chosen]

    def _dataset(self, image_size: int | None = None, fit: str = FITS[0]) -> Dataset:
        key = image_size or self.image_size, fit
        if key not in self.loaded:
            self.loaded[key] = data.load(self.source, key[0], fit=fit)
        return self.loaded[key]


def _unused(source: str) -> list[str]:
    """A line on each part of a folder that is not used."""
    if sources.is_named(source):
        return []
    splits = sources.find(source).splits
    counts = {name: len(splits[name]().content()[1]) for name in splits if name not in USED}
    return [
        f"the {count:,} images of the {name} folder are not used: the training images are held out "
        "in turn in their place; to train with them, put them into the class folders of train"
        for name, count in counts.items()
    ]


def of(source: str, image_size: int, shots: int | None, seed: int) -> Pictures:
    """The images of a folder, decoded the first time.

    Args:
        source: A folder, or a data source's name.
        image_size: Height and width, in pixels.
        shots: Training images of each class; a class with fewer is taken whole. None takes all.
        seed: Seeds the draw.

    Raises:
        UserError: There is no such folder, or it holds no images in a layout that is known.
    """
    dataset = data.load(source, image_size)
    labels = np.asarray(dataset.splits["train"].labels)
    chosen = np.arange(len(labels))
    if shots is not None:
        chosen = draw_at_most(labels, shots, seed)
        chosen = chosen[np.argsort(labels[chosen], kind="stable")]
    return Pictures(source, image_size, chosen, {(image_size, FITS[0]): dataset})
