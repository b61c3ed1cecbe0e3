"""What a recipe's pictures on disk show: found out without matplotlib, which takes 0.3 s."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_cnn import files
from keras_cnn.recipe.schema import Recipe
from keras_cnn.results.store import Result

STAMPS = ".figures.json"
PICTURE = re.compile(r"[A-Za-z0-9_.-]+\.png")  # a name without a folder
ALL = "all"  # the stamp of the runs of all pictures; no picture's name


def shown(recipe: Recipe, runs: Sequence[Result]) -> list:
    """What decides how pictures of runs look; as JSON gives it back."""
    content = recipe.model_dump_json(exclude={"document", "slurm"})
    version = hashlib.sha256(content.encode()).hexdigest()
    return [version, *([run.folder.name, run.folder.stat().st_mtime_ns] for run in runs)]


def are_current(recipe: Recipe, results: Sequence[Result], folder: Path) -> bool:
    """Whether all pictures of a recipe's results are in a folder, as they were drawn."""
    stamps = read(folder)
    of_all = stamps.pop(ALL, None)
    return of_all == shown(recipe, results) and all(
        stamp[:1] == [content_hash(folder / name)] for name, stamp in stamps.items()
    )


def read(folder: Path) -> dict[str, list]:
    """By the names of pictures of ours, what they show; a name that leads elsewhere is none."""
    try:
        stamps = files.read_json(folder / STAMPS)
    except (OSError, ValueError):
        return {}  # then everything is drawn
    named = stamps.items() if isinstance(stamps, dict) else ()
    return {
        name: stamp
        for name, stamp in named
        if (name == ALL or PICTURE.fullmatch(name)) and isinstance(stamp, list)
    }


def write(folder: Path, stamps: Mapping[str, list]) -> None:
    """Keeps what pictures show, for `read`."""
    files.write_text(folder / STAMPS, json.dumps(stamps))


def paths(folder: Path) -> list[Path]:
    """The pictures in a folder, and the file that says of which runs they are."""
    return [*(folder / name for name in read(folder) if name != ALL), folder / STAMPS]


def content_hash(path: Path) -> str | None:
    """Of a picture as it was drawn; None where there is no file."""
    try:
        return hashlib.sha256(files.content(path)).hexdigest()
    except OSError:
        return None
