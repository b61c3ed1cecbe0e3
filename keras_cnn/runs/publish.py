"""A study's table and pictures, written to its folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from keras_cnn import files
from keras_cnn.results import claims, layout, stamps, table
from keras_cnn.results.table import Table
from keras_cnn.runs.jobs import Event
from keras_cnn.runs.study import Study
from keras_cnn.timing import timed

TABLE_FORMS = {"md": layout.markdown, "csv": layout.comma_separated, "json": table.as_json}


def publish(study: Study) -> Path | None:
    """Writes the table in its forms and draws what changed; one command at a time.

    Args:
        study: With at least one result.

    Returns:
        Where the table of other runs is now that stood there; None where none did.
    """
    made, folder = study.table, study.plan.folder
    with claims.held(folder / "table", wait=True):
        kept = _keep_former(made, folder, stamps.paths(folder))
        for ending, render in TABLE_FORMS.items():
            files.write_text(folder / f"table.{ending}", render(made))
        if not stamps.are_current(study.plan.recipe, study.results, folder):
            with timed("pictures"):
                from keras_cnn.plots import draw  # and with it matplotlib

                draw.recipe_plots(study.plan.recipe, study.results, folder)
    return kept


def keep_logs(study: Study) -> list[tuple[Event, str]]:
    """Keeps what the processes of failed runs wrote, and drops the logs of runs that are done.

    Returns:
        What happened, and where its log is, or why it could not be kept.
    """
    failed = {event.job.folder for event in study.failed}
    for result in study.results:
        if result.folder not in failed:
            with contextlib.suppress(OSError):
                log_of(result.folder).unlink()  # of an earlier attempt
    with contextlib.suppress(OSError):  # there is none, or others are in it
        (study.plan.folder / "failed").rmdir()
    kept = []
    for event in study.failed:
        log = log_of(event.job.folder)
        try:
            files.write_text(log, event.log or f"{event.error}\n")
            kept.append((event, str(log)))
        except OSError as error:
            kept.append((event, f"not kept: {error}"))
    return kept


def log_of(folder: Path) -> Path:
    """Where the output of a run that failed is kept."""
    return folder.parent / "failed" / f"{folder.name}.txt"


def _keep_former(made: Table, folder: Path, pictures: Sequence[Path]) -> Path | None:
    """Moves the table on disk away where it shows runs that the new one lacks.

    Other data, weights or settings are other runs; more repeats of the same are not.

    Args:
        made: The new table.
        folder: Where it goes.
        pictures: Drawn with the one on disk.

    Returns:
        Where that one is now; None when it may be replaced, or there is none.
    """
    path = folder / "table.json"
    try:
        former = table.read(path)
        runs, source = sorted(former.runs), re.sub(r"[^\w.-]+", "_", former.data)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # not written by this package
        runs, source = [str(path.lstat().st_mtime_ns)], "unknown"
    if {*runs} <= {run for line in made.lines for run in line.runs}:
        return None
    name = f"{source}-{hashlib.sha256(' '.join(runs).encode()).hexdigest()[:8]}"
    kept = folder / "earlier" / name
    kept.mkdir(parents=True, exist_ok=True)
    for path in (*(folder / f"table.{ending}" for ending in TABLE_FORMS), *pictures):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, kept / path.name)
    return kept
