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
INTERVALS, SWEEP, GROWTH, NEIGHBOURS = "intervals", "sweep", "growth", "neighbours"
ALONE = (SWEEP, GROWTH, NEIGHBOURS)  # which have no peers, and threads of their own
ALL_PEERS = "peers"  # stands for all of `goals.PEERS`
DESCRIBE = "import json; from keras_cnn import environment as e; print(json.dumps(e.describe()))"


def bench(
    names: Sequence[str],
    rounds: int,
    threads: int,
    out: Path | None = None,
    only: Sequence[str] = (),
    most: int | None = None,
) -> None:
    """Measures, prints tables for each bench and, if asked, writes the figures as JSON.

    Args:
        names: Some of `goals.BENCHES`; `all`, or none, takes all. No part of all are `peers`, all
            of `goals.PEERS`; `sweep`, which tells where the time of a sweep goes; `growth`, what
            more images, runs and classes cost; `neighbours`, what a run loses to busy processes
            beside it; and `intervals`, which simulates how often the tables' intervals hold the
            truth.
        rounds: How often each contender takes its turn, after one that does not count.
        threads: Threads of each contender's process.
        out: A JSON file; `growth` puts a picture and a CSV of each part beside it.
        only: Some of `goals.PEERS`, or of `growth.SIZES`, in place of all of them.
        most: Leaves larger sizes of `growth` out.

    Raises:
        UserError: There is no such bench, too few rounds, or the file cannot be written.
    """
    for name in names:
        if name not in (known := (*goals.BENCHES, ALL_PEERS, *ALONE, INTERVALS, "all")):
            raise UserError(f"no bench {name!r}: {nearest(name, known)}")
    _check_parts(names, only, most)
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
    stand_for = {"all": goals.BENCHES, ALL_PEERS: only or goals.PEERS}
    of_their_own = {
        SWEEP: _sweeps,
        GROWTH: lambda: _growth(only, most, out),
        NEIGHBOURS: lambda: _beside_neighbours(rounds),
    }
    machine = _machine(threads)
    figures = {}
    wanted = [each for name in names or ["all"] for each in stand_for.get(name, [name])]
    for name in dict.fromkeys(wanted):
        environment.require(goals.backend(name))
        load = _load_average()
        own = of_their_own.get(name)
        found, text, turns = own() if own else _against_peers(name, rounds, threads)
        figures[name] = {"load_average_before": load, **found}
        here = machine if goals.backend(name) == "torch" else _machine(threads, goals.backend(name))
        place = _place(here, name, threads)
        print(f"## {name}\n\n{text}\n\n{turns}; {place}; load before: {load}.\n", flush=True)
        if out is not None:  # after each: an interrupted call leaves what it has
            content = {"machine": machine, "rounds": rounds, "benches": figures}
            files.write_text(out, files.json_text(content) + "\n")


def _against_peers(name: str, rounds: int, threads: int) -> tuple[dict, str, str]:
    """A bench's figures, its tables, and how often it was measured."""
    backend = goals.backend(name)
    rates = interleave.rates(goals.contenders(name), rounds, threads, backend)
    found = {"images_a_second": rates, "goals": goals.verdicts(name, rates)}
    parts = [goals.HOW[name], goals.markdown(name, rates)]
    if missing := goals.left_out(name):
        parts.append(f"Left out, as not installed: {', '.join(missing)}.")
    return found, "\n\n".join(parts), f"{rounds} rounds"


def _sweeps() -> tuple[dict, str, str]:
    from keras_cnn.bench import sweep  # it runs as a process of its own, too

    found = sweep.measured()
    tables = [f"### {title}\n\n{sweep.markdown(one)}" for title, one in found.items()]
    return {"sweeps": found}, "\n\n".join([sweep.HOW, *tables]), "once"


def _growth(parts: Sequence[str], most: int | None, out: Path | None) -> tuple[dict, str, str]:
    from keras_cnn.bench import growth  # it runs as a process of its own, too
    from keras_cnn.results import store

    found, texts = {}, []
    for part in parts or growth.SIZES:
        found[part] = growth.measured(part, most)
        texts.append(f"### {part}\n\n{growth.HOW[part]}\n\n{growth.markdown(found[part])}")
        if out is not None:
            headings, *lines = growth.rows(found[part])
            store.write_csv(out.parent / f"{GROWTH}-{part}.csv", headings, lines)
            growth.draw(part, found[part], out.parent / f"{GROWTH}-{part}.png")
    return {"sizes": found}, "\n\n".join(texts), "each size once"


def _beside_neighbours(rounds: int) -> tuple[dict, str, str]:
    from keras_cnn.bench import neighbours

    found = neighbours.measured(rounds)
    figures = {"seconds": found, "verdicts": neighbours.verdicts(found)}
    return figures, f"{neighbours.HOW}\n\n{neighbours.markdown(found)}", f"{rounds} rounds"


def _check_parts(names: Sequence[str], only: Sequence[str], most: int | None) -> None:
    """Refuses parts of a bench that has not got them.

    Raises:
        UserError: It has not, or none has been named that has parts.
    """
    from keras_cnn.bench import growth

    parts = {ALL_PEERS: goals.PEERS, GROWTH: growth.SIZES}
    asked = [name for name in names if name in parts]
    if only and len(asked) != 1:
        raise UserError("--only chooses parts of bench peers, or of bench growth: name one of them")
    for part in only:
        if part not in parts[asked[0]]:
            raise UserError(f"bench {asked[0]} has no {part!r}: {nearest(part, parts[asked[0]])}")
    if most is not None:
        if GROWTH not in names:
            raise UserError("--most is for bench growth: the largest size to measure")
        for part in only or growth.SIZES:
            if most < (least := growth.SIZES[part][0]):
                raise UserError(f"--most is {most}: the least number of {part} is {least:,}")


def _machine(threads: int, backend: str = "torch") -> dict:
    """What contenders run on, as one of their processes sees it."""
    environ = environment.of_child(backend, threads)
    command = [*environment.PYTHON, "-c", DESCRIBE]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _place(machine: dict, name: str, threads: int) -> str:
    versions = ", ".join(f"{key} {value}" for key, value in machine["versions"].items())
    used = "" if name in ("repeats", *ALONE) else f", {threads} thread(s) a process"
    return (
        f"{machine['processor']}, {machine['cores']} cores{used}; {machine['device']}; {versions}"
    )


def _load_average() -> float | None:
    """Processes that ran or waited over the last minute; None where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
