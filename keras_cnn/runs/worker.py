"""One run to one result folder, in a process of its own: `python -m keras_cnn.runs.worker`."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_cnn import data, environment
from keras_cnn.data import Split
from keras_cnn.data.sampling import draw_shots
from keras_cnn.downloads import registry
from keras_cnn.errors import UserError
from keras_cnn.recipe.resolve import Run
from keras_cnn.results import store

if TYPE_CHECKING:
    from keras_cnn.methods import Outcome

EXIT_FAILED = 1
EXIT_ORPHANED = 3
EXIT_BUSY = 75


def run_one(
    run: Run,
    folder: Path,
    report: Callable[[dict], None],
    fresh: bool = False,
    wait: bool = False,
) -> None:
    """Makes a run's result folder, unless it is there.

    Args:
        run: What to do.
        folder: `store.run_folder(run, out)`.
        report: Called with one record an epoch.
        fresh: Make it anew, from its beginning, and replace the older result.
        wait: Wait while another process is making it.

    Raises:
        store.Busy: Another process is making it.
        UserError: The data or the weights cannot be used.
    """
    with store.held(folder, wait):
        if folder.exists() and not fresh:
            return
        if store.identity(run) != folder.name:
            raise UserError("the data or the weights changed after the command began: start again")
        if fresh:
            store.checkpoint_file(run).unlink(missing_ok=True)
        train, test, class_names = sample(run)
        from keras_cnn import methods
        from keras_cnn.models import saved

        environment.seed_everything(run.training_seed)
        began, busy = time.perf_counter(), _processor_seconds()
        outcome = methods.find(run.training.method)(run, train, test, class_names, report)
        spent = _processor_seconds() - busy + outcome.measures.get("worker_seconds", 0.0)
        processor_use = spent / (time.perf_counter() - began)
        metrics = {**_metrics(outcome, train, test), "processor_use": processor_use}
        with store.new_folder(folder) as partial:
            store.write_json(partial / "run.json", run.model_dump())
            store.write_json(
                partial / "environment.json",
                environment.describe() | {"fingerprints": store.fingerprints(run)},
            )
            store.write_csv(
                partial / "history.csv",
                store.HISTORY_COLUMNS,
                [[record[key] for key in store.HISTORY_COLUMNS] for record in outcome.history],
            )
            store.write_csv(
                partial / "confusion.csv",
                ["true class", *class_names],
                [
                    [name, *counts]
                    for name, counts in zip(
                        class_names,
                        confusion(test.labels, outcome.probabilities).tolist(),
                        strict=True,
                    )
                ],
            )
            store.write_json(partial / "metrics.json", metrics)
            saved.save(outcome.model, partial / "model.keras", _card(run, class_names, metrics))
        store.checkpoint_file(run).unlink(missing_ok=True)  # the result is on disk


def check(runs: Sequence[Run]) -> None:
    """Draws the images and fits the weights files of every run once: faults show before any run.

    Raises:
        UserError: The data or the weights cannot be used, or a class has too few images.
    """
    check_images(runs)
    given = {
        (run.model.model, run.model.hidden_units, run.data.image_size, run.model.weights): run
        for run in runs
        if run.model.weights not in registry.NAMED_WEIGHTS  # whose files are known to fit
    }
    if given:
        # In a process of its own: this one goes on without a framework.
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            for run in given.values():
                pool.submit(_fit_weights, run).result()


def check_images(runs: Sequence[Run]) -> None:
    """Draws the images of every run once, without a framework.

    Raises:
        UserError: The data cannot be used, or a class has too few images.
    """
    for run in {(run.data, run.shots_seed): run for run in runs}.values():
        sample(run)


def _fit_weights(run: Run) -> None:
    from keras_cnn import models, pretrained

    units = run.model.hidden_units
    graph = models.backbone(run.model.model, run.data.image_size, hidden_units=units)
    pretrained.load(graph, run.model.weights)


def sample(run: Run) -> tuple[Split, Split, list[str]]:
    """The images a run trains on and is tested on.

    Returns:
        Training and test images, and the class names in the order of the labels.
    """
    dataset = data.load(run.data.data, run.data.image_size)
    train, test = (
        _drawn(dataset.splits[split], setting, shots, run.shots_seed, dataset.class_names)
        for split, setting, shots in (
            ("train", "shots", run.data.shots),
            ("test", "test_shots", run.data.test_shots),
        )
    )
    return train, test, list(dataset.class_names)


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Counts, true class by row, predicted class by column.

    Args:
        labels: (n,) integers.
        probabilities: (n, classes).

    Returns:
        (classes, classes) int64; sums to n.
    """
    from sklearn.metrics import confusion_matrix

    classes = np.arange(probabilities.shape[1])
    return confusion_matrix(labels, probabilities.argmax(axis=1), labels=classes)


