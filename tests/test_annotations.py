"""How much of `launch/` is typed: annotations that are a bare `Any` are counted, and may only become fewer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

LAUNCH = Path(__file__).parents[1] / "launch"
#: Of all annotations of parameters and results; `Any` is for what a library gives no type.
MOST = 0.02


def annotations(file: Path) -> Iterator[ast.expr]:
    """Annotations of all parameters and results in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            parameters = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            found = [parameter.annotation for parameter in parameters if parameter is not None] + [node.returns]
            yield from (annotation for annotation in found if annotation is not None)


def test_few_annotations_say_nothing() -> None:
    found = [annotation for file in LAUNCH.rglob("*.py") for annotation in annotations(file)]
    bare = [annotation for annotation in found if isinstance(annotation, ast.Name) and annotation.id == "Any"]
    assert len(found) > 1000
    assert len(bare) / len(found) < MOST
