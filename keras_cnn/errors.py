"""The one exception that stands for a user's mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Input that cannot be used: one line that says what is wrong and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, choices: Iterable[str]) -> str:
    """Words that end an error line: the nearest right name, then all of them.

    Args:
        name: What was given.
        choices: The names that would have been right.

    Returns:
        `"did you mean 'adam'? (adam, sgd)"`, or only the list when nothing is near.
    """
    choices = sorted(choices)
    listed = f"({', '.join(choices)})"
    close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}? {listed}" if close else f"there is {listed}"
