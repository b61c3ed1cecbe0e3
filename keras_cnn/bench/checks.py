"""What has to be equal for a bench to count: `python -m keras_cnn.bench.checks NAME` finds out."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from keras_cnn import environment
from keras_cnn.bench import contenders
from keras_cnn.results import store

MOST_DIFFERENCE = 1e-4


def kept_features() -> dict[str, object]:
    """Trains an epoch on kept features and one on images, and compares what both then predict."""
    from keras_cnn.training.feed import BeginEpoch

    outputs = []
    for kept in (True, False):
        environment.seed_everything(0)
        model, batches, test = contenders.fewshot_model(kept)
        model.fit(batches, shuffle=False, verbose=0, callbacks=[BeginEpoch(batches)])
        logits = np.asarray(model.predict(test, verbose=0), np.float64)
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        outputs.append(exponentials / exponentials.sum(1, keepdims=True))
    difference = float(np.abs(outputs[0] - outputs[1]).max())
    return {
        "claim": f"probabilities after an epoch agree within {MOST_DIFFERENCE:g}",
        "found": f"largest difference {difference:.1e}",
        "met": difference <= MOST_DIFFERENCE,
    }


def repeats() -> dict[str, object]:
    """Runs the repeats together and each by itself, one thread each, and compares all bits."""
    with tempfile.TemporaryDirectory(prefix="keras_cnn-") as out:
        together, solo = (
            [result_digest(folder) for folder in contenders.run_repeats(parallel, 1, Path(out, at))]
            for parallel, at in ((2, "together"), (1, "solo"))
        )
    equal = sum(one == other for one, other in zip(together, solo, strict=True))
    return {
        "claim": "history, counts and weights of each repeat equal its solo run's to the last bit",
        "found": f"{equal} of {len(solo)} equal, {len(set(solo))} different from one another",
        "met": equal == len(solo) == len(set(solo)),
    }


def result_digest(folder: Path) -> str:
    """A hash of everything in a run's folder that must not depend on what ran beside it.

    Args:
        folder: A finished run's folder.

    Returns:
        SHA-256, in hex, of the history without its seconds, the confusion counts and the weights.
    """
    import h5py

    result = store.read(folder)
    history = [{k: v for k, v in line.items() if k != "seconds"} for line in result.history]
    digest = hashlib.sha256(json.dumps([history, result.confusion]).encode())

    def add(name: str, entry: object) -> None:
        if isinstance(entry, h5py.Dataset):
            digest.update(name.encode() + np.asarray(entry).tobytes())

    with zipfile.ZipFile(folder / "model.keras") as archive:
        weights = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(weights) as file:
        file.visititems(add)
    return digest.hexdigest()


CHECKS = {"fewshot": kept_features, "repeats": repeats}


if __name__ == "__main__":
    stream = contenders.report_stream()
    print(json.dumps(CHECKS[sys.argv[1]]()), file=stream)
