"""Style transfer against the structures of its public implementations.

    python -m tests.benchmarks.bench_style            # gatys, adain, fast_style, frames; about 25 minutes on two cores
    python -m tests.benchmarks.bench_style gatys      # one of them

- ``gatys``: one evaluation of loss and gradient at 512 px, against the neural style tutorial's structure and a plain
  function of the same losses; then both to the end with the same L-BFGS, and their final losses in fp32;
- ``adain``, ``fast_style``: training steps at 256 px, batch 4;
- ``frames``: pictures per second of a trained network at 256 px, and at 1080p on a GPU.

Contestants take turns (A B A B); a ratio is the median over the rounds of two times in the same round.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from datamodules.assets.fetching import fetch
from launch.runs.machine import processor
from lightning_modules.kinds.stylizer import Style
from lightning_modules.losses.perceptual import content_loss, total_variation
from lightning_modules.losses.style import gram
from lightning_modules.networks.fast_style import FastStyleOptions
from lightning_modules.networks.vgg import VGG19
from lightning_modules.style.adain import AdaIN
from lightning_modules.style.fast_style import FastStyle
from lightning_modules.style.gatys import StyleOptimization
from lightning_modules.style.picture_loss import CONTENT_LAYER, STYLE_LAYERS, PictureLoss
from tests.benchmarks.style_rivals import CommonAdaIN, CommonFastStyle, TutorialGatys
from tests.pictures import paintings, photographs

RESULTS = Path(__file__).parent / "results" / "style.json"
WEIGHTS = {"content_weight": 1.0, "style_weight": 100.0, "tv_weight": 0.1}
#: At least so many times faster than the public structure: in fp32, and in bf16 against its fp32.
#: A processor that computes bf16 in software takes ten times as long: there is nothing to learn from it.
PRECISIONS = ("fp32", "bf16") if torch.cpu._is_avx512_bf16_supported() else ("fp32",)
GOALS = {"gatys": (1.2, 2.3), "adain": (1.1, 1.9), "fast_style": (1.1, 1.9)}


def turns(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each round, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, function in contestants.items():
            start = time.perf_counter()
            function()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: dict[str, list[float]], rival: str) -> dict[str, Any]:
    """Medians, and how many times slower the rival is than each, round by round."""
    ratios = {
        name: median(theirs / ours for theirs, ours in zip(seconds[rival], times, strict=True))
        for name, times in seconds.items()
        if name != rival
    }
    return {"seconds": {name: median(times) for name, times in seconds.items()}, f"{rival} over": ratios}


def gatys(rounds: int, side: int, iterations: int) -> dict[str, Any]:
    """An evaluation of loss and gradient, and the pictures that L-BFGS finds with it."""
    content, style = photographs(side)[:1], paintings(side)[:1]
    encoder = VGG19(fetch("vgg19_normalized"))
    share = Style([style]).shares(content, 1)
    half = VGG19(fetch("vgg19_normalized")).to(torch.bfloat16)
    ours = {
        name: PictureLoss(encoder if name == "fp32" else half, content, [style], share, **WEIGHTS)
        for name in PRECISIONS
    }
    tutorial = TutorialGatys(
        encoder, content, style, content_layer=CONTENT_LAYER, style_layers=tuple(STYLE_LAYERS), **WEIGHTS
    )
    plain = plain_loss(encoder, content, style)
    picture = content.clone()
    seconds = turns(
        {
            "tutorial": lambda: gradient_of(tutorial.loss, picture),
            "plain": lambda: gradient_of(plain, picture),
            **{name: lambda loss=loss: loss.with_gradient(picture) for name, loss in ours.items()},  # type: ignore[misc]
        },
        rounds,
    )
    finals = {}
    for name in ("tutorial", *PRECISIONS):
        start = time.perf_counter()
        if name == "tutorial":
            found = minimised(tutorial.loss, content, iterations)
        else:
            method = StyleOptimization(encoder if name == "fp32" else half, steps=iterations, smallest=side)
            found = method.stylize(content, Style([style]))
        took = time.perf_counter() - start
        finals[name] = {"seconds": took, "loss": float(ours["fp32"].with_gradient(found)[0])}
    return {"side": side, **summary(seconds, "tutorial"), "iterations": iterations, "finals": finals}


def plain_loss(encoder: VGG19, content: Tensor, style: Tensor) -> Callable[[Tensor], Tensor]:
    """The same losses as a plain function of our networks and losses."""
    with torch.no_grad():
        target = encoder(content, (CONTENT_LAYER,))[CONTENT_LAYER]
        grams = {name: gram(features) for name, features in encoder(style, tuple(STYLE_LAYERS)).items()}

    def loss(picture: Tensor) -> Tensor:
        features = encoder(picture, (*STYLE_LAYERS, CONTENT_LAYER))
        styles = torch.stack([(gram(features[name]) - grams[name]).square().mean() for name in STYLE_LAYERS])
        value = WEIGHTS["content_weight"] * content_loss(features[CONTENT_LAYER], target)
        return value + WEIGHTS["style_weight"] * styles.mean() + WEIGHTS["tv_weight"] * total_variation(picture)

    return loss


def gradient_of(loss: Callable[[Tensor], Tensor], picture: Tensor) -> Tensor:
    pixels = picture.detach().requires_grad_()
    loss(pixels).backward()
    assert pixels.grad is not None
    return pixels.grad


def minimised(loss: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Tensor:
    """The picture that the same L-BFGS finds."""
    pixels = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [pixels], max_iter=iterations, max_eval=2 * iterations, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(pixels)
        value.backward()
        return value

    optimizer.step(closure)
    return pixels.detach().clamp(-1, 1)


def trained(family: AdaIN | FastStyle, precision: str) -> Callable[[dict[str, Tensor]], None]:
    """A training step as the base class makes it, without a Trainer (`bench_step` measures what that adds)."""
    (optimizer,) = family.configure_optimizers()

    def step(batch: dict[str, Tensor]) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = family.losses(batch)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def adain(rounds: int, side: int, batch: int) -> dict[str, Any]:
    """AdaIN's training step."""
    images, styles = photographs(side).repeat(2, 1, 1, 1)[:batch], paintings(side, batch)
    batch_of = {"image": images, "style": styles}
    batches = {name: x.contiguous(memory_format=torch.channels_last) for name, x in batch_of.items()}
    common = CommonAdaIN(VGG19(fetch("vgg19_normalized")))
    steps = {precision: trained(_adain(), precision) for precision in PRECISIONS}
    seconds = turns(
        {
            "common": lambda: common.step(images, styles),
            **{name: lambda step=step: step(batches) for name, step in steps.items()},  # type: ignore[misc]
        },
        rounds,
    )
    return {"side": side, "batch": batch, **summary(seconds, "common")}


