"""What is held against every cluster alike: equal results, seconds a run, 1,000 runs foretold."""

from __future__ import annotations

import csv
import hashlib
import heapq
import io
import json
import platform
import re
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import h5py
import numpy as np

from keras_cnn import environment
from keras_cnn.runs.engine import Executor
from keras_cnn.runs.jobs import ENDS, Job

SETTINGS = {"data": "synthetic:60", "epochs": 2, "image_size": 16, "hidden_units": 4}
MEASURED = (  # by the clock, or of the machine
    *("seconds", "seconds_an_epoch", "images_a_second", "peak_memory_megabytes"),
    *("processor_use", "worker_seconds"),
)
ON_WORKERS = 64  # of the 1,000 runs foretold


def recipe(out: Path, on: str = "local", jobs: int = 2, repeats: int = 12) -> list[str]:
    """The command of a recipe of twice as many tiny runs as there are repeats."""
    given = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    flags = [f"--repeats={repeats}", f"--out={out}", f"--on={on}", f"--jobs={jobs}", "--threads=1"]
    words = [sys.executable, "-m", "keras_cnn", "recipe", "overfitting", "--profile=mini"]
    return [*words, *given, *flags]


def results(out: Path) -> set[Path]:
    """The folders of finished runs."""
    return {path for path in out.glob("*/[0-9a-z]*-*-*-*") if path.is_dir()}


def content(out: Path) -> dict[str, object]:
    """All that table and results hold, by run, but for what is measured by the clock."""
    found: dict[str, object] = {"table": _columns(next(out.glob("*/table.csv")).read_text())}
    for folder in results(out):
        metrics = json.loads((folder / "metrics.json").read_text())
        with np.load(folder / "predictions.npz") as arrays:
            predicted = {name: _hash(arrays[name]) for name in arrays.files}
        found[folder.name] = {
            "history": _columns((folder / "history.csv").read_text()),
            "metrics": {name: value for name, value in metrics.items() if name not in MEASURED},
            "confusion": (folder / "confusion.csv").read_text(),
            "predictions": predicted,
            "weights": _weights(folder / "model.keras"),
        }
    return found


def _columns(text: str) -> list[dict[str, str]]:
    """A table's rows without the columns of what is measured."""
    return [
        {name: cell for name, cell in row.items() if not name.startswith(MEASURED)}
        for row in csv.DictReader(io.StringIO(text))
    ]


def _weights(model: Path) -> dict[str, str]:
    found: dict[str, str] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = _hash(item[()])

    with zipfile.ZipFile(model) as parts:
        content = io.BytesIO(parts.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(note)
    return found


def _hash(array: np.ndarray) -> str:
    array = np.ascontiguousarray(array)
    return f"{array.dtype} {array.shape} {hashlib.sha256(array).hexdigest()}"


def leftovers(out: Path) -> list[str]:
    """Files of jobs, and what is half written."""
    hidden = [path for path in out.glob("*/.*") if path.name not in (".locks", ".figures.json")]
    return [path.name for path in hidden if not path.name.endswith(".lock")]


def equal(on: str, folder: Path, timed: Callable[[list[str]], float]) -> dict[str, object]:
    """The same runs by processes of this machine and on a cluster, one and two at a time.

    Args:
        on: The cluster, as for `--on`.
        folder: Takes the results.
        timed: Runs a command to its end: seconds.
    """
    seconds, contents, faults = {}, {}, []
    for where in ("local", on):
        for jobs in (1, 2):
            name = f"{where.partition(':')[0]}, {jobs} at a time"
            out = folder / name.replace(", ", "-").replace(" ", "-")
            seconds[name] = timed(recipe(out, where, jobs))
            contents[name] = content(out)
            faults += [f"left {left}: {name}" for left in leftovers(out)]
            print(f"equal: {name}: {seconds[name]:.1f} s", flush=True)
    first, *others = contents
    faults += [f"other bits: {name}" for name in others if contents[name] != contents[first]]
    return {"seconds": seconds, "runs": len(contents[first]) - 1, "faults": faults}


def seconds_each(executor: Executor, jobs: Sequence[Job]) -> list[tuple[float, float]]:
    """Of each job, made one after another: seconds until its end is known; of its process alone.

    The latter are from `worker.main` on, and hold the frameworks' imports where it is no fork.
    """
    found = []
    with executor:
        for job in jobs:
            began, own = time.monotonic(), 0.0
            executor.submit(job)
            while (event := executor.next_event()).kind not in ENDS:
                if event.kind == "spent":
                    own = event.record["spent"]["in all"][0]
            if event.kind != "done":
                raise RuntimeError(f"{job}: {event.error}\n{event.log}")
            found.append((time.monotonic() - began, own))
    return found


def makespan(runs: Sequence[float], workers: int, to_send: float, beside: float) -> float:
    """Seconds until runs have ended that are taken in this order, each by the next worker free.

    Args:
        runs: Seconds of each.
        workers: How many there are.
        to_send: Seconds to hand a run over, one run after another.
        beside: Seconds that a worker needs for a run besides the run itself.
    """
    free, sent = [0.0] * workers, 0.0
    for seconds in runs:
        sent += to_send
        heapq.heappush(free, max(heapq.heappop(free), sent) + beside + seconds)
    return max(free)


def foretold(to_send: float, beside: float) -> list[str]:
    """A table of how well 1,000 runs would keep many workers busy, by the length of a run."""
    rng = np.random.default_rng(0)
    lines = ["| a run takes | in all | of the ideal | of the same runs with nothing beside |"]
    lines += ["|---|---|---|---|"]
    for seconds in (10, 60, 600):
        runs = np.maximum(0.1, seconds * rng.normal(1, 0.1, 1000))
        took = makespan(runs, ON_WORKERS, to_send, beside)
        alone = makespan(runs, ON_WORKERS, 0, 0)
        shares = runs.sum() / ON_WORKERS / took, alone / took
        lines.append(f"| {seconds} s ± 10 % | {took:,.0f} s | {shares[0]:.1%} | {shares[1]:.1%} |")
    return lines


def machine(*packages: str) -> str:
    """Processor and versions, in a line."""
    described = environment.machine()
    versions = [f"{name} {metadata.version(name)}" for name in ("keras", "torch", *packages)]
    return (
        f"{described['processor']}, {described['cores']} cores, {platform.system()}; Python "
        f"{described['python']}, {', '.join(versions)}"
    )


def write_section(page: Path, title: str, lines: Sequence[str]) -> None:
    """Puts a section of a page in the place of the one of this title, or after all others."""
    text = page.read_text(encoding="utf-8") if page.exists() else "# Runs on clusters\n"
    section = "\n".join([f"## {title}", "", *lines]).rstrip() + "\n"
    old = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
    if old.search(text):
        text = old.sub(lambda _: section + "\n", text)
    else:
        text = f"{text.rstrip()}\n\n{section}"
    page.write_text(text.rstrip() + "\n", encoding="utf-8")
