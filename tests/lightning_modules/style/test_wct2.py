"""WCT2's training and use: what it learns, that it goes on exactly, and what a user sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.assets.fetching import fetch
from gesso.cli.main import main
from gesso.common.pixels import to_uint8
from lightning_modules.kinds.stylizer import Style
from lightning_modules.networks.wct2 import WaveletDecoderOptions
from lightning_modules.style.wct2 import WCT2, Target, WCT2Transfer
from tests.launch.identity import whole_run
from tests.pictures import photographs, style_folder

pytestmark = pytest.mark.network


def made(**options: Any) -> WCT2:
    torch.manual_seed(0)
    module = WCT2(resolution=32, **options)
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    return module


def test_losses_are_those_of_their_formulas() -> None:
    module = made(pixel_weight=2.0, feature_weight=3.0)
    pictures = photographs(32)
    batch = {"image": pictures[:1], "style": pictures[1:2]}
    found = module.losses(batch)
    encoder, images = module.wavelet_encoder(), pictures[:2]
    levels, skips = encoder(images)
    picture = module.decoder(levels[-1], skips)
    pixel = ((picture - images) / 2).square().mean()
    shares = [
        ((ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)).square().mean()
        for ours, theirs in zip(encoder(picture)[0], levels, strict=True)
    ]
    torch.testing.assert_close(found["pixel"], pixel)
    torch.testing.assert_close(found["feature"], sum(shares) / 4, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["loss"], 2 * pixel + 3 * sum(shares) / 4, rtol=1e-4, atol=1e-4)
    found["loss"].backward()
    assert all(parameter.grad is not None for parameter in module.decoder.parameters())
    assert not any(name.startswith("encoder") for name in module.state_dict())


def test_micro_batches_and_checkpointing_change_no_gradient() -> None:
    pictures = photographs(32)
    whole: dict[str, Tensor] = {"image": pictures[:2], "style": pictures[1:]}

    def gradients(module: WCT2, batches: list[dict[str, Tensor]]) -> list[Tensor]:
        for batch in batches:
            (module.losses(batch)["loss"] / len(batches)).backward()
        return [parameter.grad for parameter in module.decoder.parameters() if parameter.grad is not None]

    expected = gradients(made(), [whole])
    parts = [{name: images[n : n + 1] for name, images in whole.items()} for n in range(2)]
    found = gradients(made(decoder=WaveletDecoderOptions(gradient_checkpointing=True)), parts)
    for ours, wanted in zip(found, expected, strict=True):
        assert (ours - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_what_a_mask_covers_is_whitened_by_its_own_moments() -> None:
    content, style = photographs(32)[:1], photographs(32)[1:2]
    left = torch.zeros(1, 32, 32)
    left[..., :12] = 1
    module = made()
    method = WCT2Transfer(module.wavelet_encoder(), module.decoder, transfer_at=("encoder", "skip"))
    everywhere = torch.ones(1, 1, 1)
    with torch.no_grad():
        statistics = {place: [each[0]] for place, each in method.walk(style, everywhere, None, decode=False)[0].items()}
        covered = method.walk(content, torch.ones(1, 32, 32), None, Target(statistics, 0.0, left), decode=False)[0]
        expected = method.walk(content, left, None, decode=False)[0]
    assert covered.keys() == expected.keys()
    for place, (moments,) in expected.items():
        torch.testing.assert_close(covered[place][0].mean, moments.mean, rtol=1e-4, atol=1e-4)


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="transfer_at is empty"):
        WCT2(resolution=32, transfer_at=())
    with pytest.raises(ValueError, match="pixel_weight is -1"):
        WCT2(resolution=32, pixel_weight=-1.0)
    content = photographs(32)[:1]
    for regions, message in [
        ([torch.ones(32, 31)], "31 x 32 pixels, its picture 32 x 32"),
        ([torch.zeros(32, 32)], "black all over"),
        ([torch.ones(32, 32)] * 2, "2 masks of styles for 1 styles"),
    ]:
        with pytest.raises(ValueError, match=message):
            made().stylize(content, Style([content], regions=regions))


def arguments(root: Path, *more: str) -> list[str]:
    return [
        *("fit", "--config=wct2", "--data.path=shards", "--data.style_path=shards", f"--run.root={root}"),
        *("--data.global_batch_size=2", "--data.size=32", "--model.resolution=32", "--model.decoder.unpooling=sum"),
        *("--run.kimg=0.004", "--run.log_every_kimg=0.002", "--run.wandb=disabled", "--trainer.accelerator=cpu"),
        *("--trainer.precision=32-true", "--evaluation.every_kimg=1", "--previews.every_kimg=1"),
        *("--checkpoints.every_kimg=0.002", "--evaluation.num_samples=10", *more),
    ]


@pytest.mark.slow
def test_a_run_resumes_exactly_and_stylises_by_regions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GESSO_RUN", raising=False)
    monkeypatch.chdir(style_folder(tmp_path))
    whole = whole_run(arguments, tmp_path, kimg=0.004)
    rows = [line.split(",") for line in whole.metrics.read_text().splitlines()]
    for name in ("loss/decoder/pixel", "loss/decoder/feature_weighted", "val/loss"):
        assert [row for row in rows if row[2] == name], name

    size = Image.open("photo.png").size
    for name, colors in (("left", (255, 0)), ("right", (0, 255))):
        mask = Image.new("L", size, colors[1])
        mask.paste(colors[0], (0, 0, size[0] // 2, size[1]))
        mask.save(f"{name}.png")
    Image.fromarray(to_uint8(photographs(64))[1].permute(1, 2, 0).numpy()).save("other.png")
    Image.new("L", (64, 64), 255).save("all.png")
    command = ["stylize", "photo.png", "--style", "other.png", "wheat.png", "--run", str(whole.path)]
    masks = ["--mask", "left.png", "right.png"]
    assert main([*command, *masks, "--style-mask", "all.png", "all.png", "--out", "one.png"]) == 0
    assert main([*command, *masks, "--out", "two.png"]) == 0
    assert Image.open("one.png").size == size
    assert Image.open("one.png").tobytes() == Image.open("two.png").tobytes()
    capsys.readouterr()
    assert main([*command, "--style-mask", "left.png"]) == 2
    assert "style-mask" in capsys.readouterr().err
    assert main(["stylize", "photo.png", "--style", "photo.png", "--style-mask", "left.png"]) == 2
    assert "this method takes the style of whole pictures" in capsys.readouterr().err
