"""What a Python caller may pass: numbers of any library, names, switches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gesso.common.arguments import one_of, switch, whole
from gesso.common.ranges import Range


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
