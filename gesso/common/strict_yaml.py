"""YAML as people mean it: every file that a user writes is read here, and what is wrong in it names file and line.

A key twice is an error. Of YAML 1.1's surprises none is left but ``on``, ``off``, ``yes`` and ``no``, which are true
and false: ``1:30:00``, ``12:30``, ``2026-11-28`` and ``010`` are text, ``1e-4`` is a number.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path

import yaml
from yaml import YAMLError

from gesso.common.text import decode_text, one_line

__all__ = ["StrictLoader", "YAMLError", "load_yaml", "read_mapping", "read_yaml", "what_is_wrong"]

#: A few lines of aliases of aliases can stand for billions.
MOST_VALUES = 100_000

_INTEGER = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_OTHERS = {_INTEGER, _FLOAT, "tag:yaml.org,2002:timestamp"}


class StrictLoader(yaml.SafeLoader):
    """PyYAML's loader of plain data, with the differences that the module tells."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key} is there twice, first in line {seen[key]}", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen[key] = line
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node)).replace("_", "")
        sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
        base = {"0x": 16, "0o": 8, "0b": 2}.get(digits[:2].lower(), 10)
        return int(sign + digits, base) if base == 10 else int(f"{sign}{digits[2:]}", base)


StrictLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _OTHERS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
StrictLoader.add_constructor(_INTEGER, StrictLoader.construct_yaml_int)
StrictLoader.add_implicit_resolver(
    _INTEGER,
    re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$"),
    list("-+0123456789"),
)
StrictLoader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def load_yaml(text: str) -> object:
    """The plain data that ``text`` is.

    Raises:
        YAMLError: it is no YAML, has a key twice, or its aliases stand for more than ``MOST_VALUES``.
    """
    try:
        loader = StrictLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _values(node, {}) > MOST_VALUES:
                raise YAMLError(f"its aliases stand for more than {MOST_VALUES:,} values")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise YAMLError("nested too deeply") from None
    except ValueError as error:
        # A number of thousands of digits.
        raise YAMLError(one_line(error)) from error


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for when every alias in it is written out."""
    if id(node) in known:
        if not known[id(node)]:
            raise YAMLError("an alias stands for itself")
        return known[id(node)]
    known[id(node)] = 0
    parts = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        parts = [part for pair in node.value for part in pair]
    known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def read_yaml(file: Path) -> object:
    """The plain data in a file; None when it is empty.

    Raises:
        ValueError: it is no text, no YAML, or has a key twice; one line with the file and the line in it.
        OSError: it cannot be read.
    """
    if file.is_dir():
        raise ValueError(f"{file}: a folder, not a YAML file")
    text = decode_text(file.read_bytes())
    if text is None:
        raise ValueError(f"{file}: not UTF-8; save it as UTF-8")
    try:
        return load_yaml(text)
    except YAMLError as error:
        raise ValueError(f"{file}{what_is_wrong(error)}") from error


def what_is_wrong(error: YAMLError) -> str:
    """``, line 3: ...``: the place and the words of an error of ``load_yaml``."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or error
    if "'\\t'" in str(problem):
        problem = "a tab; indent with spaces"
    return f"{f', line {mark.line + 1}' if mark else ''}: {one_line(problem)}"


def read_mapping(file: Path, *, what: str) -> dict[str, object]:
    """The mapping in a file, its keys as text.

    Args:
        file: a YAML file.
        what: for the error: what such a file is ("a recipe: it maps ...").

    Raises:
        ValueError: see ``read_yaml``; or the file holds something else, or nothing.
        OSError: it cannot be read.
    """
    content = read_yaml(file)
    if not isinstance(content, dict):
        kind = "empty" if content is None else f"a {type(content).__name__}"
        raise ValueError(f"{file}: {kind}, and no {what}")
    return {str(key): value for key, value in content.items()}
