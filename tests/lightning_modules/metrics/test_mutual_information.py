"""MIG: of planted codes, against numpy's histograms, and by the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.building.build import build
from datamodules.building.options import BuildOptions
from gesso.cli.main import main
from launch.checkpoints.export import export
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.metrics.mutual_information import (
    FactorInformation,
    factors_of,
    mutual_information,
    mutual_information_gap,
)
from lightning_modules.networks.vae import AutoencoderOptions


def grid(*counts: int) -> Tensor:
    """All combinations of factors."""
    return torch.cartesian_prod(*(torch.arange(count) for count in counts))


def test_information_is_numpys() -> None:
    generator = torch.Generator().manual_seed(0)
    factors = torch.stack([torch.randint(count, (500,), generator=generator) for count in (3, 7)], 1)
    codes = torch.randn(500, 4, generator=generator)
    codes[:, :2] += factors
    information, entropies = mutual_information(codes, factors)
    for latent in range(4):
        edges = np.histogram_bin_edges(codes[:, latent].double().numpy(), 20)
        for factor, count in enumerate((3, 7)):
            joint, *_ = np.histogram2d(
                codes[:, latent].double().numpy(), factors[:, factor].numpy(), (edges, np.arange(count + 1) - 0.5)
            )
            p = joint / 500
            apart = p.sum(1, keepdims=True) * p.sum(0, keepdims=True)
            expected = (p[p > 0] * np.log(p[p > 0] / apart[p > 0])).sum()
            assert information[latent, factor].item() == pytest.approx(expected, abs=1e-12)
            share = p.sum(0)
            assert entropies[factor].item() == pytest.approx(-(share * np.log(share)).sum(), abs=1e-12)


def test_a_latent_of_its_own_for_each_factor_gives_one() -> None:
    factors = grid(3, 5, 4)
    codes = torch.stack([-2.0 * factors[:, 2], torch.zeros(60), 0.1 * factors[:, 0] + 7, factors[:, 1].float()], 1)
    assert mutual_information_gap(codes, factors) == pytest.approx(1, abs=1e-12)
    # A factor that is the same in all pictures says nothing.
    assert mutual_information_gap(codes, torch.cat([factors, torch.ones(60, 1).long()], 1)) == pytest.approx(1)


def test_more_values_than_bins_have_an_exact_gap() -> None:
    factor = torch.arange(40)[:, None]
    assert mutual_information_gap(factor.float(), factor) == pytest.approx(math.log(20) / math.log(40), abs=1e-12)


def test_entangled_and_unrelated_codes_give_nothing() -> None:
    factors = grid(16, 16)
    x, y = factors.float().T
    assert mutual_information_gap(torch.stack([x + y, x - y], 1), factors) == pytest.approx(0, abs=1e-12)
    assert mutual_information_gap(torch.stack([x, x, y, y], 1), factors) == pytest.approx(0, abs=1e-12)
    many = grid(16, 16, 40)[:, :2]
    noise = torch.randn(len(many), 6, generator=torch.Generator().manual_seed(0))
    assert mutual_information_gap(noise, many) < 0.01
    with pytest.raises(ValueError, match="no factor of these pictures varies"):
        mutual_information_gap(noise[:10], torch.zeros(10, 2).long())


def test_pictures_come_in_any_order() -> None:
    factors = grid(3, 4)
    codes = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)) + factors[:, :1]
    metric = FactorInformation(12, 3, ["shape", "x"])
    for rows in torch.randperm(12, generator=torch.Generator().manual_seed(1)).split(5):
        captions = [f"x={x} shape={shape}" for shape, x in factors[rows].tolist()]
        metric.update(codes[rows], captions, rows)
    assert metric.compute() == mutual_information_gap(codes, factors)


@pytest.mark.parametrize("caption", ["", "a red heart", "shape=heart", "shape=-1 x=0"])
def test_captions_without_factors_are_named(caption: str) -> None:
    with pytest.raises(ValueError, match="tells no factors: they are NAME=NUMBER"):
        factors_of(caption)


def test_captions_with_other_factors_are_named() -> None:
    with pytest.raises(ValueError, match="caption 'x=1' tells other factors than shape, x"):
        FactorInformation(2, 1, ["shape", "x"]).update(torch.zeros(1, 1), ["x=1"], torch.zeros(1).long())


def pictures(folder: Path, *, captions: bool) -> str:
    """A shard set of grey squares, whose brightness and width are their factors."""
    source = folder / "pictures"
    source.mkdir(parents=True)
    for brightness, width in grid(6, 5).tolist():
        pixels = np.zeros((32, 32), np.uint8)
        pixels[:, : 4 + 5 * width] = 50 + 40 * brightness
        Image.fromarray(pixels).save(source / f"{brightness}-{width}.png")
        if captions:
            (source / f"{brightness}-{width}.txt").write_text(f"brightness={brightness} width={width}")
    build(source, folder / "shards", BuildOptions(splits="50/50"), workers=1, progress=False)
    return str(folder / "shards")


@pytest.mark.process
def test_a_run_is_measured_by_its_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    module = VAE(resolution=32, channels=1, latent_dim=3, autoencoder=AutoencoderOptions(4))
    run = tmp_path / "vae.safetensors"
    export(module, run, origin={"images_seen": 0, "weights": "raw"})
    command = ["evaluate", str(run), "--device", "cpu", "--metrics", "mig", "--batch-size", "4"]
    assert main([*command, "--data", pictures(tmp_path / "with", captions=True), "--split", "train"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["mig"] < 1
    assert found["settings"]["mig"] == {"bins": 20, "pictures": found["samples"]}
    assert main([*command, "--data", pictures(tmp_path / "without", captions=False)]) != 0
    assert "mig needs pictures whose captions tell their factors" in capsys.readouterr().err
