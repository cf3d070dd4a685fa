"""Which pictures an evaluation takes: those that were named, and never others than it was asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from launch.evaluation.sources import Asked, given_sets
from lightning_modules.metrics.evaluator import Pictures

FIELDS = ("data", "second", "against", "split", "reference_split", "reference_samples")
NAMES = {field: f"--{field.replace('_', '-')}" for field in FIELDS}


def evaluator(source: Pictures | None, *references: Pictures) -> Any:
    return SimpleNamespace(source=source, references=references)


GENERATION = evaluator(None, Pictures("image", "train"))
A_TO_B = evaluator(Pictures("image"), Pictures("image_b", "train"))
B_TO_A = evaluator(Pictures("image_b"), Pictures("image", "train"))
RECONSTRUCTION = evaluator(Pictures("image"), Pictures("image"))
STYLE = evaluator(Pictures("image"))


@pytest.mark.parametrize(
    ("measured", "asked", "path", "second"),
    [
        (GENERATION, {"data": "x"}, "x", None),
        (GENERATION, {"against": "x", "reference_split": "val"}, "x", None),
        # Pictures to translate are those of the direction's source, whichever stream that is.
        (A_TO_B, {"data": "x"}, "x", None),
        (B_TO_A, {"data": "x"}, None, "x"),
        (A_TO_B, {"against": "x", "split": "test"}, None, "x"),
        (B_TO_A, {"against": "x"}, "x", None),
        (A_TO_B, {"data": "x", "against": "y"}, "x", "y"),
        (B_TO_A, {"data": "x", "against": "y"}, "y", "x"),
        (B_TO_A, {"second": "x"}, None, "x"),
        (RECONSTRUCTION, {"data": "x", "split": "train", "reference_samples": 7}, "x", None),
        (STYLE, {"data": "x", "second": "y", "split": "train"}, "x", "y"),
    ],
)
def test_the_sets_that_were_named_are_taken(
    measured: Any, asked: dict[str, Any], path: str | None, second: str | None
) -> None:
    assert given_sets(measured, Asked(NAMES, **asked)) == {"path": path, "second": second}


@pytest.mark.parametrize(
    ("measured", "asked", "said"),
    [
        (GENERATION, {"split": "test"}, "--split test: the run makes pictures of no others; --reference-split names"),
        (STYLE, {"against": "x"}, "--against: these metrics compare with no set"),
        (STYLE, {"reference_samples": 7}, "--reference-samples: these metrics compare with no set"),
        (RECONSTRUCTION, {"against": "x"}, "--against: what the run makes .* these pictures themselves; --data and"),
        (RECONSTRUCTION, {"reference_split": "train"}, "--reference-split: what the run makes"),
        (B_TO_A, {"data": "x", "second": "y"}, "--data x: y is named for the same"),
        (GENERATION, {"data": "x", "against": "y"}, "--against y: x is named for the same"),
    ],
)
def test_what_cannot_be_heeded_is_refused(measured: Any, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        given_sets(measured, Asked(NAMES, **asked))
