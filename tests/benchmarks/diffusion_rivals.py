"""What `bench_diffusion` compares with: EDM's own code, diffusers' DDPM example and lucidrains' package.

None of them is a dependency: each comes from a folder that the command line names. Their training steps are those of
their training programs, with the optimizer, clipping and moving average that these have.
"""

from __future__ import annotations

import copy
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: Of all networks: channels of each level, and residual blocks at it; attention at 16 px.
WIDTH, MULTIPLIERS, BLOCKS, ATTENTION = 64, (1, 2, 2), 2, 16

Step = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Rival:
    """A rival's training step on images NCHW in [-1, 1], and its network's number of parameters."""

    step: Step
    parameters: int


def edm(checkout: Path, side: int) -> Rival:
    """NVlabs/edm: its loss, preconditioning and DDPM++, updated as `training_loop.py` does it.

    Args:
        checkout: of github.com/NVlabs/edm.
        side: of the images in pixels.
    """
    networks, losses = imported("training.networks", checkout), imported("training.loss", checkout)
    net = networks.EDMPrecond(
        side,
        3,
        model_type="SongUNet",
        model_channels=WIDTH,
        channel_mult=list(MULTIPLIERS),
        num_blocks=BLOCKS,
        attn_resolutions=[ATTENTION],
        dropout=0.0,
    )
    average = copy.deepcopy(net).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    loss_of = losses.EDMLoss()

    def step(images: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(net=net, images=images)
        loss.sum().mul(1 / len(images)).backward()
        for parameter in net.parameters():
            torch.nan_to_num(parameter.grad, nan=0, posinf=1e5, neginf=-1e5, out=parameter.grad)
        optimizer.step()
        for kept, now in zip(average.parameters(), net.parameters(), strict=True):
            kept.copy_(now.detach().lerp(kept, 0.999))

    return Rival(step, count(net))


def diffusers(site: Path, side: int, *, half: bool = False) -> Rival:
    """huggingface/diffusers: `examples/unconditional_image_generation`, without accelerate around it.

    Args:
        site: where diffusers is installed.
        side: of the images in pixels.
        half: in bf16 autocast.
    """
    library, training = imported("diffusers", site), imported("diffusers.training_utils", site)
    widths = [WIDTH * multiplier for multiplier in MULTIPLIERS]
    sides = [side >> level for level in range(len(widths))]
    kinds = ["Attn" if own == ATTENTION else "" for own in sides]
    model = library.UNet2DModel(
        sample_size=side,
        in_channels=3,
        out_channels=3,
        layers_per_block=BLOCKS,
        block_out_channels=widths,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
    )
    schedule = library.DDPMScheduler(num_train_timesteps=1000)
    average = training.EMAModel(model.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)

    def step(images: Tensor) -> float:
        noise = torch.randn(images.shape)
        times = torch.randint(0, 1000, (len(images),)).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = model(schedule.add_noise(images, noise, times), times).sample
        loss = F.mse_loss(output.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(model.parameters())
        return loss.detach().item()

    return Rival(step, count(model))


def lucidrains(site: Path, side: int, *, half: bool = False) -> Rival:
    """lucidrains/denoising-diffusion-pytorch: its Trainer's step, without accelerate around it.

    Args:
        site: where it is installed.
        side: of the images in pixels.
        half: in bf16 autocast.
    """
    library, averages = imported("denoising_diffusion_pytorch", site), imported("ema_pytorch", site)
    model = library.Unet(dim=WIDTH, dim_mults=MULTIPLIERS)
    diffusion = library.GaussianDiffusion(model, image_size=side, timesteps=1000)
    optimizer = torch.optim.Adam(diffusion.parameters(), lr=1e-4, betas=(0.9, 0.99))
    average = averages.EMA(diffusion, beta=0.995, update_every=10)

    def step(images: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = diffusion((images + 1) / 2)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(diffusion.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()
        return loss.item()

    return Rival(step, count(model))


def imported(name: str, folder: Path) -> Any:  # type: ignore[explicit-any] # a library that mypy does not see
    """A module of a folder, which comes after everything that is installed.

    Raises:
        FileNotFoundError: the folder has no such module.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise FileNotFoundError(f"{folder} has no {error.name}, which {name} needs: see bench_diffusion") from error


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
