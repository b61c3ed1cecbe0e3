"""What commands say to a terminal, and how they take its words."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from keras_cnn import environment
from keras_cnn.errors import UserError, printable


def tell(line: str) -> None:
    """Prints a line that names files, whatever these are called."""
    print(printable(line))


def say(text: str) -> None:
    """Prints lines, unless there are none, to standard error."""
    if text:
        print("\n".join(map(printable, text.split("\n"))), file=sys.stderr, flush=True)


def chosen_backend(name: str | None = None) -> str:
    """The backend that was asked for, by flag or variable, and is installed."""
    name = name or os.environ.get("KERAS_BACKEND") or "torch"
    environment.require(name)
    return name


def picture_path(path: Path) -> Path:
    """A path a picture can be drawn to, found out before the work."""
    endings = (".png", ".jpg", ".pdf", ".svg")
    if path.suffix.lower() not in endings:
        raise UserError(f"--out is {str(path)!r}: a name that ends in {', '.join(endings)}")
    if not path.parent.is_dir():
        raise UserError(f"--out is {str(path)!r}: there is no folder {path.parent}")
    return path
