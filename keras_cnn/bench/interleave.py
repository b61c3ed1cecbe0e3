"""Contenders in processes of their own that take turns, so that noise weighs on all alike."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence

from keras_cnn import environment

CHILD = (*environment.PYTHON, "-m", "keras_cnn.bench.contenders")
SECONDS_TO_END = 30


Turn = Callable[[str], dict[str, float]]  # a contender's next: `images` and `seconds`


def rates(
    contenders: Sequence[str], rounds: int, threads: int, backend: str = "torch"
) -> dict[str, list[float]]:
    """Images a second of each contender in each round.

    Args:
        contenders: Names in `contenders.CONTENDERS`.
        rounds: Rounds that count; one more comes first.
        threads: Threads of each process.
        backend: What they run on.

    Raises:
        RuntimeError: A contender's process ended; its error stands above.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    with started(contenders, threads, backend) as take_turn:
        for number in range(rounds + 1):
            for name, values in found.items():
                turn = take_turn(name)
                if number:
                    values.append(turn["images"] / turn["seconds"])
    return found


@contextlib.contextmanager
def started(contenders: Sequence[str], threads: int, backend: str = "torch") -> Iterator[Turn]:
    """Contenders in processes of their own, while it lasts.

    Args:
        contenders: Names in `contenders.CONTENDERS`.
        threads: Threads of each process.
        backend: What they run on.

    Yields:
        Has one of them take its next turn; raises RuntimeError where its process ended.
    """
    variables = environment.of_child(backend, threads)
    workers = {
        name: subprocess.Popen(
            [*CHILD, name, str(threads)],
            env=variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in contenders
    }
    try:
        yield lambda name: _turn(name, workers[name])
    finally:
        for worker in workers.values():
            _end(worker)


def _turn(name: str, worker: subprocess.Popen) -> dict[str, float]:
    try:
        print("go", file=worker.stdin, flush=True)
        line = worker.stdout.readline()
    except BrokenPipeError:  # it ended before its turn
        line = ""
    if not line:
        raise RuntimeError(f"the contender {name} ended")
    return json.loads(line)


def _end(worker: subprocess.Popen) -> None:
    """Lets a contender end by itself, so that it ends its own processes and removes its files."""
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.close()
    try:
        worker.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
    worker.stdout.close()
