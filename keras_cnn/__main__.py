"""The command line: `python -m keras_cnn COMMAND …`.

Fire turns arguments into what a command's signature says and calls it. It complains about unknown
flags only after that, so arguments are held against the signature here, before.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the current folder, where a file may be called as a library is

import inspect
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from keras_cnn import __version__, commands
from keras_cnn.errors import UserError, nearest, system_words
from keras_cnn.torch_fast import memory

COMMANDS: dict[str, Callable[..., None]] = {
    name: getattr(commands, name)
    for name in (
        *("teach", "predict", "evaluate", "similar", "embed", "export", "data"),
        *("recipes", "recipe", "settings", "fetch", "summary", "backbone", "report"),
        *("cache", "bench"),
    )
}
# Whole numbers that are no mistake of the user's; beyond them memory or time have no end.
MOST = 999_999_999
MOST_OF = {
    "--image-size": 1024,
    "--hidden-units": 2048,
    "--classes": 100_000,
    "--batch-size": 100_000,
    "--threads": 1024,
    "--rounds": 1000,
    "--minutes": 100_000,
    "--error-percent": 99,
    "--sets": 99,
}
BETWEEN_SETTINGS = "\0"  # which is in no argument


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The command line's; None takes the process's.

    Returns:
        The exit code: 0, 1 (something failed), 2 (the user's input), 130 (interrupted), 143
        (terminated).
    """
    if arguments is None:
        _open_standard_streams()
        memory.keep_freed_memory()
        for name in ("SIGTERM", "SIGHUP"):  # the second when the terminal is closed; not nohup's
            number = getattr(signal, name, None)
            if number and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end)
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a path may be no text
    try:
        _run(*(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()  # here, where an error still has a handler
        return 0
    except UserError as error:
        print(f"keras_cnn: {error}", file=sys.stderr)
        return 2
    except Terminated:
        print("keras_cnn: terminated; finished runs are kept", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("keras_cnn: interrupted; finished runs are kept", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("keras_cnn", ""):
            raise
        print(
            f"keras_cnn: {error.name} is not installed: `pip install -e .` in the folder of the "
            "project brings all that is needed",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written
        print(f"keras_cnn: {system_words(error)}", file=sys.stderr)
        return 1


class Terminated(KeyboardInterrupt):
    """Another process asked this one to end."""


def _end(*_: object) -> None:
    raise Terminated


def _open_standard_streams() -> None:
    """Gives closed ones an end, or the next file opened would be taken for one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 (for good)


def _run(name: str = "--help", *arguments: str) -> None:
    if name in ("--help", "-h", "help"):
        print(_overview())
    elif name == "--version":
        print(__version__)
    elif name not in COMMANDS:
        raise UserError(f"no command {name!r}: {nearest(name, COMMANDS)}")
    elif {"--help", "-h"} & {*arguments}:
        print(_help(name))
    else:
        import fire

        function = COMMANDS[name]
        parameters = inspect.signature(function).parameters
        parsers = {
            key: partial(PARSERS[one.annotation.removesuffix(" | None")], _flag(key))
            for key, one in parameters.items()
        }
        # Left to itself, Fire would read 1,4 as a tuple and a folder named 5000 as a number.
        typed = fire.decorators.SetParseFn(str)(function)
        typed = fire.decorators.SetParseFns(**parsers)(typed)
        fire.Fire(typed, command=_checked(name, parameters, arguments), name=f"keras_cnn {name}")


def _checked(
    name: str, parameters: Mapping[str, inspect.Parameter], arguments: Sequence[str]
) -> list[str]:
    """The arguments as Fire takes them, `--flag=value`, after all of them were found right.

    `--set field value`, `--set field=value` and several `--set` become one flag. What follows `--`
    is no flag: Fire gets it as a path, `./-x.png`.
    """
    defaults = {key: one.default for key, one in parameters.items() if one.default is not one.empty}
    positional: list[str] = []
    values: dict[str, str] = {}
    waiting = deque(arguments)

    def next_value(otherwise: str) -> str:
        if not waiting or waiting[0].startswith("--"):
            raise UserError(otherwise)
        return waiting.popleft()

    while waiting:
        argument = waiting.popleft()
        if argument == "--":
            positional += [f"./{one}" if one.startswith("-") else one for one in waiting]
            break
        if not argument.startswith("-") or argument == "-":
            positional.append(argument)
            continue
        flag, equals, value = argument.partition("=")
        key = flag.lstrip("-").replace("-", "_")
        if key not in defaults:
            right = nearest(flag, map(_flag, defaults)) if defaults else "it takes no flags"
            raise UserError(f"{name} has no {flag}: {right}")
        if not equals:
            is_switch = defaults[key] is False
            value = "true" if is_switch else next_value(f"{flag} needs a value: {flag}=…")
        if key == "set" and "=" not in value:
            value += f"={next_value(f'--set needs a setting and a value: --set {value} VALUE')}"
        if not (value.partition("=")[2] if key == "set" else value):
            raise UserError(f"{flag}{value and f' {value}'} needs a value: {flag}=…")
        if key in values and key != "set":
            raise UserError(f"{flag} is given twice")
        values[key] = f"{values[key]}{BETWEEN_SETTINGS}{value}" if key in values else value
    _check_positional(name, parameters, positional)
    return [*positional, *(f"--{key}={value}" for key, value in values.items())]


def _check_positional(
    name: str, parameters: Mapping[str, inspect.Parameter], positional: Sequence[str]
) -> None:
    takes_many = any(one.kind is one.VAR_POSITIONAL for one in parameters.values())
    required = [
        key.upper()
        for key, one in parameters.items()
        if one.default is one.empty and one.kind is not one.VAR_POSITIONAL
    ]
    if len(positional) < len(required):
        wanted = " ".join(required)
        raise UserError(f"{name} needs {wanted}; see: python -m keras_cnn {name} --help")
    if len(positional) > len(required) and not takes_many:
        wanted, extra = " ".join(required) or "no names", positional[len(required)]
        raise UserError(f"{name} takes {wanted}, {extra!r} is too much")
    if "-" in positional:  # which Fire would take for itself
        raise UserError(f"{name} takes no '-': nothing is read from standard input")
    if "" in positional:
        raise UserError(f"{name} is given an empty name: is a variable of the shell not set?")


def _whole_number(flag: str, text: str) -> int:
    most = MOST_OF.get(flag, MOST)
    if not text.isdecimal() or len(text) > len(str(most)) or not 1 <= int(text) <= most:
        raise UserError(f"{flag} is {text[:40]!r}: a whole number from 1 to {most} is needed")
    return int(text)


def _switch(flag: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UserError(f"{flag} is a switch: {flag}, or {flag}=false, not {text!r}")
    return text.lower() == "true"


def _path(flag: str, text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~somebody who is not here
        raise UserError(f"{flag} is {text!r}: no such user; ./{text} is a path") from None


def _settings(flag: str, text: str) -> dict[str, object]:
    """Texts `field=value`, with values as the recipe files have them."""
    from keras_cnn.recipe import strict_yaml

    settings: dict[str, object] = {}
    for one in text.split(BETWEEN_SETTINGS):
        key, _, value = one.partition("=")
        key = key.strip().replace("-", "_")
        if key in settings:
            raise UserError(f"{flag} {key} is given twice")
        settings[key] = strict_yaml.scalar(value)
    return settings


# By the annotation of a command's parameter: its flag and a text to a value.
PARSERS: dict[str, Callable[[str, str], object]] = {
    "str": lambda flag, text: text,
    "int": _whole_number,
    "bool": _switch,
    "Path": _path,
    "list[str]": lambda flag, text: [name.strip() for name in text.split(",")],
    "dict[str, object]": _settings,
}


def _overview() -> str:
    lines = ["usage: python -m keras_cnn COMMAND …", ""]
    for name, function in COMMANDS.items():
        lines.append(f"  {name:<9} {inspect.getdoc(function).splitlines()[0]}")
    return "\n".join([*lines, "", "python -m keras_cnn COMMAND --help tells more."])


def _help(name: str) -> str:
    words = ["usage: python -m keras_cnn", name]
    for key, parameter in inspect.signature(COMMANDS[name]).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            words.append(f"{key.upper()} …")
        elif parameter.default is parameter.empty:
            words.append(key.upper())
        else:
            words.append(f"[{_flag(key)}{'' if parameter.default is False else '=…'}]")
    return " ".join(words) + "\n\n" + inspect.getdoc(COMMANDS[name])


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


if __name__ == "__main__":
    sys.exit(main())
