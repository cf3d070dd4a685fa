"""Values of slurm.yaml: each option gets what it takes, whatever YAML made of the word."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from slurm.request import SITE_OPTIONS, add_options, convert, job, with_site_defaults


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Options of a command line without any, in a folder that may hold a slurm.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    parser = argparse.ArgumentParser()
    add_options(parser, cores_of="a rank")
    return parser.parse_args([])


def test_words_that_yaml_knows_stay_words(options: argparse.Namespace) -> None:
    Path("slurm.yaml").write_text("time: 1:30:00\npartition: null\naccount: 0815\nnodes: 010\nmem: 2000\nqos: 1e5\n")
    asked = job(with_site_defaults(options), name="n", runs=[Path("r")], folder=Path("f"), gesso="gesso")
    assert (asked.time, asked.partition, asked.account, asked.nodes, asked.mem) == ("1:30:00", None, "0815", 10, "2000")


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("nodes: two", "slurm.yaml: nodes is 'two': it takes a whole number"),
        ("nodes: [1, 2]", "slurm.yaml: nodes is [1, 2]: it takes a whole number"),
        ("nodes: 1.5", "slurm.yaml: nodes is 1.5: it takes a whole number"),
        ("nodes: .inf", "slurm.yaml: nodes is inf: it takes a whole number"),
        ("time: {a: 1}", "slurm.yaml: time is {'a': 1}: it takes a word"),
        ("partition: on", "slurm.yaml: partition is True: it takes a word"),
        ("trust_paths: maybe", "slurm.yaml: trust_paths is 'maybe': it takes true or false"),
        ("env_setup: [a, null]", "slurm.yaml: env_setup is ['a', None]: it takes text"),
        ("env: {A: null}", "slurm.yaml: env is {'A': None}: it takes text"),
        ("time: 1\ntime: 2", "slurm.yaml, line 2: time is there twice, first in line 1"),
        ("time: 1\n\tmem: 2", "slurm.yaml, line 2: a tab; indent with spaces"),
    ],
)
def test_values_that_an_option_does_not_take_are_named(content: str, error: str, options: argparse.Namespace) -> None:
    Path("slurm.yaml").write_text(content)
    with pytest.raises(ValueError, match=re.escape(error)):
        with_site_defaults(options)


def test_an_empty_file_sets_nothing(options: argparse.Namespace) -> None:
    Path("slurm.yaml").write_text("# later\n")
    assert with_site_defaults(options)["nodes"] is None


@pytest.mark.parametrize("name", SITE_OPTIONS)
@pytest.mark.parametrize("value", [0, -1, 1.5, "x", "", True, None, [], [[1]], {"a": {"b": 1}}, [None]])
def test_every_option_takes_a_value_or_names_itself(name: str, value: object) -> None:
    try:
        taken = convert(name, value)
    except ValueError as error:
        if not str(error).startswith(f"{name} is "):
            raise
        taken = None
    assert taken is None or isinstance(taken, SITE_OPTIONS[name])
