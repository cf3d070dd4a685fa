"""The style encoder: what it learns from, resuming, ranks, and its evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.building.build import build
from datamodules.building.options import BuildOptions
from gesso.cli.main import main
from launch.checkpoints.export import export
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.frozen import Frozen
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.networks.style_head import STATISTICS, StyleHead, StyleHeadOptions, style_statistics
from lightning_modules.networks.vgg import VGG19
from lightning_modules.style.style_encoder import StyleEncoder
from tests.formulas import waves
from tests.launch.strategies.alike import strategies_train_alike
from tests.lightning_modules.gan.alike import moved_alike, resumed_to_the_bit, trained_on_two_ranks
from tests.lightning_modules.gan.test_stylegan2 import Data
from tests.trainers import bare_trainer

COUNT, SIDE = 4, 32


class Rows:
    """Batches of steps ``first`` to ``until``."""

    def __init__(self, first: int, until: int) -> None:
        self.steps = range(first, until)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for step in self.steps:
            images = torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(step)) * 2 - 1
            yield {"image": images, "position": (step + 1) * COUNT}


def small(kind: type[StyleEncoder] = StyleEncoder, **options: Any) -> StyleEncoder:
    torch.manual_seed(0)
    head = StyleHeadOptions(width=16, code_dim=8)
    module = kind(resolution=SIDE, crop_size=16, head=head, color_jitter=0.2, **options)
    module._encoder = Frozen(VGG19(None))
    return module


def test_statistics_are_means_and_deviations_of_each_channel() -> None:
    torch.manual_seed(0)
    encoder, images = VGG19(None), waves(2, 3, 16, 16).float()
    found = style_statistics(encoder, images)
    assert found.shape == (2, STATISTICS)
    first = encoder(images, ("relu1_1",))["relu1_1"].flatten(2).double().numpy()
    np.testing.assert_allclose(found[:, :64], first.mean(2), atol=1e-6)
    np.testing.assert_allclose(found[:, 64:128], np.sqrt(first.var(2) + 1e-5), atol=1e-6)


def test_codes_have_length_1_and_masks_hide_statistics() -> None:
    head, statistics = StyleHead(StyleHeadOptions(8, 4), statistics=6).double(), waves(3, 6).abs()
    codes = head(statistics)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert not torch.allclose(codes, head(statistics, torch.tensor([1.0, 0, 1, 1, 1, 1])))
    nothing = head(statistics, torch.zeros(3, 6))
    torch.testing.assert_close(nothing[0], nothing[1])
    torch.testing.assert_close(head(7 * statistics + 6 * 0.05), codes)


def test_pictures_that_are_alike_give_log_s(tmp_path: Path) -> None:
    """Flat pictures of one colour have one code, whatever is cut out of them."""
    module = small(dropout=0.0)
    module.color_jitter = 0.0
    losses: list[float] = []
    module.losses = recorded(module.losses, losses)  # type: ignore[method-assign]

    class Flat(Rows):
        def __iter__(self) -> Iterator[dict[str, Any]]:
            yield {"image": torch.full((COUNT, 3, SIDE, SIDE), 0.3), "position": COUNT}

    bare_trainer(tmp_path).fit(module, Flat(0, 1))
    assert losses == [pytest.approx(math.log(COUNT), rel=1e-5)]


def recorded(losses: Any, into: list[float]) -> Any:
    def run(batch: Any) -> Any:
        found = losses(batch)
        into.append(float(found["loss"].detach()))
        return found

    return run


def test_it_resumes_to_the_bit(tmp_path: Path) -> None:
    before = small().state_dict()
    whole = resumed_to_the_bit(tmp_path, fast, Rows, until=4, batch_size=COUNT)
    assert max((value - before[name]).abs().max().item() for name, value in whole.state_dict().items()) > 1e-3


def fast(kind: type[StyleEncoder] = StyleEncoder) -> StyleEncoder:
    """One whose optimizer does not blow rounding errors up."""
    return small(kind, optimizer=OptimizerOptions(lr=1e-1, eps=1e-2))


class Grey(StyleEncoder):
    """Takes the grey images that ranks of other tests are given."""

    def losses(self, batch: Batch) -> Losses:
        return super().losses({**batch, "image": batch["image"].expand(-1, 3, -1, -1)})


def grey() -> StyleEncoder:
    return fast(Grey)


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    """Negatives are of the global batch: with those of a rank alone, the losses and weights would be others."""
    one = grey()
    before = {name: value.clone() for name, value in one.state_dict().items()}
    bare_trainer(tmp_path).fit(one, Data(3))
    moved_alike(one, trained_on_two_ranks(tmp_path, grey, steps=3), before)


@pytest.mark.slow
@pytest.mark.process
def test_stages_of_zero_train_like_ddp(tmp_path: Path) -> None:
    strategies_train_alike(tmp_path, "style_encoder", ("ddp", "zero2", "zero3"), until=3)


@pytest.mark.process
def test_a_run_is_measured_by_what_it_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures of one colour each are found by any encoder that sees colours."""
    for label in range(2):
        (tmp_path / "pictures" / str(label)).mkdir(parents=True)
        for number in range(6):
            color = [250 * label, 40 * number, 250 - 40 * number]
            pixels = np.full((32, 32, 3), color, np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / str(label) / f"{number}.png")
    options = BuildOptions(splits="50/50", format="png")
    build(tmp_path / "pictures", tmp_path / "shards", options, workers=1, progress=False)
    run = tmp_path / "encoder.safetensors"
    export(small(), run, origin={"images_seen": 0, "weights": "raw"})
    command = ["evaluate", str(run), "--device", "cpu", "--data", str(tmp_path / "shards"), "--split", "train"]
    sheet = tmp_path / "sheet.png"
    assert main([*command, "--metrics", "retrieval", "neighbours", "--sheet", str(sheet)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["retrieval"] == found["raw_retrieval"] == found["retrieval_mrr"] == 1
    assert 0 <= found["neighbours"] <= 1
    assert found["settings"]["neighbours"] == {"k": 5, "pictures": found["samples"]}
    assert sheet.exists()
    assert main([*command, "--metrics", "fid"]) != 0
    assert "fid cannot be measured of a StyleEncoder; choose from retrieval, neighbours" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"smallest_crop": 0.8, "largest_crop": 0.5}, "0 < smallest <= largest <= 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StyleEncoder(**options)


def test_one_picture_has_no_other_to_be_told_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set data.global_batch_size to 2 or more"):
        bare_trainer(tmp_path).fit(small(micro_batches=COUNT), Rows(0, 1))
