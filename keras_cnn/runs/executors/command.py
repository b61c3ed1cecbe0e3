"""A whole command on another machine, as one job: what it prints comes back as it comes."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from keras_cnn import files
from keras_cnn.errors import UserError
from keras_cnn.runs.engine import TRIES
from keras_cnn.runs.executors import cluster as spool
from keras_cnn.runs.executors.cluster import Cluster, Gone


def run(cluster: Cluster, words: Sequence[str], out: Path) -> int:
    """Runs `python -m keras_cnn WORDS` in the current folder, on a machine of the cluster.

    It has to go on where it was when it is started again: a job that is lost is sent again, twice.
    An interrupt from the keyboard cancels it.

    Args:
        cluster: Where.
        words: The command and its arguments.
        out: Where its results go; the job's files lie in `out/.jobs/`.

    Returns:
        Its exit code.

    Raises:
        UserError: It was cancelled, or lost too often.
    """
    folder = out.absolute() / spool.FOLDER / words[0]
    cluster.open()
    try:
        for _ in range(TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            task = {"command": [*words], "folder": os.getcwd(), "variables": spool.own_variables()}
            files.write_text(folder / "task.json", json.dumps(task))
            (ticket,) = cluster.send([folder])
            try:
                ended = _follow(cluster, ticket, folder)
            except KeyboardInterrupt:
                cluster.cancel([ticket])
                raise
            if isinstance(ended, int):
                return ended
            if not ended.again:
                break
        raise UserError(f"{words[0]}: {ended.why}")
    finally:
        cluster.close()
        shutil.rmtree(folder.parent, ignore_errors=True)


def _follow(cluster: Cluster, ticket: str, folder: Path) -> int | Gone:
    """Prints what a job prints until it ends: its exit code, or why it will not end by itself."""
    position, gone, asked, since = 0, None, 0.0, 0.0
    while True:
        end = spool.read_end(folder)
        position += _print_from(folder / "output", position)
        if end:
            return int(end[1] or 0)
        now = time.monotonic()
        if gone and now - since > spool.SECONDS_TO_APPEAR:
            return gone
        if not gone and now - asked > spool.SECONDS_BETWEEN_QUESTIONS:
            gone, asked, since = cluster.gone([ticket]).get(ticket), now, now
        time.sleep(spool.SECONDS_BETWEEN_LOOKS)


def _print_from(path: Path, position: int) -> int:
    """Prints a file's bytes from a position on; gives how many they were."""
    if not files.is_there(path):
        return 0
    with path.open("rb") as file:
        file.seek(position)
        new = file.read()
    sys.stderr.write(new.decode(errors="replace"))
    sys.stderr.flush()
    return len(new)
