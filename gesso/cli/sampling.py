"""Options of the commands that make samples: a diffusion model's sampler, steps and guidance; StyleGAN's truncation."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_modules.core.family import ImageFamily


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options; each is the recipe's own where it is left out."""
    group = parser.add_argument_group(
        "diffusion models and flows", "how samples are made, instead of as the recipe has it"
    )
    group.add_argument(
        "--sampler",
        metavar="NAME",
        help="heun, euler (ddim), dpmpp-2m, dpmpp-2s, edm-stochastic, ddpm; consistency of ECT, flow-map of MeanFlow",
    )
    group.add_argument("--steps", type=int, metavar="N", help="from noise to picture")
    group.add_argument("--guidance", type=float, metavar="G", help="towards the class (classifier-free); 1: none")
    group.add_argument(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="guided only at noise levels sigma between these",
    )
    group = parser.add_argument_group("StyleGAN, BigGAN")
    group.add_argument("--truncation", type=float, metavar="PSI", help="1: none; less: fewer kinds, better pictures")
    group.add_argument("--truncation-cutoff", type=int, metavar="N", help="of the first N layers alone (StyleGAN)")


def changes(arguments: argparse.Namespace) -> dict[str, object]:
    """What the command asks for, by the names that ``Abilities.sample_with`` takes."""
    given = {name: getattr(arguments, name) for name in ("sampler", "steps", "guidance", "truncation_cutoff")}
    given["truncation_psi"] = arguments.truncation
    found = {name: value for name, value in given.items() if value is not None}
    if arguments.guidance_interval is not None:
        found["guidance_from"], found["guidance_to"] = arguments.guidance_interval
    return found


def label(module: ImageFamily, number: int | None) -> Tensor | None:
    """The class that ``--label`` names, int64 [1]; None: none was named.

    Raises:
        ValueError: the model has no such class.
    """
    if number is None:
        return None
    import torch

    classes = module.batch_spec().num_classes
    if not 0 <= number < classes:
        raise ValueError(f"--label {number}: the model has {classes or 'no'} classes")
    return torch.tensor([number])


def described(origin: dict[str, Any]) -> str:
    """Where weights come from, in words: ``averaged weights at 12.0 kimg, RUN``; see ``loading.load_family``."""
    weights = "averaged" if origin["average"] else "raw"
    return f"{weights} weights at {origin['images_seen'] / 1000:.1f} kimg, {origin['path']}"
