"""Experts in AdaIN's decoder against dense networks of equal FLOPs, trained alike in minutes on one core.

    python -m tests.benchmarks.style_experts [--side 32] [--steps 120] [--batch 4] [--seeds 1]

Figures of quality, not of time: each network is trained from the same seeds on the same random crops of photographs
(scikit-image's and scikit-learn's) and of 140 paintings, and judged on crops of other photographs and of 34 other
paintings. Mutual information of expert and painting is that of the first choice and of which of all 174 paintings a
crop is from, in bits; beside it that of the gate before training, and what the trained one's choices give for paintings
in random order, which is what so few crops make out of nothing. Prints a table and keeps it in
``tests/benchmarks/results/style_experts.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from datamodules.assets.fetching import fetch
from lightning_modules.losses.style import mean_std
from lightning_modules.networks.adain import DecoderOptions
from lightning_modules.networks.experts import ExpertOptions
from lightning_modules.style.adain import LAYER, AdaIN, routed
from tests.benchmarks.watermark import photographs
from tests.pictures import paintings, picture

RESULTS = Path(__file__).parent / "results" / "style_experts.json"
PAINTINGS, HELD_OUT_PAINTINGS = 174, 34
#: Channels of the decoder's widest layer, and in the middle of an expert.
WIDTH, EXPERT_WIDTH = 128, 512
#: Crops of each painting for the mutual information.
CROPS = 4
#: Of pictures whose side is this many crops' sides long.
ROOM = 2


@dataclass(frozen=True)
class Contestant:
    """A decoder and its loss.

    Args:
        experts: its experts.
        balance_weight: see ``AdaIN``.
    """

    experts: ExpertOptions
    balance_weight: float = 0.01


ONE = ExpertOptions(4, 1, "style", EXPERT_WIDTH)
#: Groups of equal FLOPs, one behind the other.
CONTESTANTS = {
    "dense": Contestant(ExpertOptions(1, width=EXPERT_WIDTH)),
    "1 of 4, by style": Contestant(ONE),
    "1 of 4, by style, no balance loss": Contestant(ONE, 0.0),
    "1 of 4, by content": Contestant(replace(ONE, gate="content")),
    "dense, twice as wide": Contestant(ExpertOptions(1, width=2 * EXPERT_WIDTH)),
    "2 of 4, by style": Contestant(replace(ONE, chosen=2)),
}


def mutual_information(table: np.ndarray) -> float:
    """I(X; Y) in bits, out of counts of pairs [X, Y]."""
    joint = table / table.sum()
    apart = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((joint[joint > 0] * np.log2(joint[joint > 0] / apart[joint > 0])).sum())


def crops(pictures: Tensor, numbers: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A random crop of each of the pictures of these numbers: [N, 3, side, side]."""
    corners = torch.randint(pictures.shape[3] - side + 1, (len(numbers), 2), generator=generator).tolist()
    return torch.stack(
        [pictures[n, :, y : y + side, x : x + side] for n, (y, x) in zip(numbers.tolist(), corners, strict=True)]
    )


def contents(side: int) -> Tensor:
    """Squares of photographs, [20, 3, side, side] in [-1, 1]."""
    return torch.cat([picture(Image.fromarray(np.ascontiguousarray(square)), side) for square in photographs()])


