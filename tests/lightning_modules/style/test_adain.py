"""AdaIN's training: its losses against the published code's, two streams that resume exactly, and what comes out."""

from __future__ import annotations

import functools
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.assets.fetching import fetch
from datamodules.paired import ContentStyleData
from gesso.cli.main import main
from gesso.common.pixels import to_uint8
from lightning_modules.networks.adain import DecoderOptions
from lightning_modules.style.adain import STYLE_LAYERS, AdaIN
from tests.launch.identity import whole_run
from tests.pictures import paintings, photographs


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Shard sets of photographs (pieces of three) and of paintings, at 32 px."""
    root = tmp_path_factory.mktemp("pictures")
    pieces = photographs(192).unfold(2, 32, 32).unfold(3, 32, 32).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    for name, images in (("photographs", pieces), ("paintings", paintings(32, 40))):
        (root / name).mkdir()
        for number, image in enumerate(to_uint8(images)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / name / f"{number:03d}.png")
        command = ["shards", "build", str(root / name), str(root / f"{name}-set"), "--size", "32", "--format", "png"]
        assert main([*command, "--samples-per-shard", "16"]) == 0
    return root / "photographs-set", root / "paintings-set"


@pytest.mark.network
def test_losses_are_the_published_code_s() -> None:
    module = AdaIN(resolution=64, content_weight=2.0, style_weight=5.0)
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    batch = {"image": photographs(64)[:2], "style": paintings(64)}
    found = module.losses(batch)

    def statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.flatten(2).mean(2)[..., None, None], (x.flatten(2).var(2) + 1e-5).sqrt()[..., None, None]

    mse = torch.nn.MSELoss()
    style = module.encoder(batch["style"], STYLE_LAYERS)
    content = module.encoder(batch["image"], ("relu4_1",))["relu4_1"]
    (mean, std), (style_mean, style_std) = statistics(content), statistics(style["relu4_1"])
    t = (content - mean) / std * style_std + style_mean
    decoded = module.encoder(module.decoder(t), STYLE_LAYERS)
    loss_c = mse(decoded["relu4_1"], t)
    loss_s = sum(
        mse(ours, theirs)
        for name in STYLE_LAYERS
        for ours, theirs in zip(statistics(decoded[name]), statistics(style[name]), strict=True)
    )
    torch.testing.assert_close(found["content"], loss_c, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["style"], loss_s, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["loss"], 2 * loss_c + 5 * loss_s, rtol=1e-4, atol=1e-4)
    assert not any(name.startswith("encoder") for name in module.state_dict())


@pytest.mark.network
def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        module = AdaIN(resolution=32, decoder=DecoderOptions(gradient_checkpointing=on))
        module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
        module.losses({"image": photographs(32)[:2], "style": paintings(32)})["loss"].backward()
        gradients.append([p.grad for p in module.decoder.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.network
def test_both_streams_go_on_from_one_position(sets: tuple[Path, Path]) -> None:
    def batches(position: int, count: int) -> list[dict[str, Any]]:
        data = ContentStyleData(str(sets[0]), str(sets[1]), 4, workers=0)
        data.position = position
        return list(islice(iter(data.train_dataloader()), count))

    whole = batches(0, 30)
    for number in (1, 13, 29):
        (again,) = batches(4 * number, 1)
        for name in ("image", "style", "index"):
            np.testing.assert_array_equal(again[name], whole[number][name])
    pairs = {(batch["image"].numpy().tobytes(), batch["style"].numpy().tobytes()) for batch in whole}
    assert len(pairs) == 30


def arguments(sets: tuple[Path, Path], root: Path, *more: str) -> list[str]:
    return [
        *("fit", "--config=adain", f"--data.path={sets[0]}", f"--data.style_path={sets[1]}"),
        *("--data.global_batch_size=4", "--model.resolution=32", f"--run.root={root}", "--run.kimg=0.032"),
        *("--run.log_every_kimg=0.008", "--run.wandb=disabled", "--trainer.accelerator=cpu"),
        *("--trainer.precision=32-true", "--evaluation.every_kimg=0.016", "--previews.every_kimg=0.016"),
        *("--checkpoints.every_kimg=0.016", "--model.lr=0.001", "--evaluation.num_samples=10", *more),
    ]


@pytest.mark.slow
def test_a_run_learns_resumes_exactly_and_stylises(
    sets: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GESSO_RUN", raising=False)
    whole = whole_run(functools.partial(arguments, sets), tmp_path, kimg=0.032)
    rows = [line.split(",") for line in whole.metrics.read_text().splitlines()]
    for name in ("loss/decoder/content", "loss/decoder/style", "loss/decoder/style_weighted", "val/style"):
        assert [row for row in rows if row[2] == name], name
    assert sorted(path.name for path in whole.samples.iterdir()) == ["000000000016.png", "000000000032.png"]

    monkeypatch.chdir(tmp_path)
    Image.fromarray(to_uint8(photographs(40))[0].permute(1, 2, 0).numpy()).save("photo.png")
    Image.fromarray(to_uint8(paintings(40))[0].permute(1, 2, 0).numpy()).save("painting.png")
    assert main(["stylize", "photo.png", "--style", "painting.png", "--run", str(whole.path)]) == 0
    assert Image.open("photo-stylized.png").size == (40, 40)
