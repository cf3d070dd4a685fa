"""`gesso project`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gesso.common.arguments import seed


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "project",
        help="find the latent of a picture, with a run of a StyleGAN",
        description="Optimises w until its picture looks like the given one (LPIPS), with StyleGAN2's schedule. `gesso "
        " edit RUN --from` edits what was found.",
    )
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="its largest centred square is taken")
    parser.add_argument("--run", dest="source", required=True, metavar="RUN", help="run, checkpoint or exported file")
    parser.add_argument("--plus", action="store_true", help="a w for each layer (W+): closer, but edits worse")
    parser.add_argument(
        "--own-noise",
        action="store_true",
        help="keep the generator's noise, for pictures that it made (default: noise is optimised, then given up)",
    )
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="of the optimizer (default 1000)")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="of the noise (default 0)")
    parser.add_argument("--label", type=int, metavar="C", help="begin with the mean of this class (conditional models)")
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.safetensors", help="the latent; its picture and a sheet lie beside it"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.steps < 1:
        raise ValueError("--steps must be 1 or more")
    import torch
    from rich.console import Console
    from rich.progress import Progress
    from torch import Tensor

    from gesso.cli import sampling
    from launch.inference.editing import read_to_edit
    from launch.inference.loading import load_family
    from launch.inference.pictures import check_free, image_grid, save_picture
    from launch.inference.projecting import project_picture
    from launch.inference.w_files import check_target, save_latents
    from launch.training.hardware import best_device
    from lightning_modules.latents.projection import ProjectionOptions

    out = arguments.out or Path(f"{arguments.picture.stem}-projected.safetensors")
    check_target(out)
    picture, sheet = out.with_suffix(".png"), out.with_name(f"{out.stem}-sheet.png")
    for file in (picture, sheet):
        if file.resolve() == arguments.picture.resolve():
            raise ValueError(f"{file}: is the picture itself, and would be replaced: give another --out")
        check_free(file)
    device = best_device(arguments.device)
    module, origin = load_family(arguments.source, average=not arguments.raw, device=device)
    module.require("w_space")
    target = read_to_edit(module, arguments.picture)
    label = sampling.label(module, arguments.label)
    options = ProjectionOptions(steps=arguments.steps, plus=arguments.plus, noise_maps=not arguments.own_noise)
    console = Console(stderr=True)
    # In a log it would leave an empty line beside an error's.
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("project", total=options.steps)

        def progress(done: int, distances: Tensor) -> None:
            bar.update(task, completed=done, description=f"project  LPIPS {float(distances):.3f}")

        found = project_picture(module, target, options, seed=arguments.seed, label=label, progress=progress)
    save_latents(found.ws, module.w_space(), sampling.described(origin), out)
    save_picture(image_grid(found.picture, padding=0, min_width=0), picture)
    save_picture(image_grid(torch.cat([target, found.picture]), columns=2), sheet)
    print(f"LPIPS {found.distance:.4f} between the picture and its projection ({sampling.described(origin)})")
    for file in (out, picture, sheet):
        print(file)
    return 0