def _drawn(
    split: Split, setting: str, shots: int | None, seed: int, class_names: tuple[str, ...]
) -> Split:
    if shots is None:
        return split
    try:
        indices = draw_shots(split.labels, shots, seed, class_names)
    except UserError as error:
        fewest = np.bincount(split.labels, minlength=len(class_names)).min()
        raise UserError(
            f"{error} (--set {setting} {fewest} works, --set {setting} null takes all images)"
        ) from None
    return Split(np.asarray(split.images[indices]), split.labels[indices])


def _metrics(outcome: Outcome, train: Split, test: Split) -> dict[str, float | None]:
    """The final figures; seconds are of the epochs, without starting and loading."""
    from keras_cnn.models import summary

    last = outcome.history[-1]
    hits = outcome.probabilities.argmax(axis=1) == test.labels
    seconds = [record["seconds"] for record in outcome.history]
    return {
        **{key: last[key] for key in store.HISTORY_COLUMNS if key.startswith(("train", "test"))},
        "test_accuracy_over_images": float(hits.mean()),
        "train_images": len(train.labels),
        "test_images": len(test.labels),
        "parameters": summary.summarise(outcome.model, batch_size=1).parameters,
        "seconds": sum(seconds),
        "seconds_an_epoch": statistics.median(seconds),
        "images_a_second": len(train.labels) / statistics.median(seconds),
        "epochs": len(outcome.history),
        "peak_memory_megabytes": environment.peak_memory_megabytes(),
        **outcome.measures,
    }


def _processor_seconds() -> float:
    """Of this process and those it started and has seen end; not of a loader's workers."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _card(run: Run, class_names: list[str], metrics: dict[str, float]) -> dict[str, object]:
    from keras_cnn import __version__

    return {
        "class_names": class_names,
        "image_size": run.data.image_size,
        "input": "RGB images (n, height, width, 3), values 0 to 255",
        "output": "probabilities (n, classes)",
        "test_accuracy": metrics["test_accuracy_over_images"],
        "run": run.model_dump(),
        "fingerprints": store.fingerprints(run),
        "keras_cnn": __version__,
    }


def _die_with_parent() -> None:
    """Ends this process when the parent is gone: its end of standard input closes then."""
    sys.stdin.buffer.read()
    os._exit(EXIT_ORPHANED)


def main() -> int:
    """Makes the run named by one line of JSON on standard input; reports by lines of JSON.

    Standard output carries the reports alone: what libraries print goes to standard error.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    reports = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)

    def report(record: dict) -> None:
        print(json.dumps(record), file=reports)

    job = json.loads(sys.stdin.buffer.readline())
    environment.keep_freed_memory()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        run = Run.model_validate(job["run"])
        environment.require(run.backend)
        run_one(run, Path(job["folder"]), report, job["fresh"], job["wait"])
    except store.Busy:
        return EXIT_BUSY
    except UserError as error:
        report({"error": str(error)})
        return EXIT_FAILED
    except Exception as error:  # whatever it was, the other runs go on
        traceback.print_exc()
        text = str(error).strip().splitlines()
        report({"error": f"{type(error).__name__}: {text[0] if text else 'no message'}"})
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # frameworks' threads are not waited for
