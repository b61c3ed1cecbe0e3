"""Settings in words: of which type each is, its default, what it means."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Sequence
from typing import Annotated, Literal, Union, get_args, get_origin

from keras_cnn.methods.settings import Group
from keras_cnn.recipe import resolve
from keras_cnn.recipe.spec import Run, method_settings
from keras_cnn.results import grid

TYPES = {bool: "true, false", int: "whole number", float: "number", str: "text"}
IN_YAML = {"None": "null", "True": "true", "False": "false"}


def table(method: str, runs: Sequence[Run] = ()) -> str:
    """The settings of a method, a line each, in the order of their classes.

    Args:
        method: Its name.
        runs: Of it, whose values are told too where there are some.

    Raises:
        UserError: There is no such method.
    """
    rows = [["setting", *(["here"] if runs else []), "default", "type", "meaning"]]
    for group in resolve.groups(method_settings(method)):
        meanings = _meanings(group)
        for name, field in group.model_fields.items():
            values = {written(run.spec.settings.get(name, "")) for run in runs}
            here = [values.pop() if len(values) == 1 else "by row"] if runs else []
            default = method if name == "method" else written(field.default)
            meaning = meanings.get(name, "").partition(". ")[0].rstrip(".")
            rows.append([name, *here, default, _type(field.annotation), meaning])
    return "\n".join([f"{method}:", *grid.aligned(rows)])


def written(value: object) -> str:
    """A value as `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _meanings(group: type[Group]) -> dict[str, str]:
    """By field, what the docstrings of a class and its bases say of it."""
    meanings = {}
    for one in reversed(group.__mro__):
        _, _, attributes = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): (.+(?:\n     .+)*)", attributes, re.MULTILINE):
            words = re.sub(r"\b(None|True|False)\b", lambda word: IN_YAML[word[0]], text)
            meanings[name] = " ".join(words.split())
    return meanings


def _type(annotation: object) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return ", ".join("null" if one is type(None) else _type(one) for one in arguments)
    return TYPES.get(annotation, str(annotation))
