"""Translating families: directions, sheets of pairs, and numbers that agree with the metrics fed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gesso.common.pixels import to_uint8
from lightning_modules.core.abilities import CannotDo
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.translating import TranslatingFamily, domains
from lightning_modules.metrics import specs
from lightning_modules.metrics.evaluator import EvaluationOptions, Pictures
from tests.pictures import scikit_ssim


class Negative(TranslatingFamily):
    """A to B makes the negative, B to A half the contrast."""

    def __init__(self) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Conv2d(1, 1, 1)

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"network": OptimizerOptions()}

    def generating_networks(self) -> tuple[str, ...]:
        return ("network",)

    def step(self, batch: Any) -> None:
        raise NotImplementedError

    def translate(self, images: Tensor, direction: str) -> Tensor:
        return -images if direction == "a-to-b" else images / 2


class OneWay(Negative):
    """One direction alone."""

    def directions(self) -> tuple[str, ...]:
        return ("b-to-a",)


def batch(count_a: int = 3, count_b: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(count, 1, 32, 32, generator=generator) * 2 - 1 for count in (count_a, count_b))
    return {"image": a, "image_b": b}


def test_what_it_answers() -> None:
    family = Negative()
    assert family.abilities() == {"translate", "sheet"}
    assert family.batch_spec().images == ("image", "image_b")
    assert [family.known_direction(name) for name in (None, "b-to-a")] == ["a-to-b", "b-to-a"]
    assert OneWay().known_direction(None) == "b-to-a"
    with pytest.raises(ValueError, match="direction a-to-b: an OneWay translates b-to-a"):
        OneWay().known_direction("a-to-b")
    assert domains("b-to-a") == ("image_b", "image")
    with pytest.raises(ValueError, match="called a-to-b and b-to-a"):
        domains("a-to-a")
    with pytest.raises(CannotDo, match="makes no samples"):
        family.generate(torch.arange(2), seed=0)


def test_a_sheet_has_originals_above_translations() -> None:
    held_out = batch()
    images, columns = Negative().sheet(held_out)
    assert columns == 3
    a, b = held_out["image"], held_out["image_b"][:3]
    assert torch.equal(images, torch.cat([a, -a, b, b / 2]))
    images, columns = OneWay().previews(batch(3, 20), seed=0)["samples"]
    assert (len(images), columns) == (16, 8)


@pytest.mark.parametrize(
    ("direction", "source", "target"), [(None, "image", "image_b"), ("b-to-a", "image_b", "image")]
)
def test_what_it_compares(direction: str | None, source: str, target: str) -> None:
    options = EvaluationOptions(("fid", "ssim"), "mobilenet_v2", direction=direction, reference_samples=50)
    evaluator: Any = Negative().evaluator(options)
    assert evaluator.source == Pictures(source)
    assert list(evaluator.references) == [Pictures(target, "train", 50)]
    assert evaluator.names == {"fid/mobilenet_v2": "min", "ssim": "max"}
    # The held-out pictures, or those of the split that was asked for.
    asked: Any = Negative().evaluator(replace(options, split="test"))
    assert (asked.source, list(asked.references)) == (Pictures(source, "test"), list(evaluator.references))
    # There is no second translation of an image.
    evaluator.begin({}, 40)
    assert evaluator.num_samples == 40
    assert Negative().evaluator(EvaluationOptions(())) is None
    with pytest.raises(ValueError, match="is cannot be measured of a Negative"):
        Negative().evaluator(EvaluationOptions(("is",)))
    with pytest.raises(ValueError, match="direction c-to-d"):
        Negative().evaluator(EvaluationOptions(("ssim",), direction="c-to-d"))


def test_ssim_is_of_originals_and_translations() -> None:
    evaluator: Any = Negative().evaluator(EvaluationOptions(("ssim",), direction="b-to-a"))
    evaluator.load({}, torch.device("cpu"))
    images = batch()["image_b"]
    evaluator.reset()
    evaluator.begin({}, 5)
    for index in torch.arange(5).split(2):
        evaluator.update(index, {"image": images[index]})
    originals, made = (to_uint8(pictures)[:, 0].double() / 255 for pictures in (images, images / 2))
    assert evaluator.compute() == {"ssim": pytest.approx(scikit_ssim(originals, made), abs=1e-6)}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with a metric of translations."""
    (tmp_path / "shift_metric.py").write_text(
        "from lightning_modules.metrics.specs import MetricSpec, Quantity\n"
        "def make():\n"
        "    import torch\n"
        "    from torchmetrics import MeanMetric\n"
        "    class Shift(MeanMetric):\n"
        "        def update(self, sources, translated):\n"
        "            assert sources.dtype == translated.dtype == torch.uint8\n"
        "            super().update((translated.float() - sources.float()).abs().mean((1, 2, 3)))\n"
        "    return Shift()\n"
        "SHIFT = MetricSpec('shift', 'change', ('translation',), (Quantity('shift', 'Shift', 'min'),), make=make)\n"
    )
    folder = tmp_path / "shift_metric-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: shift-metric\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[gesso.metrics]\nshift = shift_metric:SHIFT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    caches = (specs.table, specs._quantities)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.usefixtures("package")
def test_another_packages_metric_is_fed() -> None:
    evaluator: Any = Negative().evaluator(EvaluationOptions(("shift",)))
    assert evaluator.names == {"shift": "min"}
    assert (evaluator.references, evaluator.weights) == ((), [])
    evaluator.load({}, torch.device("cpu"))
    evaluator.reset()
    evaluator.begin({}, 3)
    images = batch()["image"]
    evaluator.update(torch.arange(3), {"image": images})
    expected = (to_uint8(-images).float() - to_uint8(images).float()).abs().mean()
    assert evaluator.compute() == {"shift": pytest.approx(float(expected), rel=1e-5)}
    with pytest.raises(ValueError, match="shift cannot be measured of a DCGAN"):
        specs.choose("generation", ["shift"], "evaluate", what="a DCGAN", option="--metrics")
