"""YAML 1.2: `1e-4` is a number, `no` is text; duplicate keys are refused, line numbers kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from keras_cnn.errors import UserError

KeyPath = tuple[str | int, ...]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # ten times as fast where there is C
    """The scalar types of YAML 1.2's core schema, in place of PyYAML's 1.1."""


PLAIN_TAGS = {
    f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map")
}

_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in [
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
    ),
]:
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first, ""]
    )


# PyYAML's reads a leading zero as octal.
_Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node), 10)
)


@dataclass(frozen=True, repr=False)
class Document:
    """What a file says and where.

    Attributes:
        path: The file.
        content: Plain dicts, lists and scalars.
        lines: The line of each entry, by its path of keys and indices.
    """

    path: str
    content: object
    lines: dict[KeyPath, int]

    def place(self, *at: str | int) -> str:
        """`FILE:LINE` of the entry with these keys and indices, or of the nearest around it."""
        around = (at[:end] for end in range(len(at), -1, -1))
        return f"{self.path}:{next((self.lines[key] for key in around if key in self.lines), 1)}"


def read(path: Path) -> Document:
    """Reads one YAML document.

    Raises:
        UserError: The file is unreadable, not YAML, or has a key twice; with file and line.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: {getattr(error, 'problem', error)}") from None
    lines: dict[KeyPath, int] = {}

    def build(node: yaml.Node, at: KeyPath) -> object:
        lines.setdefault(at, node.start_mark.line + 1)
        if node.tag not in PLAIN_TAGS:
            raise UserError(f"{path}:{node.start_mark.line + 1}: the tag {node.tag} is not allowed")
        if isinstance(node, yaml.SequenceNode):
            return [build(child, (*at, index)) for index, child in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return loader.construct_object(node)
        mapping: dict[object, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(f"{path}:{line}: a list or a mapping cannot be a name")
            key = loader.construct_object(key_node)
            if key in mapping:
                first = lines[(*at, key)]
                raise UserError(f"{path}:{line}: {key!r} is here a second time, first in {first}")
            lines[(*at, key)] = line
            mapping[key] = build(value_node, (*at, key))
        return mapping

    return Document(str(path), None if node is None else build(node, ()), lines)


def scalar(text: str) -> object:
    """One scalar or flow value as the recipe files read it: `"1e-4"` gives `0.0001`.

    Raises:
        UserError: The text is not YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds no Python objects
    except yaml.YAMLError:
        raise UserError(f"{text!r} cannot be read as a value") from None
