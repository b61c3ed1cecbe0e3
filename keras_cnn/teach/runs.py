"""Candidates as run folders: what any run of a recipe leaves, of the folds in place of a test."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from keras_cnn import environment
from keras_cnn.methods.settings import Classifier, Images, Network, Supervised
from keras_cnn.models import saved
from keras_cnn.recipe.spec import Place, Run, Spec
from keras_cnn.results import identity, predictions, store
from keras_cnn.results.scores import scores
from keras_cnn.teach.candidates import Candidate
from keras_cnn.teach.pictures import Pictures
from keras_cnn.teach.search import Compared
from keras_cnn.training.evaluation import loss_and_accuracy
from keras_cnn.training.history import record

FOLDER = "candidates"


def write(compared: Compared, images: Pictures, out: Path, seed: int, shots: int | None) -> Path:
    """Writes what the folds say of a candidate, unless it is there.

    Args:
        compared: The candidate.
        images: Of the folder.
        out: Results go to `out/candidates/`.
        seed: Of the folds and of the draw of the shots.
        shots: Training images of each class, at most.

    Returns:
        Its folder, which `results.read` reads.
    """
    candidate, settings = compared.candidate, compared.candidate.settings
    spec = Spec(
        method=settings.name(),
        images=Images(
            data=images.source, image_size=candidate.image_size, fit=candidate.fit, shots=shots
        ),
        network=_network(candidate),
        training=settings,
        seed=seed,
        shots_seed=seed,
        backend=environment.describe()["backend"],
        folds=compared.fold_count,
    )
    place = Place(
        recipe=FOLDER,
        row=candidate.title.replace(" ", "-"),
        variant="corrected",
        repeat=0,
        profile="teach",
        comparable=False,
    )
    run = Run(spec=spec, place=place)
    folder = identity.run_folder(run, out)
    with store.held(folder, wait=True):
        if not folder.exists():
            _write(folder, run, compared, images)
    return folder


def _network(candidate: Candidate) -> Network:
    start = {"model": candidate.backbone, "weights": candidate.weights}
    if isinstance(candidate.settings, Supervised):
        return Classifier(**start, unfrozen_stages=1)
    return Network(**start)


def _write(folder: Path, run: Run, compared: Compared, images: Pictures) -> None:
    found = compared.found
    told = found.told
    probabilities, labels = found.probabilities, found.labels
    test = loss_and_accuracy(probabilities[told], labels[told])
    made = record(1, float("nan"), compared.train, test, compared.seconds)
    metrics = {
        **{key: made[key] for key in store.HISTORY_COLUMNS if key.startswith(("train", "test"))},
        "train_images": len(labels),
        "test_images": int(told.sum()),
        "seconds": compared.seconds,
        "seconds_an_epoch": compared.seconds,
        "epochs": 1,
        "test_accuracy_over_images": test[1],
        **scores(labels[told], probabilities[told]),
    }
    store.write(
        folder,
        run,
        environment.describe() | {"fingerprints": identity.fingerprints(run.spec)},
        [made],
        metrics,
        images.class_names,
        saved.confusion(labels, probabilities).tolist(),
        lambda path: None,
        predictions.of(
            labels, np.asarray(probabilities, np.float32), images.chosen, images.files("train")
        ),
    )