def _adain() -> AdaIN:
    family = AdaIN()
    family.take_weights("vgg19_normalized", fetch("vgg19_normalized"))
    return family


def fast_style(rounds: int, side: int, batch: int) -> dict[str, Any]:
    """FastStyle's training step."""
    images, style = photographs(side).repeat(2, 1, 1, 1)[:batch], paintings(side)[:1]
    channels_last = {"image": images.contiguous(memory_format=torch.channels_last)}
    common = CommonFastStyle(VGG19(fetch("vgg19_normalized")), style, batch)
    steps = {precision: trained(_fast_style(style, side), precision) for precision in PRECISIONS}
    seconds = turns(
        {
            "common": lambda: common.step(images),
            **{name: lambda step=step: step(channels_last) for name, step in steps.items()},  # type: ignore[misc]
        },
        rounds,
    )
    return {"side": side, "batch": batch, **summary(seconds, "common")}


def _fast_style(style: Tensor, side: int, **options: Any) -> FastStyle:
    family = FastStyle(styles=["painting"], style_size=side, **options)
    family.take_weights("vgg19_normalized", fetch("vgg19_normalized"))
    family.take_pictures("styles", [style])
    return family


def frames(rounds: int, side: int) -> dict[str, Any]:
    """Pictures per second, by network and size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = {f"{side} x {side}": (side, side), **({"1920 x 1080": (1080, 1920)} if device.type == "cuda" else {})}
    result: dict[str, Any] = {}
    for kind in ("johnson", "light"):
        family = _fast_style(paintings(side)[:1], side, network=FastStyleOptions(kind)).to(device).requires_grad_(False)
        for name, (height, width) in sizes.items():
            picture = photographs(max(height, width))[:1, :, :height, :width].to(device)

            def run(family: FastStyle = family, picture: Tensor = picture) -> None:
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    family.stylize(picture, Style())
                if device.type == "cuda":
                    torch.cuda.synchronize()

            result[f"{kind} {name}"] = 1 / median(turns({"run": run}, 5 * rounds)["run"])
    return {"device": torch.cuda.get_device_name() if device.type == "cuda" else processor(), "fps": result}


def show(results: dict[str, Any]) -> None:
    """Prints the tables."""
    table = Table(title="Style transfer: times faster than the public structure in fp32")
    for column in ("", "fp32", "goal", "bf16", "goal"):
        table.add_column(column, justify="right")
    for name, goals in GOALS.items():
        if name in results:
            ratios = results[name]["tutorial over" if name == "gatys" else "common over"]
            cells = [f"{ratios[precision]:.2f}" if precision in ratios else "-" for precision in ("fp32", "bf16")]
            table.add_row(name, cells[0], str(goals[0]), cells[1], str(goals[1]))
    console = Console()
    console.print(table)
    for name in ("gatys", "frames"):
        if name in results:
            console.print_json(json.dumps({name: results[name]}))


def main() -> None:
    """Runs what was chosen, prints the tables and keeps the figures of the others."""
    parser = argparse.ArgumentParser(description="Style transfer against its public implementations' structures")
    parser.add_argument("what", nargs="*", choices=[[], *GOALS, "frames"], help="default: all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=512, help="of Gatys' picture; training steps are at 256 px")
    parser.add_argument("--iterations", type=int, default=60, help="of L-BFGS")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "gatys": lambda: gatys(options.rounds, options.side, options.iterations),
        "adain": lambda: adain(options.rounds, 256, options.batch),
        "fast_style": lambda: fast_style(options.rounds, 256, options.batch),
        "frames": lambda: frames(options.rounds, 256),
    }
    machine = {
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    known = json.loads(options.output.read_text()) if options.output.is_file() else {}
    for name in options.what or runs:
        print(f"{name} ...", flush=True)
        known[name] = {"machine": machine, **runs[name]()}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(known, indent=1) + "\n")
    show(known)
    print(f"figures: {options.output}")


if __name__ == "__main__":
    main()
