"""How fast it is, each thing against its peer in the same call. Imports no framework."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from keras_cnn import environment, store
from keras_cnn.bench import goals, interleave
from keras_cnn.errors import UserError, nearest


def bench(names: Sequence[str], rounds: int, threads: int, out: Path | None = None) -> None:
    """Measures, prints a table for each bench and, if asked, writes the figures as JSON.

    Args:
        names: Of `goals.BENCHES`; none takes all.
        rounds: How often each contender takes its turn, after one that does not count.
        threads: Of each contender's process.
        out: A JSON file.

    Raises:
        UserError: There is no such bench.
    """
    for name in names:
        if name not in goals.BENCHES:
            raise UserError(f"no bench {name!r}: {nearest(name, goals.BENCHES)}")
    machine = environment.machine()
    where = f"{machine['processor']}, {machine['cores']} cores, {threads} threads a process"
    figures = {}
    for name in names or goals.BENCHES:
        rates = interleave.rates(goals.contenders(name), rounds, threads)
        figures[name] = rates
        print(f"## {name}\n\n{goals.markdown(name, rates)}\n\n{rounds} rounds; {where}.\n")
    if out is not None:
        content = {"machine": machine, "threads": threads, "images_a_second": figures}
        store.write_text(out, json.dumps(content, indent=2) + "\n")
