"""What a Python caller may pass: numbers of any library, names, switches."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch

import gesso
from datamodules.shards import ShardData
from gesso.cli.main import main
from gesso.common.arguments import one_of, seed, switch, whole
from gesso.common.ranges import SEEDS, Range, check_options
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.previews import Previews


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3), torch.tensor(3)])
def test_whole_numbers_of_any_library(value: object) -> None:
    found = whole(value, "size", Range(1))
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [0, -5, 2.5, 3.0, np.float32(3), "3", None, True, [3], torch.tensor(2.5)])
def test_what_is_no_such_number_is_named(value: object) -> None:
    with pytest.raises(ValueError, match=r"size is .*; it must be a whole number 1 or more"):
        whole(value, "size", Range(1))


def test_names_and_switches() -> None:
    assert one_of("adain", "method", ("adain", "gatys")) == "adain"
    with pytest.raises(ValueError, match="method is 'foo'; it must be one of adain, gatys"):
        one_of("foo", "method", ("adain", "gatys"))
    assert switch(np.bool_(True), "flip") is True
    for value in ("no", 0, None):
        with pytest.raises(ValueError, match="flip is .*; it must be True or False"):
            switch(value, "flip")


@pytest.mark.parametrize("value", [-1, 2**63, 2**64, 10**400])
def test_a_seed_that_would_wrap_around_is_refused(value: int, capsys: pytest.CaptureFixture[str]) -> None:
    """On the command line, as an argument and as an option; the largest seed is one."""
    assert seed(str(2**63 - 1)) == whole(2**63 - 1, "seed", SEEDS) == 2**63 - 1
    with pytest.raises(argparse.ArgumentTypeError, match="is no seed: it must be a whole number from 0 to 92233720368"):
        seed(str(value))
    with pytest.raises(ValueError, match="seed is .* a whole number from 0 to 9223372036854775807$"):
        whole(value, "seed", SEEDS)
    for options in (Previews, Evaluation, ShardData):
        with pytest.raises(ValueError, match=r"seed is .*; it must be from 0 to 9223372036854775807"):
            check_options(options, {"seed": value})
    for command in (["generate", "run"], ["evaluate", "run"], ["stylize", "a.png"]):
        with pytest.raises(SystemExit):
            main([*command, f"--seed={value}"])
        assert "is no seed" in capsys.readouterr().err


def test_the_front_door_takes_no_seed_that_would_wrap_around() -> None:
    for call in (
        lambda: gesso.stream("nowhere", 4, seed=2**63),
        lambda: gesso.evaluate("nowhere", seed=-1),
        lambda: gesso.stylize("a.png", "b.png", method="gatys", seed=2**64),
    ):
        with pytest.raises(ValueError, match="seed is .*; it must be a whole number from 0 to"):
            call()
