"""Which classes the model takes for which, and the images behind each number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_cnn import pages
from keras_cnn.models import saved
from keras_cnn.teach.page.album import Album
from keras_cnn.teach.page.wording import (
    Section,
    file_name,
    of_images,
    paragraph,
    percent,
    said,
    small_print,
    sureness,
)
from keras_cnn.teach.taught import Taught

MOST_CLASSES = 40  # in a matrix; of more there is a list alone
PAIRS_FROM = 6  # classes: of fewer the matrix says it all
PAIRS, PAIRS_ALONE = 10, 50  # in the list, beside the matrix and without it
LISTED, ALL_LISTED = 24, 3000  # files of a cell, and of all cells
MOST_LETTERS = 80  # of all columns' names; of more they stand upright
FULL = 0.6  # of a cell's colour, where all of its class are in it: text stays legible


@dataclass(frozen=True)
class _Cell:
    """Test images of a class that the model takes for a class.

    Attributes:
        true: Their class.
        said: What the model says.
        images: Indices into the test images: of wrong answers the surest first, of right ones the
            least sure.
    """

    true: int
    said: int
    images: np.ndarray

    @property
    def anchor(self) -> str:
        return f"cell-{self.true}-{self.said}"


def section(taught: Taught, album: Album) -> Section:
    """The matrix, the pairs that are confused most, and what each number opens."""
    counts = saved.confusion(taught.test.labels, taught.test.probabilities)
    has_matrix = len(taught.class_names) <= MOST_CLASSES
    cells = _cells(taught)
    confused = [cell for cell in cells if cell.true != cell.said]
    pairs = confused[: PAIRS if has_matrix else PAIRS_ALONE]
    if not has_matrix:
        cells = pairs
    listed = _listed(cells, taught, album)
    parts = []
    if has_matrix:
        parts += [
            paragraph(
                "Each row is a class, each column what the model says; on the diagonal it is "
                "right. A number opens its images."
            ),
            _matrix(taught, counts, listed),
        ]
    if confused and (len(taught.class_names) >= PAIRS_FROM or not has_matrix):
        parts.append(_pairs(taught, counts, pairs, len(confused), listed))
    if not confused:
        parts.append(paragraph("None of the images set aside is taken for another class."))
    silent = len(taught.test.labels) - int(counts.sum())
    if silent:
        parts.append(paragraph(f"For {of_images(silent)} the model gives no number."))
    parts += [
        _sheet(cell, taught, album, listed[cell.anchor]) for cell in cells if cell.anchor in listed
    ]
    return Section("confusions", "What is taken for what", "confusions", "\n".join(parts))


def _cells(taught: Taught) -> list[_Cell]:
    """All that hold images, the confusions first, most images first."""
    labels, predicted = taught.test.labels, taught.test.predicted
    (told,) = np.nonzero(predicted >= 0)
    sure = taught.test.probabilities[told, predicted[told]]
    is_right = labels[told] == predicted[told]
    ordered = told[np.argsort(np.where(is_right, sure, -sure), kind="stable")]
    members: dict[tuple[int, int], list[int]] = {}
    for image in ordered.tolist():
        members.setdefault((int(labels[image]), int(predicted[image])), []).append(image)
    found = [_Cell(true, said, np.array(images)) for (true, said), images in members.items()]
    return sorted(
        found, key=lambda one: (one.true == one.said, -len(one.images), one.true, one.said)
    )


def _listed(cells: list[_Cell], taught: Taught, album: Album) -> dict[str, np.ndarray]:
    """By cell, the images that it lists: the first of all cells before the second of any."""
    counts = dict.fromkeys((cell.anchor for cell in cells), 0)
    left = ALL_LISTED
    for place in range(LISTED):
        for cell in cells:
            if place < len(cell.images) and left:
                counts[cell.anchor] += 1
                left -= 1
                album.add(taught.test.files[cell.images[place]])
    return {
        cell.anchor: cell.images[: counts[cell.anchor]] for cell in cells if counts[cell.anchor]
    }


def _matrix(taught: Taught, counts: np.ndarray, listed: dict[str, np.ndarray]) -> str:
    names = taught.class_names
    totals = counts.sum(axis=1)
    letters = sum(2 + max(4, len(name)) for name in names)
    size = "many" if letters > MOST_LETTERS else "few"
    head = "".join(
        f'<th scope="col"><span title="{pages.text(name)}">{pages.name(name)}</span></th>'
        for name in names
    )
    rows = []
    for true, name in enumerate(names):
        cells = "".join(
            _matrix_cell(taught, true, said, int(counts[true, said]), int(totals[true]), listed)
            for said in range(len(names))
        )
        rows.append(
            f'<tr><th scope="row"><span title="{pages.text(name)}">{pages.name(name)}</span></th>'
            f'{cells}<td class="total">{totals[true]:,}</td></tr>'
        )
    caption = f"Images set aside by class and by answer, n = {counts.sum():,}"
    return "\n".join(
        [
            f'{pages.box(caption)}<table class="matrix {size}">',
            f"<caption><span>{caption}</span></caption>",
            f'<thead><tr><td class="corner">class, answer</td>{head}'
            '<th scope="col" class="total"><span>all</span></th></tr></thead>',
            "<tbody>",
            *rows,
            "</tbody></table></div>",
        ]
    )


def _matrix_cell(
    taught: Taught, true: int, said: int, count: int, total: int, listed: dict[str, np.ndarray]
) -> str:
    kind = "right" if true == said else "wrong"
    if not count:
        return f'<td class="{kind} none">0</td>' if true == said else "<td></td>"
    anchor = f"cell-{true}-{said}"
    part = count / total if true == said else (count / total) ** 0.5  # few are to be seen too
    share = f"{100 * FULL * part:.0f}%"
    number = _opener(anchor, f"{count:,}", taught, true, said, count) if anchor in listed else count
    return f'<td class="{kind}" style="--share:{share}">{number}</td>'


def _opener(anchor: str, text: str, taught: Taught, true: int, said: int, count: int) -> str:
    """A button that opens a cell's images."""
    names = taught.class_names
    label = f"{names[true]} taken for {names[said]}" if true != said else f"{names[true]}, right"
    return (
        f'<button popovertarget="{anchor}" aria-label="{pages.text(label)}: '
        f'{of_images(count)}, show">{text}</button>'
    )


