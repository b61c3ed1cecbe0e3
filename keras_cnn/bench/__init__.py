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
INTERVALS, SWEEP = "intervals", "sweep"  # which have no peers
DESCRIBE = "import json; from keras_cnn import environment as e; print(json.dumps(e.describe()))"


def bench(names: Sequence[str], rounds: int, threads: int, out: Path | None = None) -> None:
    """Measures, prints tables for each bench and, if asked, writes the figures as JSON.

    Args:
        names: Some of `goals.BENCHES`; `all`, or none, takes all. `sweep` tells where the time of a
            sweep goes, and `intervals` simulates how often the tables' intervals hold the truth:
            they are no part of all.
        rounds: How often each contender takes its turn, after one that does not count.
        threads: Threads of each contender's process.
        out: A JSON file.

    Raises:
        UserError: There is no such bench, too few rounds, or the file cannot be written.
    """
    for name in names:
        if name not in (known := (*goals.BENCHES, INTERVALS, SWEEP, "all")):
            raise UserError(f"no bench {name!r}: {nearest(name, known)}")
    if INTERVALS in names:
        if out is not None:
            raise UserError("bench intervals prints its tables, and has no figures for --out")
        for part in coverage.report():
            print(part, end="\n\n", flush=True)
        names = [name for name in names if name != INTERVALS]
        if not names:
            return
    if rounds < FEWEST_ROUNDS:
        raise UserError(f"--rounds is {rounds}: quartiles need at least {FEWEST_ROUNDS}")
    if out is not None:
        files.check_writable(out.parent)
    with_peers = goals.BENCHES if not names or "all" in names else ()
    machine = _machine(threads)
    figures = {}
    for name in dict.fromkeys([*with_peers, *(name for name in names if name != "all")]):
        load = _load_average()
        found, text, turns = _sweeps() if name == SWEEP else _against_peers(name, rounds, threads)
        figures[name] = {"load_average_before": load, **found}
        place = _place(machine, name, threads)
        print(f"## {name}\n\n{text}\n\n{turns}; {place}; load before: {load}.\n", flush=True)
        if out is not None:  # after each: an interrupted call leaves what it has
            content = {"machine": machine, "rounds": rounds, "benches": figures}
            files.write_text(out, files.json_text(content) + "\n")


def _against_peers(name: str, rounds: int, threads: int) -> tuple[dict, str, str]:
    """A bench's figures, its tables, and how often it was measured."""
    rates = interleave.rates(goals.contenders(name), rounds, threads)
    found = {"images_a_second": rates, "goals": goals.verdicts(name, rates)}
    return found, f"{goals.HOW[name]}\n\n{goals.markdown(name, rates)}", f"{rounds} rounds"


def _sweeps() -> tuple[dict, str, str]:
    from keras_cnn.bench import sweep  # it runs as a process of its own, too

    found = sweep.measured()
    tables = [f"### {title}\n\n{sweep.markdown(one)}" for title, one in found.items()]
    return {"sweeps": found}, "\n\n".join([sweep.HOW, *tables]), "once"


def _machine(threads: int) -> dict:
    """What contenders run on, as one of their processes sees it."""
    environ = environment.of_child("torch", threads)
    command = [*environment.PYTHON, "-c", DESCRIBE]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _place(machine: dict, name: str, threads: int) -> str:
    versions = ", ".join(f"{key} {value}" for key, value in machine["versions"].items())
    used = "" if name in ("repeats", SWEEP) else f", {threads} thread(s) a process"
    return (
        f"{machine['processor']}, {machine['cores']} cores{used}; {machine['device']}; {versions}"
    )


def _load_average() -> float | None:
    """Processes that ran or waited over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
