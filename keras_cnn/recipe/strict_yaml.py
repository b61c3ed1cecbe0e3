"""YAML 1.2: `1e-4` is a number, `no` is text; duplicate keys are refused, line numbers kept."""

from __future__ import annotations

import itertools
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


MOST_BYTES = 1_000_000
MOST_ENTRIES = 100_000  # those of an alias counted at each of its places
DEEPEST = 20  # lists and mappings in one another
MOST_DIGITS = 18


class _Fault(Exception):
    """What is wrong with a document, and in which line."""

    def __init__(self, words: str, line: int | None = None) -> None:
        self.words, self.line = words, line


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
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise _Fault(f"longer than {MOST_BYTES:,} characters, which no recipe is")
        content, lines = _parsed(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    except _Fault as fault:
        line = f":{fault.line}" if fault.line else ""
        raise UserError(f"{path}{line}: {fault.words}") from None
    return Document(str(path), content, lines)


def scalar(text: str) -> object:
    """One scalar or flow value as the recipe files read it: `"1e-4"` gives `0.0001`.

    Raises:
        UserError: The text is not YAML.
    """
    try:
        return _parsed(text)[0]
    except _Fault as fault:
        raise UserError(f"{text[:80]!r} cannot be read as a value: {fault.words}") from None


def _parsed(text: str) -> tuple[object, dict[KeyPath, int]]:
    """The content of a document, and the line of each entry."""
    try:
        _check_depth(text)
        node = _Loader(text).get_single_node()
    except UnicodeEncodeError:
        raise _Fault("it is not UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        words = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise _Fault(str(words), mark.line + 1 if mark else None) from None
    lines: dict[KeyPath, int] = {}
    around: list[yaml.Node] = []
    entries = itertools.count(1)

    def build(node: yaml.Node, at: KeyPath) -> object:
        line = node.start_mark.line + 1
        lines.setdefault(at, line)
        if next(entries) > MOST_ENTRIES:
            raise _Fault(f"more than {MOST_ENTRIES:,} entries, aliases written out", line)
        if any(node is one for one in around):
            raise _Fault("an alias stands inside of what it refers to", line)
        if node.tag not in PLAIN_TAGS:
            raise _Fault(f"the tag {node.tag} is not allowed", line)
        if isinstance(node, yaml.ScalarNode):
            return _value(node)
        around.append(node)
        if isinstance(node, yaml.SequenceNode):
            content = [build(child, (*at, index)) for index, child in enumerate(node.value)]
        else:
            content = build_mapping(node, at)
        around.pop()
        return content

    def build_mapping(node: yaml.MappingNode, at: KeyPath) -> dict[object, object]:
        mapping: dict[object, object] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Fault("a list or a mapping cannot be a name", line)
            key = _value(key_node)
            if key in mapping:
                first = lines[(*at, key)]
                raise _Fault(f"{key!r} is here a second time, first in {first}", line)
            lines[(*at, key)] = line
            mapping[key] = build(value_node, (*at, key))
        return mapping

    return (None if node is None else build(node, ())), lines


def _check_depth(text: str) -> None:
    """Refuses what would be nested too deep for a recursive reader, before there is one."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1
            raise _Fault(f"nested more than {DEEPEST} deep", line)


def _value(node: yaml.ScalarNode) -> object:
    """A scalar by its tag, which may have been written and need not fit its text."""
    kind, text = node.tag.rpartition(":")[2], node.value
    try:
        if kind == "int":
            if len(text) > MOST_DIGITS:
                raise ValueError
            return int(text, 10)
        return {"null": lambda _: None, "bool": _bool, "float": _float, "str": str}[kind](text)
    except (KeyError, ValueError):
        line = node.start_mark.line + 1
        raise _Fault(f"{text[:40]!r} cannot be read as {kind}", line) from None


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _float(text: str) -> float:
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))
