"""What tests share: few images, what every method promises, and results that nothing ran for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np

from keras_cnn import data
from keras_cnn.data import Split
from keras_cnn.data.sampling import draw_shots
from keras_cnn.methods import Trained
from keras_cnn.models import heads, saved
from keras_cnn.recipe.spec import Run
from keras_cnn.results import store
from keras_cnn.results.store import Result
from keras_cnn.runs import worker
from keras_cnn.runs.jobs import Event, Job
from keras_cnn.training import evaluation


def synthetic(shots: int, test_images: int, image_size: int = 16) -> tuple[Split, Split]:
    """Some training images of each of ten classes, and test images."""
    splits = data.load(f"synthetic:{max(test_images, 10 * shots)}", image_size).splits
    train, test = splits["train"], splits["test"]
    chosen = draw_shots(train.labels, shots, seed=213)
    return (
        Split(np.asarray(train.images[chosen]), train.labels[chosen], train.class_names),
        Split(np.asarray(test.images[:test_images]), test.labels[:test_images], test.class_names),
    )


def trained(
    method: Callable[..., Trained], network: keras.Model, train: Split, test: Split, **settings
) -> Trained:
    """What a method gives, its records and probabilities looked at."""
    reports = []
    result = method(network, train, test, report=reports.append, **settings)
    assert reports == result.history
    for epoch, record in enumerate(result.history, start=1):
        assert tuple(record) == store.HISTORY_COLUMNS and record["epoch"] == epoch
        assert np.isfinite([*record.values()][2:]).all() and record["seconds"] > 0
        assert 0 <= record["train_accuracy"] <= 1 and 0 <= record["test_accuracy"] <= 1
    assert result.probabilities.shape == (len(test.labels), network.output.shape[-1])
    np.testing.assert_allclose(result.probabilities.sum(axis=1), 1, atol=1e-5)
    hits = result.probabilities.argmax(axis=1) == test.labels
    assert result.measures["test_accuracy_over_images"] == hits.mean()
    return result


def assert_saved_whole(
    result: Trained, images: np.ndarray, folder: Path, atol: float = 1e-5
) -> None:
    """The saved model, loaded, gives the probabilities of the images."""
    result.save(folder / "model.keras")
    loaded, _ = saved.load(folder / "model.keras")
    again = loaded.predict(images, verbose=0)
    np.testing.assert_allclose(again, result.probabilities, atol=atol)


def finished(run: Run, folder: Path, history: list[dict], **metrics: float) -> Result:
    """A run's result of two classes, as if read from its folder.

    Args:
        run: The run.
        folder: Where it would lie.
        history: Its figures by epoch, where they are others than all results have; the last are
            among its metrics.
        **metrics: Others of these.
    """
    losses = {"train_loss": 1.5, "test_loss": 2.5}
    accuracies = {"train_accuracy": 0.75, "test_accuracy": 0.5}
    usual = {"epoch": 1, "learning_rate": 0.1, **losses, **accuracies, "seconds": 1.5}
    history = [usual | record for record in history]
    figures = {key: value for key, value in history[-1].items() if key.startswith(("train", "te"))}
    counts = {"train_images": 1000, "test_images": 800, "seconds": 4.5}
    environment = {"backend": "torch", "versions": {"keras": "3"}, "device": "cpu"}
    return Result(
        folder=folder,
        place=run.place,
        spec=run.spec.model_dump(),
        environment=environment | {"processor": "a processor"},
        history=history,
        metrics=figures | counts | metrics,
        class_names=["cat", "dog"],
        confusion=[[9, 1], [2, 8]],
    )


def write(result: Result, run: Run) -> Result:
    """Writes a result to its folder, as its run would have."""
    parts = result.environment, result.history, result.metrics, result.class_names
    store.write(result.folder, run, *parts, result.confusion, lambda path: None)
    return result


class Here(nullcontext):
    """An `engine.Executor` that makes runs in this process, where a test is about results alone."""

    slots = 1

    def __init__(self) -> None:
        super().__init__()
        self._events: deque[Event] = deque()

    def submit(self, job: Job) -> None:
        """Makes the run."""
        self._events.append(Event(job, "started"))
        worker.make(
            job.run,
            job.folder,
            lambda record: self._events.append(Event(job, "epoch", record)),
            job.fresh,
        )
        self._events.append(Event(job, "done"))

    def next_event(self) -> Event:
        """The oldest that was not asked for."""
        return self._events.popleft()


def embedded(result: Trained, split: Split) -> np.ndarray:
    """What the model's graph gives before its class means."""
    features = heads.features(result.model)
    return evaluation.outputs(keras.Model(result.model.input, features), split.images)
