"""How long runs will take, and the list of them. Never imports keras."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from keras_cnn import progress, store
from keras_cnn.errors import UserError
from keras_cnn.recipe import Run

# Training images a second on one core of a laptop-class processor at 32 pixels, evaluation between
# epochs included: a first guess, until runs on this machine have been measured.
IMAGES_PER_SECOND = {
    "baseline": 700.0,
    "enhanced": 100.0,
    "fewshot_cnn": 700.0,
    "siamese_cnn": 60.0,
    "resnet18": 100.0,
    "convnext_atto": 250.0,
    "convnext_femto": 200.0,
    "convnext_pico": 130.0,
    "convnext_nano": 90.0,
    "convnext_tiny": 40.0,
}
START_SECONDS = 6.0
CLASSES_GUESSED = 10


def seconds(run: Run, measured: dict[tuple, float]) -> float:
    """A run's duration.

    Args:
        run: The run.
        measured: Images a second by (model, backend, image size), from finished runs.
    """
    speed = measured.get(_kind(run.model_dump()))
    if speed is None:
        speed = IMAGES_PER_SECOND[run.model.model] * (32 / run.data.image_size) ** 2
    images = (run.data.shots or 1000) * CLASSES_GUESSED * run.training.epochs
    return START_SECONDS + images / speed


def measured_speeds(out: Path) -> dict[tuple, float]:
    """Training images a second of the finished runs under a folder, by kind of run."""
    speeds: dict[tuple, float] = {}
    for path in out.glob("*/*/metrics.json"):
        try:
            run = json.loads((path.parent / "run.json").read_text())
            metrics = json.loads(path.read_text())
            images = metrics["train_images"] * run["training"]["epochs"]
            speeds[_kind(run)] = images / metrics["seconds"]
        except (OSError, ValueError, KeyError):
            continue  # not a run of ours: no estimate is worth an error
    return speeds


def listing(runs: Sequence[Run], out: Path, parallel: int) -> str:
    """Every resolved run, whether it is on disk, and the time the others will take.

    Args:
        runs: The runs.
        out: Where results are looked for.
        parallel: Runs at a time.
    """
    measured = measured_speeds(out)
    lines, left, hindrance = [], 0.0, None
    for run in runs:
        expected = seconds(run, measured)
        try:
            done = store.run_folder(run, out).exists()
        except UserError as error:  # data or weights are not here: nothing of it can be on disk
            done, hindrance = False, error
        left += 0 if done else expected
        settings = {**run.data.model_dump(), **run.model.model_dump(), **run.training.model_dump()}
        lines.append(
            f"row {run.row}  {run.variant}  repeat {run.repeat + 1}  "
            f"{'on disk' if done else progress.duration(expected)}  {json.dumps(settings)}"
        )
    total = progress.duration(left / parallel)
    lines.append(f"{len(runs)} runs, about {total} for those not on disk, {parallel} at a time")
    if hindrance:
        lines.append(f"they cannot run yet: {hindrance}")
    return "\n".join(lines)


def _kind(run: dict) -> tuple:
    return run["model"]["model"], run["backend"], run["data"]["image_size"]
