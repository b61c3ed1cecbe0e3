"""How fast it is, each thing against its peer in the same call, and what intervals cover.

Imports no framework.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from keras_cnn import environment, files
from keras_cnn.bench import coverage, goals, interleave
from keras_cnn.errors import UserError, nearest

FEWEST_ROUNDS = 5
INTERVALS = "intervals"
DESCRIBE = "import json; from keras_cnn import environment as e; print(json.dumps(e.describe()))"


def bench(names: Sequence[str], rounds: int, threads: int, out: Path | None = None) -> None:
    """Measures, prints tables for each bench and, if asked, writes the figures as JSON.

    Args:
        names: Some of `goals.BENCHES`; `all`, or none, takes all. `intervals` simulates how often
            the tables' intervals hold the truth instead, which is part of no other.
        rounds: How often each contender takes its turn, after one that does not count.
        threads: Threads of each contender's process.
        out: A JSON file.

    Raises:
        UserError: There is no such bench, too few rounds, or the file cannot be written.
    """
    for name in names:
        if name not in (known := (*goals.BENCHES, INTERVALS, "all")):
            raise UserError(f"no bench {name!r}: {nearest(name, known)}")
    if INTERVALS in names:
        for part in coverage.report():
            print(part, end="\n\n", flush=True)
        names = [name for name in names if name != INTERVALS]
        if not names:
            return
    if rounds < FEWEST_ROUNDS:
        raise UserError(f"--rounds is {rounds}: quartiles need at least {FEWEST_ROUNDS}")
    if out is not None:
        files.check_writable(out.parent)
    everything = not names or "all" in names
    machine = _machine(threads)
    figures = {}
    for name in goals.BENCHES if everything else dict.fromkeys(names):
        load = _load_average()
        rates = interleave.rates(goals.contenders(name), rounds, threads)
        figures[name] = {
            "load_average_before": load,
            "images_a_second": rates,
            "goals": goals.verdicts(name, rates),
        }
        print(f"## {name}\n\n{goals.HOW[name]}\n\n{goals.markdown(name, rates)}\n")
        place = _place(machine, name, threads)
        print(f"{rounds} rounds; {place}; load before: {load}.\n", flush=True)
        if out is not None:  # after each: an interrupted call leaves what it has
            content = {"machine": machine, "rounds": rounds, "benches": figures}
            files.write_text(out, files.json_text(content) + "\n")


def _machine(threads: int) -> dict:
    """What contenders run on, as one of their processes sees it."""
    environ = environment.of_child("torch", threads)
    command = [*environment.PYTHON, "-c", DESCRIBE]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _place(machine: dict, name: str, threads: int) -> str:
    versions = ", ".join(f"{key} {value}" for key, value in machine["versions"].items())
    used = "" if name == "repeats" else f", {threads} thread(s) a process"
    return (
        f"{machine['processor']}, {machine['cores']} cores{used}; {machine['device']}; {versions}"
    )


def _load_average() -> float | None:
    """Processes that ran or waited over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
