"""The one exception that stands for a user's mistake, and words that fit on a line."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable

# Control characters, what stands for bytes that are no text, ends of lines and of paragraphs.
UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
BIDIRECTIONAL = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


class UserError(Exception):
    """Input that cannot be used: one line that says what is wrong and what to do.

    The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, line: str) -> None:
        super().__init__(printable(line))


def printable(text: str) -> str:
    r"""Text on one line: what would end the line or steer a terminal is escaped.

    Names of files, folders and classes, and words of a user's files, go through this before they
    reach a terminal, a table or a report.

    Args:
        text: Any text.

    Returns:
        `a\nb` and `\x1b[31m` in place of a line's end and an escape sequence; letters of any
        script as they are.
    """
    return "".join(
        one.encode("unicode_escape").decode()
        if unicodedata.category(one) in UNPRINTABLE or one in BIDIRECTIONAL
        else one
        for one in text
    )


def shell_line(words: Iterable[str]) -> str:
    r"""A command line that a shell reads as these words, whatever bytes are in them.

    Args:
        words: A program and its arguments.

    Returns:
        `ls 'my folder' $'caf\xe9'`; what is not printable is quoted as bash, zsh and ksh read it.
    """
    return " ".join(shlex.quote(w) if printable(w) == w else _bytes_quoted(w) for w in words)


def _bytes_quoted(word: str) -> str:
    safe = range(ord(" "), ord("~") + 1)
    quoted = (
        chr(byte) if byte in safe and byte not in b"'\\" else f"\\x{byte:02x}"
        for byte in os.fsencode(word)
    )
    return f"$'{''.join(quoted)}'"


def system_words(error: OSError) -> str:
    """What the operating system says of a file, without the lines that HDF5 puts round it.

    Args:
        error: As raised; without a number its own text is taken.

    Returns:
        `"results/history.csv: No space left on device"`.
    """
    if error.errno is None:
        return printable(str(error))
    inside = re.search(r"filename = '(.*?)'", str(error))  # as HDF5 tells it
    name = error.filename or (inside and inside[1])
    return printable(f"{name}: {os.strerror(error.errno)}" if name else os.strerror(error.errno))


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
