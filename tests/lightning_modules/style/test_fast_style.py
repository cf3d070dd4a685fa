"""FastStyle: its losses are the papers', styles mix, and one real painting is learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.assets.fetching import fetch
from gesso.cli.main import main
from launch.runs.folder import RunFolder
from lightning_modules.kinds.stylizer import Style
from lightning_modules.losses.style import gram
from lightning_modules.networks.fast_style import FastStyleOptions
from lightning_modules.networks.instance_norm import ConditionalInstanceNorm
from lightning_modules.style.fast_style import CONTENT_LAYER, DIRECTIONS, STYLE_LAYERS, FastStyle
from tests.launch.identity import assert_identical, training_state
from tests.pictures import paintings, photographs, style_folder


def family(count: int = 1, **options: object) -> FastStyle:
    torch.manual_seed(0)
    module = FastStyle(styles=[f"{n}.png" for n in range(count)], resolution=48, style_size=64, **options)  # type: ignore[arg-type]
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    module.take_pictures("styles", list(paintings(64).split(1))[:count])
    return module


@pytest.mark.network
def test_the_losses_are_the_papers() -> None:
    weights = {"content_weight": 2.0, "style_weight": 30.0, "tv_weight": 0.5, "layer_weights": (1.0, 0.5, 2.0, 1.0)}
    module = family(2, noise=0.0, **weights)
    images = photographs(48)[:2]
    found = module.losses({"image": images})
    pictures = module.network(images, torch.eye(2)[:, :, None, None])
    ours = module.encoder(pictures, STYLE_LAYERS)
    content = (ours[CONTENT_LAYER] - module.encoder(images, (CONTENT_LAYER,))[CONTENT_LAYER]).square().mean()
    style = torch.zeros(())
    for name, weight in zip(STYLE_LAYERS, (1.0, 0.5, 2.0, 1.0), strict=True):
        targets = [module.encoder(painting, (name,))[name][0].flatten(1) for painting in paintings(64).split(1)]
        for features, target in zip(ours[name], targets, strict=True):
            rows = features.flatten(1)
            wanted = target @ target.T / target.shape[1]
            difference = rows @ rows.T / rows.shape[1] - wanted
            style = style + weight * difference.square().sum() / wanted.square().sum() / 2 / 4
    tv = sum(pictures.diff(dim=dim).abs().mean() for dim in (2, 3))
    torch.testing.assert_close(found["content"], content, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["style"], style, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["tv"], tv)
    torch.testing.assert_close(found["loss"], 2 * content + 30 * style + 0.5 * tv, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(found["style_weighted"], 30 * found["style"])


@pytest.mark.network
def test_other_style_pictures_have_targets_of_their_own() -> None:
    module, other = family(style_adversarial_weight=1.0), family(style_adversarial_weight=1.0)
    module.style_targets()
    module.own_statistics()
    for each in (module, other):
        each.take_pictures("styles", [paintings(64)[:1].flip(1, 2)])
    assert torch.equal(module.own_statistics(), other.own_statistics())
    for name, expected in other.style_targets()[0].items():
        # Not those that were known of the pictures before.
        assert torch.equal(module.style_targets()[0][name], expected)


def test_the_still_noise_is_as_exact_as_the_pictures() -> None:
    module = FastStyle(styles=["0.png"], resolution=48)
    pictures = torch.zeros(1, 3, 48, 48)
    expected = module.still_noise(pictures)
    assert module.still_noise(pictures.bfloat16()).dtype == torch.bfloat16
    assert torch.equal(module.still_noise(pictures), expected)


@pytest.mark.network
def test_the_sliced_loss_is_the_mean_over_the_directions_distributions() -> None:
    module = family(2, noise=0.0, style_loss="sliced_wasserstein", layer_weights=(1.0, 0.0, 2.0, 0.0))
    images = photographs(48)[:2]
    found = module.losses({"image": images})["style"]
    pictures = module.network(images, torch.eye(2)[:, :, None, None])
    ours = module.encoder(pictures, STYLE_LAYERS)
    generator, wanted = torch.Generator().manual_seed(0), torch.zeros((), dtype=torch.float64)
    for name, weight in (("relu1_1", 1.0), ("relu3_1", 2.0)):
        directions = torch.randn(DIRECTIONS, ours[name].shape[1], generator=generator)
        torch.randperm(ours[name][0, 0].numel(), generator=generator)  # all places, in an order that does not count
        for features, painting in zip(ours[name], paintings(64).split(1), strict=False):
            theirs = module.encoder(painting, (name,))[name][0]
            off, scale = [], []
            for direction in directions / directions.norm(dim=1, keepdim=True):
                along, target = (torch.tensordot(direction, x, 1).flatten().sort().values for x in (features, theirs))
                places = np.linspace(0, len(target) - 1, len(along))
                quantiles = torch.from_numpy(np.interp(places, np.arange(len(target)), target.numpy()))
                off.append((along - quantiles).square().mean())
                scale.append(quantiles.square().mean())
            wanted = wanted + weight * sum(off) / sum(scale) / 2 / 4
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.network
def test_the_style_is_compared_at_several_scales() -> None:
    weights = {"style_loss": "gram", "layer_weights": (1.0, 0.0, 2.0, 0.0)}
    module = family(2, noise=0.0, style_scales=3, **weights)
    images = photographs(48)[:2]
    found = module.losses({"image": images})["style"]
    pictures, styles = module.network(images, torch.eye(2)[:, :, None, None]), paintings(64)
    wanted = torch.zeros(())
    for side in (1, 2, 4):

        def grams(of: torch.Tensor, side: int = side) -> list[torch.Tensor]:
            height, width = of.shape[2:]
            small = of.reshape(len(of), 3, height // side, side, width // side, side).mean((3, 5))
            features = module.encoder(small, ("relu1_1", "relu3_1"))
            return [torch.einsum("ncp,ndp->ncd", x, x) / x.shape[2] for x in (f.flatten(2) for f in features.values())]

        for weight, ours, theirs in zip((1.0, 2.0), grams(pictures), grams(styles), strict=True):
            apart = (ours - theirs).square().sum((1, 2)) / theirs.square().sum((1, 2))
            wanted = wanted + weight * apart.mean() / 4 / 3
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_one_style_is_plain_instance_norm() -> None:
    norm, x = ConditionalInstanceNorm(5), torch.randn(2, 5, 7, 6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    plain = torch.nn.functional.instance_norm(x, weight=norm.weight[0], bias=norm.bias[0])
    # Statistics are the encoder's: unbiased, so that a map of few places differs by that.
    scale = (x.var((2, 3), correction=0, keepdim=True) + 1e-5).sqrt() / (x.var((2, 3), keepdim=True) + 1e-5).sqrt()
    shift = norm.bias[0].view(1, 5, 1, 1)
    torch.testing.assert_close(norm(x, torch.ones(2, 1, 1, 1)), (plain - shift) * scale + shift, rtol=1e-4, atol=1e-4)


@pytest.mark.network
def test_styles_mix_and_go_where_masks_say() -> None:
    module = family(2)
    for norm in module.network.modules():
        if isinstance(norm, ConditionalInstanceNorm):
            torch.nn.init.normal_(norm.bias, std=0.5)
    content = photographs(61)[:1]
    one, two = (module.stylize(content, Style(weights=weights)) for weights in ([1, 0], [0, 1]))
    assert one.shape == content.shape
    half = module.stylize(content, Style())
    assert all((half - picture).abs().mean() > 0.01 for picture in (one, two))
    whole = torch.stack([torch.ones(61, 61), torch.zeros(61, 61)])
    torch.testing.assert_close(module.stylize(content, Style(masks=whole)), one, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(module.stylize(content, Style(weights=[1, 0], alpha=0)), content)
    with pytest.raises(ValueError, match=r"styles of its own \(0, 1\)"):
        module.stylize(content, Style([content]))
    with pytest.raises(ValueError, match="1 weights for 2 styles"):
        module.stylize(content, Style(weights=[1]))


@pytest.mark.network
def test_noise_makes_texture_where_there_is_nothing() -> None:
    grey = torch.zeros(1, 3, 64, 64)
    pictures = []
    for noise in (0.0, 0.1):
        module = family(noise=noise, noise_octaves=3)
        torch.nn.init.normal_(module.network.to_rgb.weight, std=0.1)
        pictures.append(module.stylize(grey, Style()))
        assert torch.equal(module.stylize(grey, Style()), pictures[-1])
    assert [picture.std((2, 3)).max().item() > 0.05 for picture in pictures] == [False, True]


@pytest.mark.network
def test_what_lies_beyond_white_is_cut_but_has_a_way_back() -> None:
    network = family().network
    torch.nn.init.constant_(network.colors.bias, 3.0)
    images, mix = photographs(48)[:1], torch.ones(1, 1, 1, 1)
    beyond = network(images, mix)
    assert 1 < beyond.max() < 1.5
    beyond.sum().backward()
    assert (network.colors.bias.grad > 0).all()
    assert network.eval()(images, mix).max() == 1


@pytest.mark.network
@pytest.mark.parametrize("size", [(1, 1), (3, 70), (5, 5), (33, 47)])
def test_pictures_of_any_size_keep_it(size: tuple[int, int]) -> None:
    picture = family().stylize(photographs(80)[:1, :, : size[0], : size[1]], Style())
    assert picture.shape[2:] == size
    assert picture.isfinite().all()


@pytest.mark.network
def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for on in (False, True):
        module = family(network=FastStyleOptions(gradient_checkpointing=on))
        module.losses({"image": photographs(48)[:2]})["loss"].backward()
        gradients.append([parameter.grad for parameter in module.network.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.network
def test_targets_of_a_style_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = family()
    (grams,) = module.style_targets()
    torch.testing.assert_close(grams["relu2_1"], gram(module.encoder(paintings(64)[:1], ("relu2_1",))["relu2_1"]))
    calls = []
    module.encoder.register_forward_hook(lambda *_: calls.append(1))
    module.losses({"image": photographs(48)[:1]})
    assert len(calls) == 2  # the content's and the picture's


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of photographs, two paintings and a photograph as files."""
    return style_folder(tmp_path_factory.mktemp("fast-style"))


