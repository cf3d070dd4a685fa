"""LPIPS against torchmetrics' own, whose heads are bundled with it; the convolutions are the fetched ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchmetrics.functional.image import lpips as reference_module

from datamodules.assets.fetching import fetch
from gesso.common.pickles import load_arrays
from lightning_modules.networks.lpips import LPIPS, LPIPSName
from tests.pictures import paintings, photographs

NAMES: tuple[LPIPSName, ...] = ("vgg16", "alexnet")


def torchmetrics_lpips(name: LPIPSName, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """torchmetrics' network around torchvision's, which gets the asset's weights."""
    file = fetch(f"{name}_lpips", progress=False)
    backbone = load_arrays(file.read_bytes())[{"vgg16": "VGG16_0", "alexnet": "AlexNet_0"}[name]]
    features = getattr(torchvision.models, name)(weights=None).features
    convolutions = [module for module in features if isinstance(module, nn.Conv2d)]
    for number, convolution in enumerate(convolutions):
        kernel, bias = (torch.from_numpy(backbone[f"Conv_{number}"][key]) for key in ("kernel", "bias"))
        convolution.load_state_dict({"weight": torch.einsum("hwio->oihw", kernel), "bias": bias})
    monkeypatch.setattr(reference_module, "_get_tv_model_features", lambda *_: features)
    return reference_module._LPIPS(net="vgg" if name == "vgg16" else "alex")


def pairs(side: int) -> tuple[Tensor, Tensor]:
    """A photograph blurred, two others against paintings."""
    images = photographs(side)
    blurred = nn.functional.avg_pool2d(images[:1], 5, stride=1, padding=2)
    return images, torch.cat([blurred, paintings(side)])


@pytest.fixture(scope="module")
def vgg16() -> LPIPS:
    return LPIPS(fetch("vgg16_lpips", progress=False))


@pytest.mark.network
@pytest.mark.parametrize("name", NAMES)
def test_it_is_torchmetrics(name: LPIPSName, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = torchmetrics_lpips(name, monkeypatch)
    ours = LPIPS(fetch(f"{name}_lpips", progress=False), name)
    images, target = pairs(96)
    for rows, columns in ((96, 96), (77, 61)):  # odd sides
        a, b = images[:, :, :rows, :columns], target[:, :, :rows, :columns]
        distance = ours(a, b)
        assert distance.shape == (3,)
        assert distance.min() > 0.1
        torch.testing.assert_close(distance, reference(a, b).flatten(), atol=1e-5, rtol=0)
    assert torch.equal(ours(images, images), torch.zeros(3))


@pytest.mark.network
def test_gradients_are_torchmetrics_and_lead_down(vgg16: LPIPS, monkeypatch: pytest.MonkeyPatch) -> None:
    images, target = pairs(48)
    images.requires_grad_()
    reference = torchmetrics_lpips("vgg16", monkeypatch)
    (expected,) = torch.autograd.grad(reference(images, target).sum(), images)
    (gradient,) = torch.autograd.grad(vgg16(images, target).sum(), images)
    # Rounding moves single activations across the ReLU's kink.
    assert (gradient - expected).norm() < 0.01 * expected.norm()
    with torch.no_grad():
        before = vgg16(images, target)
        after = vgg16(images - 2.0 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1), target)
    assert (after < before - 0.01).all()


@pytest.mark.network
def test_equal_and_black_pictures_have_finite_gradients(vgg16: LPIPS) -> None:
    for images in (photographs(32), torch.full((2, 3, 32, 32), -1.0)):
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(vgg16(images, images.detach()).sum(), images)
        assert gradient.isfinite().all()
    assert not any(parameter.requires_grad for parameter in vgg16.parameters())


@pytest.mark.network
def test_autocast_ends_in_float32(vgg16: LPIPS) -> None:
    images, target = pairs(32)
    with torch.autocast("cpu", torch.bfloat16):
        distance = vgg16(images, target)
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, vgg16(images, target), atol=0.005, rtol=0)


@pytest.mark.network
def test_sizes_that_do_not_fit_are_refused(vgg16: LPIPS) -> None:
    assert vgg16(torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)).isfinite().all()
    with pytest.raises(ValueError, match=r"\(vgg16\) .* sides of 16 pixels"):
        vgg16(torch.zeros(1, 3, 15, 16), torch.zeros(1, 3, 15, 16))
    with pytest.raises(ValueError, match="of one shape"):
        vgg16(torch.zeros(2, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    alexnet = LPIPS(fetch("alexnet_lpips", progress=False), "alexnet")
    assert alexnet(torch.zeros(1, 3, 31, 31), torch.ones(1, 3, 31, 31)).isfinite().all()
    with pytest.raises(ValueError, match=r"\(alexnet\) .* sides of 31 pixels"):
        alexnet(torch.zeros(1, 3, 31, 30), torch.zeros(1, 3, 31, 30))


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


@pytest.mark.network
def test_foreign_files_are_named_and_run_no_code(tmp_path: Path) -> None:
    file, target = tmp_path / "weights.ckpt", tmp_path / "owned"
    whole = fetch("vgg16_lpips", progress=False)
    small = pickle.dumps({"VGG16_0": {"Conv_0": {"kernel": np.zeros((1, 1, 1, 1), np.float32), "bias": np.zeros(1)}}})
    for content in (pickle.dumps({"VGG16_0": _Attack(target)}), small, b"", whole.read_bytes()[:5000]):
        file.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"weights.ckpt: not the LPIPS weights of vgg16; .*`gesso fetch vgg16_lpips"
        ):
            LPIPS(file)
    assert not target.exists()
    with pytest.raises(ValueError, match="of alexnet; delete it and run `gesso fetch alexnet_lpips`"):
        LPIPS(whole, "alexnet")
    with pytest.raises(ValueError, match="no network 'squeeze'"):
        LPIPS(whole, "squeeze")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        LPIPS(tmp_path / "none.ckpt")
