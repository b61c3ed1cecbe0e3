"""Where the time of a sweep goes: `python -m keras_cnn.bench.sweep NAME FOLDER` is one, anew."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_cnn import environment, files, timing
from keras_cnn.results import grid
from keras_cnn.results.grid import Column
from keras_cnn.timing import Seconds

RECIPE = "fewshot_convnext"
SHORT = {"shots": 5, "test_shots": 5, "epochs": 1}
SWEEPS: dict[str, dict[str, object]] = {
    "the main job at mini, one repeat": {"repeats": 1},
    "runs of an epoch on 50 images": {
        "rows": ["4"],
        "variant": "corrected",
        "repeats": 12,
        "overrides": SHORT,
    },
}
HOW = (
    "Seconds of the processor (of the clock in brackets) of each run, forked or started anew as in "
    "any sweep, from an empty cache. Overhead is `network` (building it and its first weights) and "
    "`rest` (the process's start, and what is in no other part)."
)
PARTS = ("data", "network", "features", "training", "evaluation", "saving", "rest")
OVERHEAD = ("network", "rest")


def measured() -> dict[str, dict]:
    """Makes each of `SWEEPS` in a process and a folder of its own.

    Returns:
        By name: `command`, seconds of each of its stages; `runs`, seconds by part of each;
        `second call`, seconds of the same again. Pairs are of the clock and of the processor.
    """
    found = {}
    for name in SWEEPS:
        with files.temporary_folder() as folder:
            variables = os.environ | {"KERAS_CNN_HOME": str(Path(folder, "home"))}
            command = [*environment.PYTHON, "-m", __name__, name, folder]
            done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def markdown(sweep: Mapping[str, object]) -> str:
    """A sweep's stages and its runs, as two tables.

    Args:
        sweep: One of those of `measured`.
    """
    command, runs = sweep["command"], sweep["runs"]
    stages = [(stage, *(f"{value:.2f}" for value in pair)) for stage, pair in command.items()]
    stages.append(("second call", *(f"{value:.2f}" for value in sweep["second call"])))
    tables = [(("stage", "clock", "processor"), stages)]
    overheads = [_sum(run, OVERHEAD) for run in runs.values()]
    rows = [
        (name, *(_cell(run[part]) for part in PARTS), _cell(overhead), _cell(_sum(run, PARTS)))
        for (name, run), overhead in zip(runs.items(), overheads, strict=True)
    ]
    every = [{part: run[part] for part in PARTS} for run in runs.values()]
    sums = [tuple(np.sum([run[part] for run in every], axis=0)) for part in PARTS]
    whole = [np.sum(overheads, axis=0), np.sum(sums, axis=0)]
    rows.append(("sum", *map(_cell, sums), *map(_cell, whole)))
    tables.append((("run", *PARTS, "overhead", "in all"), rows))
    text = [
        grid.markdown(list(map(Column, headings, zip(*lines, strict=True))))
        for headings, lines in tables
    ]
    for what, pairs in (("Overhead", overheads), ("In all", [_sum(run, PARTS) for run in every])):
        low, median, high = np.quantile([processor for _, processor in pairs], [0.25, 0.5, 0.75])
        text.append(
            f"{what} of a run, processor seconds: median {median:.2f}, quartiles {low:.2f} to "
            f"{high:.2f}, n = {len(pairs)}."
        )
    return "\n\n".join(text)


def _cell(pair: Sequence[float]) -> str:
    return f"{pair[1]:.2f} ({pair[0]:.2f})"


def _sum(run: Mapping[str, Sequence[float]], parts: Sequence[str]) -> tuple[float, ...]:
    return tuple(np.sum([run[part] for part in parts], axis=0))


def main(name: str, folder: str) -> None:
    """Makes a sweep from nothing to its table and pictures, and again; prints the figures."""
    from keras_cnn.runs import publish, study

    stages, runs, began = {}, {}, _now()

    def stage(what: str) -> None:
        nonlocal began
        stages[what], began = _now().minus(began), _now()

    def note(event: object) -> None:
        if event.kind == "spent":
            parts = {part: Seconds(*pair) for part, pair in event.record["spent"].items()}
            left = parts.pop("in all")
            for pair in parts.values():
                left = left.minus(pair)
            runs[event.job.folder.name] = dict.fromkeys(PARTS, Seconds()) | parts | {"rest": left}

    plan = study.plan(RECIPE, profile="mini", out=folder, **SWEEPS[name])
    work = study.prepare(plan)
    stage("start")
    made = study.execute(work, note)
    stage("runs")
    with timing.adding_up() as spent:
        publish.publish(made)
    stage("table")
    stages["pictures"] = spent["pictures"]
    stages["table"] = Seconds(*np.maximum(0, stages["table"].minus(spent["pictures"])))
    command = [*environment.PYTHON, *shlex.split(plan.command)[1:]]
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    again = _now().minus(began)
    print(json.dumps({"command": stages, "runs": runs, "second call": again}))


def _now() -> Seconds:
    """Of the processor, also in processes that this one started and saw end."""
    times = os.times()
    children = times.children_user + times.children_system
    return Seconds(time.perf_counter(), times.user + times.system + children)


if __name__ == "__main__":
    main(*sys.argv[1:])
