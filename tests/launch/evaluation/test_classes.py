"""Lines about classes: which have no training picture, and which are unlike those of samples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from launch.evaluation.classes import unlike_reference, without_pictures
from lightning_modules.metrics.evaluator import Pictures

COUNTS = {"train": (3, 1, 0, 0, 0, 1), "val": (5, 3, 5, 5, 4, 5)}


def data() -> Any:
    made: Any = SimpleNamespace(held_out_split="val")
    made.manifest = SimpleNamespace(classes=("a", "b", "c", "d", "e", "f"), class_counts=COUNTS.__getitem__)
    made.streams = lambda: {"image": SimpleNamespace(pictures=made)}
    return made


def family(classes: int) -> Any:
    return SimpleNamespace(batch_spec=lambda: SimpleNamespace(num_classes=classes))


def test_classes_without_a_training_picture_are_named() -> None:
    line = "no training picture is of classes 2 (c), 3 (d), 4 (e): what is made of them will mean nothing"
    assert without_pictures(data(), family(6)) == line
    assert without_pictures(data(), family(0)) is None


def test_a_reference_with_classes_of_unlike_sizes_is_remarked_on() -> None:
    def remark(split: str | None, classes: int = 6, source: Pictures | None = None) -> str | None:
        evaluator: Any = SimpleNamespace(source=source, references=(Pictures(split=split),))
        return unlike_reference(evaluator, data(), family(classes))

    assert "all 6 classes equally often, the reference's classes have 0 to 3 pictures" in (remark("train") or "")
    assert remark(None) is None
    assert remark("train", classes=0) is None
    assert remark("train", source=Pictures()) is None