@pytest.mark.slow
def test_a_run_is_measured_resumes_exactly_and_stylises(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GESSO_RUN", raising=False)
    monkeypatch.chdir(folder)
    arguments = [
        *("fit", "--config=fast-style", "--data.path=shards", "--model.styles=[wheat.png, water.png]"),
        *("--model.resolution=48", "--model.style_size=64", "--model.temporal_weight=10", "--data.global_batch_size=4"),
        *("--data.crop=center", "--run.kimg=0.024", "--run.log_every_kimg=0.008", "--run.wandb=disabled"),
        *("--trainer.accelerator=cpu", "--trainer.precision=32-true", "--evaluation.every_kimg=0.012"),
        *("--evaluation.num_samples=10", "--previews.every_kimg=0.012", "--checkpoints.every_kimg=0.012"),
    ]
    assert main([*arguments, f"--run.root={tmp_path / 'whole'}"]) == 0
    (whole,) = (RunFolder(path) for path in (tmp_path / "whole").iterdir())
    assert main([*arguments, f"--run.root={tmp_path / 'parts'}", "--run.kimg=0.012"]) == 0
    (parts,) = (RunFolder(path) for path in (tmp_path / "parts").iterdir())
    # From elsewhere: the config names the paintings where they are.
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--resume", str(parts.path), "--run.kimg=0.024"]) == 0
    assert_identical(training_state(parts.path), training_state(whole.path))
    rows = {line.split(",")[2] for line in whole.metrics.read_text().splitlines()}
    assert {"loss/network/temporal", "loss/network/style_weighted", "val/style", "lpips/vgg16", "gram_distance"} <= rows

    capsys.readouterr()
    sheet = ["--sheet", "sheet.png", "--num-samples", "3", "--metrics", "ssim", "statistics_distance"]
    assert main(["evaluate", str(whole.path), *sheet]) == 0
    assert '"statistics_distance"' in capsys.readouterr().out
    assert Image.open("sheet.png").size[0] >= 3 * 48
    assert main(["evaluate", str(whole.path), "--metrics", "fid"]) == 2
    assert "choose from lpips" in capsys.readouterr().err

    photo = str(folder / "photo.png")
    command = ["stylize", photo, "--run", str(whole.path)]
    assert main([*command, "--weights", "0", "1", "--out", "water.png"]) == 0
    assert Image.open("water.png").size == Image.open(photo).size
    assert main([*command, "--style", photo]) == 2
    assert "styles of its own (wheat, water)" in capsys.readouterr().err


@pytest.mark.network
def test_a_style_that_is_missing_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    command = ["fit", "--config=fast-style", "--data.path=shards", "--model.resolution=48", "--trainer.accelerator=cpu"]
    assert main(command) == 2
    assert "FastStyle needs a style picture" in capsys.readouterr().err
    assert main([*command, "--model.styles=[none.png]"]) == 2
    assert "none.png: no such picture" in capsys.readouterr().err
    assert not (folder / "runs").exists()