def _pairs(
    taught: Taught,
    counts: np.ndarray,
    pairs: list[_Cell],
    all_pairs: int,
    listed: dict[str, np.ndarray],
) -> str:
    names, rows = taught.class_names, []
    for cell in pairs:
        count, total = len(cell.images), int(counts[cell.true].sum())
        number = f"{count:,}"
        if cell.anchor in listed:
            number = _opener(cell.anchor, number, taught, cell.true, cell.said, count)
        share = f"{percent(count / total)} of {total:,}"
        rows.append([pages.name(names[cell.true]), pages.name(names[cell.said]), number, share])
    some = f"the first {len(pairs)} of {all_pairs:,}" if all_pairs > len(pairs) else "all"
    wrong = counts.sum() - np.trace(counts)
    table = pages.table(
        f"Confusions, most images first ({some}; {wrong:,} wrong of {counts.sum():,})",
        ["class", "taken for", "images", "share of the class"],
        [False, False, True, True],
        rows,
    )
    return table + small_print("A number of images opens them.")


def _sheet(cell: _Cell, taught: Taught, album: Album, images: np.ndarray) -> str:
    """What a cell's number opens."""
    names, test = taught.class_names, taught.test
    true, answer = pages.name(names[cell.true]), said(names, cell.said)
    heading = f"{true} taken for {answer}" if cell.true != cell.said else f"{true}, right"
    items = []
    for image in images.tolist():
        file = test.files[image]
        sure = sureness(test.probabilities[image, cell.said])
        of_true = sureness(test.probabilities[image, cell.true])
        words = f"{answer} {sure}" + (f", {true} {of_true}" if cell.true != cell.said else "")
        items.append(f"<li>{album.photograph(file)}{file_name(file)}<span>{words}</span></li>")
    more = len(cell.images) - len(images)
    order = "surest first" if cell.true != cell.said else "least sure first"
    return "\n".join(
        [
            f'<div popover id="{cell.anchor}" class="sheet" role="dialog" '
            f'aria-labelledby="{cell.anchor}-title">',
            f'<button class="close" popovertarget="{cell.anchor}" popovertargetaction="hide" '
            'aria-label="close">&times;</button>',
            f'<h3 id="{cell.anchor}-title">{heading}</h3>',
            f"<p>{of_images(len(cell.images))}, {order}.</p>",
            f'<ul class="photos">{"".join(items)}</ul>',
            f"<p>And {of_images(more, 'more image')}.</p>" if more else "",
            "</div>",
        ]
    )
