"""The command line: `python -m keras_cnn COMMAND …`.

Fire calls a function first and complains about unknown flags after, so arguments are held against
the function's signature here, before it runs.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence

from keras_cnn import commands
from keras_cnn.errors import UserError, nearest

COMMANDS: dict[str, Callable[..., None]] = {
    "recipes": commands.recipes,
    "recipe": commands.recipe,
    "fetch": commands.fetch,
    "data": commands.data,
    "predict": commands.predict,
    "evaluate": commands.evaluate,
    "summary": commands.summary,
    "backbone": commands.backbone,
    "report": commands.report,
    "bench": commands.bench,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The command line's; None takes the process's.

    Returns:
        The exit code: 0, 1 (something failed), 2 (the user's input), 130 (interrupted).
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a path may be no text
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where an error still has a handler
        return code
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


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    name, *rest = arguments
    if name == "--version":
        from keras_cnn import __version__

        print(__version__)
        return 0
    if name not in COMMANDS:
        raise UserError(f"no command {name!r}: {nearest(name, COMMANDS)}")
    function = COMMANDS[name]
    if "--help" in rest or "-h" in rest:
        print(_help(name, function))
        return 0
    checked = _checked(name, function, rest)

    import fire

    # Values stay text: Fire would read 1,4 as a tuple and a folder named 5000 as a number.
    as_text = fire.decorators.SetParseFn(str)(function)
    return fire.Fire(as_text, command=checked, name=f"keras_cnn {name}", serialize=_nothing) or 0


def _checked(name: str, function: Callable[..., None], arguments: Sequence[str]) -> list[str]:
    """The arguments in one form, `--flag=value`, after all of them were found right.

    `--set field value`, `--set field=value` and several `--set` become one flag of lines.
    """
    parameters = inspect.signature(function).parameters
    flags = [
        key for key, parameter in parameters.items() if parameter.default is not parameter.empty
    ]
    positional: list[str] = []
    values: dict[str, list[str]] = {}
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if not argument.startswith("-") or argument == "-":
            positional.append(argument)
            continue
        flag, given, value = argument.partition("=")
        key = flag.lstrip("-").replace("-", "_")
        if key not in flags:
            known = [f"--{known.replace('_', '-')}" for known in flags]
            raise UserError(f"{name} has no {flag}: {nearest(flag, known)}")
        if isinstance(parameters[key].default, bool):
            value = value if given else "true"
            if value.lower() not in ("true", "false"):
                raise UserError(f"{flag} is a switch: {flag}, or {flag}=false, not {value!r}")
            value = value.capitalize() if value.lower() == "true" else ""
        elif not given:
            if not waiting or waiting[0].startswith("--"):
                raise UserError(f"{flag} needs a value: {flag}=…")
            value = waiting.pop(0)
        if not value and isinstance(parameters[key].default, str) and parameters[key].default:
            raise UserError(f"{flag} needs a value: {flag}=…")
        if key == "set" and "=" not in value:
            if not waiting or waiting[0].startswith("--"):
                raise UserError(f"--set needs a setting and a value: --set {value} VALUE")
            value = f"{value}={waiting.pop(0)}"
        if key in values and key != "set":
            raise UserError(f"{flag} is given twice")
        values.setdefault(key, []).append(value)
    _check_positional(name, parameters, positional)
    return [*positional, *(f"--{key}={chr(10).join(texts)}" for key, texts in values.items())]


def _check_positional(
    name: str, parameters: dict[str, inspect.Parameter], positional: Sequence[str]
) -> None:
    required = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
    ]
    many = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values())
    wanted = " ".join(key.upper() for key in required)
    if len(positional) < len(required):
        raise UserError(f"{name} needs {wanted}; see: python -m keras_cnn {name} --help")
    if len(positional) > len(required) and not many:
        extra = positional[len(required)]
        raise UserError(f"{name} takes {wanted or 'no names'}, {extra!r} is too much")


def _overview() -> str:
    lines = ["usage: python -m keras_cnn COMMAND …", ""]
    for name, function in COMMANDS.items():
        lines.append(f"  {name:<9} {inspect.getdoc(function).splitlines()[0]}")
    lines += ["", "python -m keras_cnn COMMAND --help tells more."]
    return "\n".join(lines)


def _help(name: str, function: Callable[..., None]) -> str:
    words = ["usage: python -m keras_cnn", name]
    for key, parameter in inspect.signature(function).parameters.items():
        flag = f"--{key.replace('_', '-')}"
        if parameter.kind is parameter.VAR_POSITIONAL:
            words.append(f"{key.upper()} …")
        elif parameter.default is parameter.empty:
            words.append(key.upper())
        else:
            words.append(f"[{flag}]" if isinstance(parameter.default, bool) else f"[{flag}=…]")
    return " ".join(words) + "\n\n" + inspect.getdoc(function)


def _nothing(result: object) -> None:
    """Commands print what they have to say: Fire prints nothing more."""


if __name__ == "__main__":
    sys.exit(main())
