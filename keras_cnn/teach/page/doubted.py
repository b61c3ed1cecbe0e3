"""Training images whose label the folds doubt."""

from __future__ import annotations

from keras_cnn import pages
from keras_cnn.teach.doubts import doubts
from keras_cnn.teach.page.album import Album
from keras_cnn.teach.page.wording import (
    Section,
    file_name,
    of_images,
    paragraph,
    small_print,
    sureness,
)
from keras_cnn.teach.taught import Taught

SHOWN = 48


def section(taught: Taught, album: Album) -> Section:
    """The labels that are most in doubt, with what they are and what the folds say."""
    train, names = taught.train, taught.class_names
    found = doubts(train.labels, train.probabilities)
    order, flagged = found.order.tolist(), int(found.flagged.sum())
    if not order:
        body = paragraph("The folds call each training image by its own class.")
        return Section("labels", "Labels in doubt", "labels", body)
    items = []
    for image in order[:SHOWN]:
        file, label = train.files[image], int(train.labels[image])
        album.add(file)
        answer = int(train.predicted[image])
        given, other = (sureness(train.probabilities[image, which]) for which in (label, answer))
        mark = ' <strong class="mark">suspect</strong>' if found.flagged[image] else ""
        items.append(
            f"<li>{album.photograph(file)}{file_name(file)}"
            f"<span>labelled {pages.name(names[label])}, {given}</span>"
            f"<span>folds: {pages.name(names[answer])}, {other}{mark}</span></li>"
        )
    more = len(order) - len(items)
    rest = f" The first {len(items)} are here." if more else ""
    parts = [
        paragraph(
            f"Of {of_images(len(train.files), 'training image')}, {len(order):,} were called "
            "another class by a model that had not seen them: a mistake of the model, or a wrong "
            f"label. The most doubtful come first: look at these, and mend the folder.{rest}"
        ),
        f'<ol class="photos">{"".join(items)}</ol>',
        small_print(
            f"{of_images(flagged, 'label')} of {len(train.files):,} "
            f"{'is' if flagged == 1 else 'are'} suspect by confident learning (Northcutt et al. "
            "2021): the folds are as sure of another class as they are, on average, of images "
            "labelled so. The better the model, the more of the suspects are wrong: where one "
            "label of 20 had been changed on purpose, 6 to 40 of 100 suspects were. Ordered by "
            "the probability of the label over that of the other class."
        ),
    ]
    return Section("labels", "Labels in doubt", "labels", "\n".join(parts))
