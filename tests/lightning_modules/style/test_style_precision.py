"""Training steps of the style families in fp16 and bf16 are those in fp32, within what 16 bits allow."""

from __future__ import annotations

import pytest
import torch

from datamodules.assets.fetching import fetch
from lightning_modules.kinds.stylizing import StyleFamily
from lightning_modules.style.adain import AdaIN
from lightning_modules.style.fast_style import FastStyle
from tests.pictures import paintings, photographs

SIDE = 48
#: Relative error of each loss, and least cosine of the gradients: bf16 has 8 bits, fp16 has 11.
TOLERANCES = {torch.bfloat16: (0.03, 0.98), torch.float16: (0.005, 0.999)}


def family(name: str) -> StyleFamily:
    torch.manual_seed(0)
    module: StyleFamily = AdaIN(resolution=SIDE) if name == "adain" else FastStyle(styles=["a"], resolution=SIDE)
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    for option in module.pictures():
        module.take_pictures(option, [paintings(64)[:1]])
    return module


def step(name: str, dtype: torch.dtype) -> tuple[dict[str, float], torch.Tensor]:
    """All losses, and the gradient of the whole network."""
    module = family(name)
    batch = {"image": photographs(SIDE)[:2], "style": paintings(SIDE)}
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        losses = module.losses(batch)
    assert all(value.dtype == torch.float32 for value in losses.values())
    losses["loss"].backward()
    gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return {key: value.item() for key, value in losses.items()}, torch.cat(gradients)


@pytest.mark.network
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("name", ["adain", "fast_style"])
def test_half_precision_agrees_with_single(name: str, dtype: torch.dtype) -> None:
    relative, cosine = TOLERANCES[dtype]
    (losses, gradient), (exact, wanted) = step(name, dtype), step(name, torch.float32)
    for key, value in exact.items():
        assert losses[key] == pytest.approx(value, rel=relative, abs=1e-4), key
    assert torch.cosine_similarity(gradient, wanted, dim=0) > cosine