def train(module: AdaIN, content: Tensor, style: Tensor, options: argparse.Namespace, seed: int) -> None:
    """Adam with 5e-4 and the recipe's loss weights, on random crops of both."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(module.decoder.parameters(), lr=5e-4)
    for _ in range(options.steps):
        numbers = [torch.randint(len(each), (options.batch,), generator=generator) for each in (content, style)]
        images, styles = (
            crops(each, n, options.side, generator) for each, n in zip((content, style), numbers, strict=True)
        )
        loss = module.losses({"image": images, "style": styles})["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.decoder.parameters(), 100.0)
        optimizer.step()


@torch.no_grad()
def held_out(module: AdaIN, content: Tensor, style: Tensor, side: int) -> dict[str, float]:
    """Mean losses of each painting with four photographs."""
    generator = torch.Generator().manual_seed(1)
    found: dict[str, list[float]] = {"style": [], "content": []}
    for number in range(len(style)):
        images = crops(content, torch.randint(len(content), (4,), generator=generator), side, generator)
        styles = crops(style, torch.full((4,), number), side, generator)
        losses = module.losses({"image": images, "style": styles})
        for name, values in found.items():
            values.append(losses[name].item())
    return {f"{name}_loss": float(np.mean(values)) for name, values in found.items()}


@torch.no_grad()
def choices(module: AdaIN, content: Tensor, style: Tensor, side: int) -> dict[str, float]:
    """How experts and paintings go together, and how many experts work."""
    if module.decoder.router is None or module.experts.count == 1:
        return {}
    generator = torch.Generator().manual_seed(2)
    numbers = torch.arange(len(style)).repeat_interleave(CROPS)
    counts = torch.zeros(module.experts.count, dtype=torch.long)
    first = []
    for part in numbers.split(64):
        images = crops(content, torch.randint(len(content), (len(part),), generator=generator), side, generator)
        seen = crops(style, part, side, generator) if module.experts.gate == "style" else images
        chosen = routed(module.decoder.router, mean_std(module.encoder(seen, (LAYER,))[LAYER])).chosen
        counts += torch.bincount(chosen.flatten(), minlength=len(counts))
        first.append(chosen[:, 0])
    expert = torch.cat(first)

    def table(of: Tensor) -> np.ndarray:
        pairs = torch.bincount(of * module.experts.count + expert, minlength=len(style) * module.experts.count)
        return pairs.view(len(style), -1).numpy()

    shuffled = numbers[torch.randperm(len(numbers), generator=generator)]
    return {
        "information": mutual_information(table(numbers)),
        "information_by_chance": mutual_information(table(shuffled)),
        "dead": float((counts < 0.01 * counts.sum()).sum()),
        "busiest": float(counts.max() / counts.sum()),
    }


def made(contestant: Contestant, side: int, seed: int) -> AdaIN:
    torch.manual_seed(seed)
    decoder = DecoderOptions(WIDTH, experts=contestant.experts)
    module = AdaIN(resolution=side, decoder=decoder, balance_weight=contestant.balance_weight)
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    return module


@torch.no_grad()
def megaflops(module: AdaIN, side: int) -> float:
    """Of the decoder, for one picture; a multiplication and an addition are two."""
    features = torch.zeros(1, 512, side // 8, side // 8)
    router = module.decoder.router
    with FlopCounterMode(display=False) as counter:
        module.decoder(features, None if router is None else routed(router, mean_std(features)))
    return float(counter.get_total_flops() / 1e6)


def measured(contestant: Contestant, content: Tensor, style: Tensor, options: argparse.Namespace) -> dict[str, Any]:
    """Means over the seeds, and the seeds' own figures."""
    runs = []
    for seed in range(options.seeds):
        module = made(contestant, options.side, seed)
        before = choices(module, content, style, options.side)
        train(module, content[:-4], style[:-HELD_OUT_PAINTINGS], options, seed)
        losses = held_out(module.eval(), content[-4:], style[-HELD_OUT_PAINTINGS:], options.side)
        untrained = {"information_untrained": before["information"]} if before else {}
        runs.append({**losses, **choices(module, content, style, options.side), **untrained})
    means: dict[str, Any] = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
    return {"megaflops": megaflops(module, options.side), **means, "seeds": runs}


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("side", 32), ("steps", 120), ("batch", 4), ("seeds", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    content = contents(ROOM * options.side)
    style = paintings(ROOM * options.side, PAINTINGS)
    # Neighbours in the folder are alike: who is held out is drawn.
    style = style[torch.randperm(len(style), generator=torch.Generator().manual_seed(0))]
    table = Table(title=f"AdaIN's decoder after {options.steps} steps of {options.batch} at {options.side} px")
    for column in ("decoder", "MFLOP", "style", "content", "information (untrained, by chance)", "dead", "busiest"):
        table.add_column(column)
    results = {}
    for name, contestant in CONTESTANTS.items():
        figures = results[name] = measured(contestant, content, style, options)
        print(name, json.dumps(figures), flush=True)
        row = [f"{figures['megaflops']:.1f}", f"{figures['style_loss']:.3f}", f"{figures['content_loss']:.3f}"]
        if "dead" in figures:
            others = (figures[f"information_{name}"] for name in ("untrained", "by_chance"))
            row.append(f"{figures['information']:.2f} ({', '.join(f'{other:.2f}' for other in others)})")
            row += [f"{figures['dead']:.1f}", f"{figures['busiest']:.0%}"]
        table.add_row(name, *row)
        RESULTS.write_text(json.dumps({"options": vars(options), "results": results}, indent=2) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()
