"""CAP-VSTNet: the terms of its training, exact resumption, and that a transfer changes nothing but colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.assets.fetching import fetch
from gesso.cli.main import main
from lightning_modules.kinds.stylizer import Style
from lightning_modules.losses.matting import matting_laplacian_loss
from lightning_modules.losses.temporal import TemporalOptions
from lightning_modules.losses.whitening import Moments, cholesky_transfer
from lightning_modules.networks.cap_vst import Mode, ReversibleOptions
from lightning_modules.style.cap_vst import CAPVST, STYLE_LAYERS
from tests.launch.identity import whole_run
from tests.pictures import photographs, style_folder

pytestmark = pytest.mark.network


def made(mode: Mode = "photo", **options: Any) -> CAPVST:
    torch.manual_seed(0)
    network = ReversibleOptions(mode, width=4, blocks=2, **options.pop("network", {}))
    module = CAPVST(resolution=32, network=network, **options)
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    return module


def test_terms_are_those_of_the_authors_formulas() -> None:
    module = made(style_weight=2.0, content_weight=3.0, laplacian_weight=4.0, cycle_weight=5.0)
    pictures = photographs(32)
    batch = {"image": pictures[:2], "style": pictures[1:]}
    found = module.losses(batch)

    def transfer(content: Tensor, style: Tensor) -> Tensor:
        features, theirs = module.network(content), module.network(style)
        return module.network.inverse(cholesky_transfer(Moments.of(features), Moments.of(theirs))(features), (32, 32))

    result = transfer(*batch.values())
    ours, theirs, content = (module.encoder(x, STYLE_LAYERS) for x in (result, batch["style"], batch["image"]))
    style = sum(
        (ours[n].mean((2, 3)) - theirs[n].mean((2, 3))).square().mean()
        + ((ours[n].var((2, 3)) + 1e-5).sqrt() - (theirs[n].var((2, 3)) + 1e-5).sqrt()).square().mean()
        for n in STYLE_LAYERS
    )
    expected = {
        "style": style,
        "content": (ours["relu4_1"] - content["relu4_1"]).square().mean(),
        "laplacian": matting_laplacian_loss(result, batch["image"]),
        "cycle": (transfer(result, batch["image"]) - batch["image"]).abs().mean() / 2,
    }
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)
    weighted = 2 * found["style"] + 3 * found["content"] + 4 * found["laplacian"] + 5 * found["cycle"]
    torch.testing.assert_close(found["loss"], weighted)
    found["loss"].backward()
    gradients = [parameter.grad for parameter in module.network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_micro_batches_and_checkpointing_change_no_gradient() -> None:
    pictures = photographs(32)
    whole: dict[str, Tensor] = {"image": pictures[:2], "style": pictures[1:]}

    def gradients(module: CAPVST, batches: list[dict[str, Tensor]]) -> list[Tensor]:
        for batch in batches:
            (module.losses(batch)["loss"] / len(batches)).backward()
        return [parameter.grad for parameter in module.network.parameters() if parameter.grad is not None]

    expected = gradients(made().double(), [whole])
    parts = [{name: images[n : n + 1] for name, images in whole.items()} for n in range(2)]
    found = gradients(made(network={"gradient_checkpointing": True}).double(), parts)
    for ours, wanted in zip(found, expected, strict=True):
        assert (ours - wanted).abs().max() <= 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("mode", ["photo", "art"])
def test_controls_of_a_transfer(mode: Mode) -> None:
    module, (content, style, other) = made(mode), photographs(61)[..., :45].split(1)
    whole = module.stylize(content, Style([style]))
    assert whole.shape == content.shape
    torch.testing.assert_close(module.stylize(content, Style([style]), tile=16), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(module.stylize(content, Style([style], alpha=0.0)), content, rtol=0, atol=1e-5)
    torch.testing.assert_close(module.stylize(content, Style([content])), content, rtol=0, atol=1e-4)
    labelled = Style([style], masks=torch.ones(1, 61, 45), regions=[torch.ones(61, 45)])
    torch.testing.assert_close(module.stylize(content, labelled), whole, rtol=0, atol=1e-5)
    left = torch.zeros(61, 45)
    left[:, :20] = 1
    parted = module.stylize(content, Style([style, other], masks=torch.stack([left, 1 - left])))
    assert (parted - whole).abs().mean() > 0.01


def test_what_a_mask_covers_is_whitened_by_its_own_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    module, (content, style, other) = made(), photographs(61)[..., :45].split(1)
    left = torch.zeros(61, 45)
    left[:, :20] = 1
    seen: list[Tensor] = []
    monkeypatch.setattr(module.network, "inverse", lambda features, size, tile: seen.append(features) or content)
    module.stylize(content, Style([style], masks=left[None]))
    module.stylize(content, Style([style, other], masks=torch.stack([left, 1 - left])))
    columns = seen[0].shape[3] // 3
    torch.testing.assert_close(seen[0][..., :columns], seen[1][..., :columns])


def test_a_still_picture_is_consistent() -> None:
    still = TemporalOptions(shift=0.0, bend=0.0, noise=0.0)
    module, pictures = made(temporal_weight=7.0, temporal=still), photographs(32)
    found = module.losses({"image": pictures[:2], "style": pictures[1:]})
    assert found["temporal"].item() == pytest.approx(0, abs=1e-10)


def test_weights_below_0_are_refused() -> None:
    with pytest.raises(ValueError, match="cycle_weight is -1"):
        CAPVST(resolution=32, cycle_weight=-1.0)


def arguments(root: Path, *more: str) -> list[str]:
    return [
        *("fit", "--config=cap-vst", "--data.path=shards", "--data.style_path=shards", f"--run.root={root}"),
        *("--data.global_batch_size=2", "--data.size=32", "--model.resolution=32", "--model.network.width=4"),
        *("--model.network.blocks=1", "--run.kimg=0.004", "--run.log_every_kimg=0.002", "--run.wandb=disabled"),
        *("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--evaluation.every_kimg=1"),
        *("--previews.every_kimg=0.004", "--checkpoints.every_kimg=0.002", "--evaluation.num_samples=10", *more),
    ]


@pytest.mark.slow
def test_a_run_resumes_exactly_and_stylises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GESSO_RUN", raising=False)
    monkeypatch.chdir(style_folder(tmp_path))
    whole = whole_run(arguments, tmp_path, kimg=0.004)
    rows = [line.split(",") for line in whole.metrics.read_text().splitlines()]
    for name in ("loss/network/style", "loss/network/laplacian", "loss/network/cycle_weighted", "val/style"):
        assert [row for row in rows if row[2] == name], name
    size = Image.open("photo.png").size
    assert main(["stylize", "photo.png", "--style", "wheat.png", "--run", str(whole.path)]) == 0
    assert Image.open("photo-stylized.png").size == size
