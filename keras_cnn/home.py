"""Where results go, and where fetched files and decoded data are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path

DEFAULT_OUT = Path("artifacts")


def home() -> Path:
    """The folder for downloads, fetched weights and decoded data.

    Returns:
        `$KERAS_CNN_HOME` where it is set, else `~/.cache/keras_cnn`. It may not exist yet.
    """
    return Path(os.environ.get("KERAS_CNN_HOME") or "~/.cache/keras_cnn").expanduser()
