"""YAML is read as people mean it, and what is wrong names the file and the line."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gesso.common.strict_yaml import YAMLError, load_yaml, read_mapping, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1:30:00", "1:30:00"),
        ("12:30", "12:30"),
        ("1:30.5", "1:30.5"),
        ("2026-11-28", "2026-11-28"),
        ("2026-11-28 12:30:00", "2026-11-28 12:30:00"),
        ("010", "010"),
        ("007", "007"),
        ("0x1F", 31),
        ("-0x1F", -31),
        ("0o17", 15),
        ("0b101", 5),
        ("1_000", 1000),
        ("1e-4", 1e-4),
        ("1e5", 1e5),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.0E+3", 1000.0),
        ("-.inf", -math.inf),
        ("null", None),
        ("~", None),
        ("on", True),
        ("no", False),
        ("nobody", "nobody"),
        ("1.2.3", "1.2.3"),
        ("'7'", "7"),
        ("{a: 1, b: [x, 2]}", {"a": 1, "b": ["x", 2]}),
        ("&a {x: 1}", {"x": 1}),
    ],
)
def test_scalars(text: str, value: object) -> None:
    loaded = load_yaml(text)
    assert loaded == value
    assert type(loaded) is type(value)


def test_merged_keys_may_be_overridden() -> None:
    assert load_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}")["b"] == {"x": 3, "y": 2}  # type: ignore[index]


# "1e5" and "-.5" as text are written bare by PyYAML, which does not take them for numbers, as everybody else does.
TEXT = st.text(alphabet="ab:0123-. ").filter(lambda text: not re.fullmatch(r"-\.[0-9]+", text))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT


@settings(deadline=None)
@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner)))
@pytest.mark.slow
def test_what_pyyaml_writes_is_read_back(value: object) -> None:
    assert load_yaml(yaml.safe_dump(value)) == value


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"run: {kimg: 1}\ndata:\n  path: x\nrun: {kimg: 2}\n", ", line 4: run is there twice, first in line 1"),
        (b"a:\n  b: 1\n  c: 2\n  b: 3\n", ", line 4: b is there twice, first in line 2"),
        (b"a: {b: 1, b: 2}", ", line 1: b is there twice, first in line 1"),
        (b"run:\n\tkimg: 1\n", ", line 2: a tab; indent with spaces"),
        (b"run: {kimg: 1\n", "line 2: "),
        (b"# gr\xf6\xdfe\n", ": not UTF-8; save it as UTF-8"),
        (b"a: !!python/object/apply:os.system [ls]", ", line 1: could not determine a constructor"),
        (b"? [1, 2]\n: 3\n", ", line 1: found unhashable key"),
        (b"[" * 3000, ": nested too deeply"),
    ],
)
def test_errors_name_the_file_and_the_line(content: bytes, error: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="recipe.yaml") as caught:
        read_yaml(file)
    assert error in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa: 1\r\n", "a: 1\n".encode("utf-16")])
def test_marks_and_line_ends_of_other_systems_are_read(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_bytes(content)
    assert read_mapping(file, what="recipe") == {"a": 1}


@pytest.mark.parametrize(("content", "kind"), [("", "empty"), ("# nothing\n", "empty"), ("[1]", "a list")])
def test_a_file_without_a_mapping_is_named(content: str, kind: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=f"recipe.yaml: {kind}, and no recipe"):
        read_mapping(file, what="recipe")
    with pytest.raises(ValueError, match="a folder"):
        read_mapping(tmp_path, what="recipe")


def test_aliases_are_counted_before_they_are_written_out() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(YAMLError, match="its aliases stand for more than 100,000 values"):
        load_yaml("\n".join(lines))
    with pytest.raises(YAMLError, match="an alias stands for itself"):
        load_yaml("a: &a [1, *a]")
    assert load_yaml("a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
