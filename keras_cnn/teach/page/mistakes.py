"""The images set aside that the model gets wrong or is least sure of, and where it looks."""

from __future__ import annotations

import numpy as np
from PIL import Image

from keras_cnn import pages
from keras_cnn.teach.page.album import Album
from keras_cnn.teach.page.wording import Section, file_name, of_images, paragraph, said, sureness
from keras_cnn.teach.taught import Taught

SHOWN, WRONG = 24, 18  # images, and of these wrong ones where there are enough others
WARM = np.array([255, 120, 0])
STRONGEST = 0.8  # of the colour, where a place speaks most for the answer


def section(taught: Taught, album: Album) -> Section:
    """Each image beside what in it speaks for the model's answer."""
    chosen = _chosen(taught)
    wrong, shown = (int(_is_wrong(taught)[which].sum()) for which in (slice(None), chosen))
    some = "all of them" if shown == wrong else f"{shown} of them"
    here = f"Here are {some}, the surest first, then those" if wrong else "Here are those"
    parts = [
        paragraph(
            f"Wrong are {of_images(wrong)} of the {len(taught.test.files):,} set aside. {here} "
            "that are right but least sure. Beside each, orange, is what in it speaks for the "
            "answer: without these places the model would be less sure of it."
        ),
        f'<ul class="photos pairs">{"".join(_items(taught, album, chosen))}</ul>',
    ]
    if not len(chosen):
        parts = [paragraph("There are none.")]
    return Section("mistakes", "Wrong and least sure", "mistakes", "\n".join(parts))


def _is_wrong(taught: Taught) -> np.ndarray:
    return taught.test.predicted != taught.test.labels


def _chosen(taught: Taught) -> np.ndarray:
    """Indices of the images shown: wrong ones, the surest first, then the least sure others."""
    (told,) = np.nonzero(taught.test.predicted >= 0)
    sure = taught.test.probabilities.max(axis=1)
    is_wrong = _is_wrong(taught)[told]
    wrong, right = told[is_wrong], told[~is_wrong]
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")]
    right = right[np.argsort(sure[right], kind="stable")]
    wrong = wrong[: max(WRONG, SHOWN - len(right))]
    return np.concatenate([wrong, right[: SHOWN - len(wrong)]])


def _items(taught: Taught, album: Album, chosen: np.ndarray) -> list[str]:
    test, names = taught.test, taught.class_names
    heats = _heats(taught, album, chosen)
    items = []
    for image in chosen.tolist():
        file, true, answer = test.files[image], int(test.labels[image]), int(test.predicted[image])
        album.add(file)
        sure, of_true = (sureness(test.probabilities[image, label]) for label in (answer, true))
        words = f"{said(names, answer)} {sure}"
        kind = "right" if answer == true else "wrong"
        if kind == "wrong":
            words += f"; is {pages.name(names[true])}, {of_true}"
        shown = ""
        if image in heats:
            description = f"what speaks for {names[answer]} in {file}"
            shown = album.drawing(heats[image], description)
        items.append(
            f'<li class="{kind}"><span class="two">{album.photograph(file)}{shown}</span>'
            f"{file_name(file)}<span>{kind}: {words}</span></li>"
        )
    return items


def _heats(taught: Taught, album: Album, chosen: np.ndarray) -> dict[int, np.ndarray]:
    """By image, the photograph in grey with what speaks for the model's answer in orange."""
    files = {image: taught.test.files[image] for image in chosen.tolist()}
    seen = {image: album.pixels(file, taught.chosen.image_size) for image, file in files.items()}
    readable = [image for image, pixels in seen.items() if pixels is not None]
    if not readable:
        return {}
    from keras_cnn.models import saliency, saved  # only here is Keras needed

    model, _ = saved.load(taught.model_file)
    inputs = np.stack([seen[image] for image in readable])
    heats = saliency.heat(model, inputs, taught.test.predicted[readable])
    return {
        image: _overlaid(album.pixels(files[image]), heat)
        for image, heat in zip(readable, heats, strict=True)
    }


def _overlaid(photograph: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A photograph, uint8 (side, side, 3), in grey, and orange by its heat above 0, (h, w)."""
    strength = np.maximum(heat, 0) / max(float(heat.max()), 1e-12)
    scaled = Image.fromarray(strength.astype(np.float32)).resize(
        (pages.PHOTOGRAPH,) * 2, Image.Resampling.BICUBIC
    )
    alpha = STRONGEST * np.clip(np.asarray(scaled), 0, 1)[..., None]
    grey = np.asarray(Image.fromarray(photograph).convert("L"), np.float32)[..., None]
    return np.round((1 - alpha) * grey + alpha * WARM).astype(np.uint8)
