"""The command line: `python -m keras_cnn COMMAND …`.

Fire turns arguments into what a command's signature says and calls it. It complains about unknown
flags only after that, so arguments are held against the signature here, before.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from keras_cnn import __version__, commands
from keras_cnn.errors import UserError, nearest

COMMANDS: dict[str, Callable[..., None]] = {
    name: getattr(commands, name)
    for name in (
        *("recipes", "recipe", "fetch", "data", "predict", "evaluate", "summary", "backbone"),
        *("report", "bench"),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The command line's; None takes the process's.

    Returns:
        The exit code: 0, 1 (something failed), 2 (the user's input), 130 (interrupted).
    """
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a path may be no text
    try:
        _run(*(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()  # here, where an error still has a handler
        return 0
    except UserError as error:
        print(f"keras_cnn: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("keras_cnn: interrupted; finished runs are kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written
        print(f"keras_cnn: {error}", file=sys.stderr)
        return 1


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

        checked = _checked(name, arguments)
        fire.Fire(_typed(COMMANDS[name]), command=checked, name=f"keras_cnn {name}")


def _checked(name: str, arguments: Sequence[str]) -> list[str]:
    """The arguments as Fire takes them, `--flag=value`, after all of them were found right.

    `--set field value`, `--set field=value` and several `--set` become one flag of lines. A flag
    with an empty value is left at its default, if that is None.
    """
    parameters = inspect.signature(COMMANDS[name]).parameters
    defaults = {key: one.default for key, one in parameters.items() if one.default is not one.empty}
    positional: list[str] = []
    values: dict[str, list[str]] = {}
    waiting = deque(arguments)

    def next_value(otherwise: str) -> str:
        if not waiting or waiting[0].startswith("--"):
            raise UserError(otherwise)
        return waiting.popleft()

    while waiting:
        argument = waiting.popleft()
        if not argument.startswith("-") or argument == "-":
            positional.append(argument)
            continue
        flag, equals, value = argument.partition("=")
        key = flag.lstrip("-").replace("-", "_")
        if key not in defaults:
            raise UserError(f"{name} has no {flag}: {nearest(flag, map(_flag, defaults))}")
        if not equals:
            is_switch = defaults[key] is False
            value = "true" if is_switch else next_value(f"{flag} needs a value: {flag}=…")
        if not value and defaults[key] not in (None, False):
            raise UserError(f"{flag} needs a value: {flag}=…")
        if key == "set" and "=" not in value:
            value += f"={next_value(f'--set needs a setting and a value: --set {value} VALUE')}"
        if key in values and key != "set":
            raise UserError(f"{flag} is given twice")
        values.setdefault(key, []).append(value)
    _check_positional(name, parameters, positional)
    lines = {key: "\n".join(texts) for key, texts in values.items()}
    given = (f"--{key}={text}" for key, text in lines.items() if text or defaults[key] is not None)
    return [*positional, *given]


def _check_positional(
    name: str, parameters: Mapping[str, inspect.Parameter], positional: Sequence[str]
) -> None:
    many = [key for key, one in parameters.items() if one.kind is one.VAR_POSITIONAL]
    required = [key for key, one in parameters.items() if one.default is one.empty]
    required = [key.upper() for key in required if key not in many]
    if len(positional) < len(required):
        wanted = " ".join(required)
        raise UserError(f"{name} needs {wanted}; see: python -m keras_cnn {name} --help")
    if len(positional) > len(required) and not many:
        wanted, extra = " ".join(required) or "no names", positional[len(required)]
        raise UserError(f"{name} takes {wanted}, {extra!r} is too much")


def _typed(function: Callable[..., None]) -> Callable[..., None]:
    """A command that Fire gives values of the types in its signature.

    Left to itself, Fire would read 1,4 as a tuple and a folder named 5000 as a number.
    """
    import fire

    parsers = {
        key: partial(PARSERS[parameter.annotation.removesuffix(" | None")], _flag(key))
        for key, parameter in inspect.signature(function).parameters.items()
    }
    return fire.decorators.SetParseFns(**parsers)(fire.decorators.SetParseFn(str)(function))


def _whole_number(flag: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{flag} is {text!r}: a whole number from 1 is needed")
    return int(text)


def _switch(flag: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UserError(f"{flag} is a switch: {flag}, or {flag}=false, not {text!r}")
    return text.lower() == "true"


def _settings(flag: str, text: str) -> dict[str, object]:
    """Lines of `field=value`, with values as the recipe files have them."""
    from keras_cnn.recipe import strict_yaml

    pairs = (line.partition("=") for line in text.splitlines())
    return {key.strip().replace("-", "_"): strict_yaml.scalar(value) for key, _, value in pairs}


# By the annotation of a command's parameter: its flag and a text to a value.
PARSERS: dict[str, Callable[[str, str], object]] = {
    "str": lambda flag, text: text,
    "int": _whole_number,
    "bool": _switch,
    "Path": lambda flag, text: Path(text),
    "list[str]": lambda flag, text: [name.strip() for name in text.split(",")],
    "dict[str, object]": _settings,
}


def _overview() -> str:
    lines = ["usage: python -m keras_cnn COMMAND …", ""]
    for name, function in COMMANDS.items():
        lines.append(f"  {name:<9} {inspect.getdoc(function).splitlines()[0]}")
    lines += ["", "python -m keras_cnn COMMAND --help tells more."]
    return "\n".join(lines)


def _help(name: str) -> str:
    words = ["usage: python -m keras_cnn", name]
    for parameter in inspect.signature(COMMANDS[name]).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            words.append(f"{parameter.name.upper()} …")
        elif parameter.default is parameter.empty:
            words.append(parameter.name.upper())
        else:
            value = "" if parameter.default is False else "=…"
            words.append(f"[{_flag(parameter.name)}{value}]")
    return " ".join(words) + "\n\n" + inspect.getdoc(COMMANDS[name])


def _flag(key: str) -> str:
    return f"--{key.replace('_', '-')}"


if __name__ == "__main__":
    sys.exit(main())
