"""Diffusion's training step against public implementations, and what samplers cost beside the network.

    git clone https://github.com/NVlabs/edm EDM
    python -m pip install --target RIVALS --no-deps diffusers "huggingface_hub<2" regex importlib_metadata zipp \
        denoising-diffusion-pytorch accelerate ema-pytorch pytorch-fid
    python -m tests.benchmarks.bench_diffusion --edm EDM --rivals RIVALS

- ``step``: forward, backward, optimizer and moving average at 64 px, of networks of one width, depth and attention.
  Of ours in bf16 autocast as well; the rivals' bf16 is shown beside it. Contestants take turns (A B A B); a ratio is
  the median over the rounds of the fastest rival's time in fp32 over ours in the same round.
- ``samplers``: a sampling with a network that does nothing, over what a network takes for as many evaluations.

What is not given (``--edm``, ``--rivals``) is left out.
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

from launch.runs.machine import processor
from lightning_modules.diffusion.edm import EDM
from lightning_modules.networks.denoisers import DenoiserOptions
from lightning_modules.samplers.table import SAMPLERS
from tests.benchmarks import diffusion_rivals
from tests.benchmarks.bench_style import PRECISIONS, turns
from tests.benchmarks.diffusion_rivals import ATTENTION, BLOCKS, MULTIPLIERS, WIDTH, Rival
from tests.pictures import photographs

RESULTS = Path(__file__).parent / "results" / "diffusion.json"
#: At least so many times faster than the fastest rival in fp32.
GOALS = {"fp32": 1.05, "bf16": 1.6}
#: At most so much of the network's time.
OVERHEAD = 0.01


def family(side: int) -> EDM:
    network = DenoiserOptions(
        width=WIDTH, multipliers=MULTIPLIERS, blocks=BLOCKS, attention_resolutions=(ATTENTION,), dropout=0.0
    )
    return EDM(resolution=side, network=network, channels_last=False)


def ours(side: int, precision: str) -> Rival:
    """A training step as the base class makes it, without a Trainer (`bench_step` measures what that adds)."""
    module = family(side)
    (optimizer,) = module.configure_optimizers()
    live = list(module.network.parameters())
    average = [parameter.detach().clone() for parameter in live]

    def step(images: Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = module.losses({"image": images})
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(average, live, 0.001)

    return Rival(step, diffusion_rivals.count(module.network))


def rivals_of(checkout: Path | None, site: Path | None, side: int) -> dict[str, Rival]:
    """The rivals that were given, in fp32, then in bf16 where the processor has it."""
    found: dict[str, Rival] = {}
    if checkout is not None:
        found["EDM"] = diffusion_rivals.edm(checkout, side)
    if site is not None:
        found["diffusers"] = diffusion_rivals.diffusers(site, side)
        found["lucidrains"] = diffusion_rivals.lucidrains(site, side)
    if site is not None and "bf16" in PRECISIONS:
        found["diffusers bf16"] = diffusion_rivals.diffusers(site, side, half=True)
        found["lucidrains bf16"] = diffusion_rivals.lucidrains(site, side, half=True)
    return found


def training_step(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each contestant's step, and ours against the fastest rival's in fp32."""
    torch.manual_seed(0)
    images = photographs(options.side)
    images = images.repeat(-(-options.batch // len(images)), 1, 1, 1)[: options.batch].contiguous()
    rivals = rivals_of(options.edm, options.rivals, options.side)
    contestants = {**{f"gesso {name}": ours(options.side, name) for name in PRECISIONS}, **rivals}
    seconds = turns({name: lambda c=c: c.step(images) for name, c in contestants.items()}, options.rounds)  # type: ignore[misc]
    exact = [times for name, times in seconds.items() if name in rivals and "bf16" not in name]
    fastest = [min(turn) for turn in zip(*exact, strict=True)]
    return {
        "side": options.side,
        "batch": options.batch,
        "parameters": {name: contestant.parameters for name, contestant in contestants.items()},
        "seconds": {name: median(times) for name, times in seconds.items()},
        "fastest rival over": {
            name: median(theirs / own for theirs, own in zip(fastest, seconds[f"gesso {name}"], strict=True))
            for name in PRECISIONS
            if fastest
        },
    }


def samplers(options: argparse.Namespace) -> dict[str, Any]:
    """The share of each sampler with 18 steps in the time of the network that it calls."""
    module, index = family(options.side).eval(), torch.arange(options.batch)
    network = module.network
    x, noise = torch.randn(options.batch, 3, options.side, options.side), torch.zeros(options.batch)

    @torch.no_grad()
    def evaluation() -> Tensor:
        made: Tensor = network(x, noise)
        return made

    def sampling(name: str) -> Callable[[], object]:
        @torch.no_grad()
        def sample() -> None:
            module.sample_with({"sampler": name, "steps": 18})
            # No layer at all: a module's call would count as the network's.
            module.network = _Nothing(x)
            module.generate(index, seed=0)
            module.network = network

        return sample

    seconds = turns({"": evaluation, **{name: sampling(name) for name in SAMPLERS}}, options.rounds)
    shares = {}
    for name in SAMPLERS:
        module.sample_with({"sampler": name, "steps": 18})
        evaluations = module.sampled()["evaluations"]
        assert isinstance(evaluations, int)
        pairs = zip(seconds[name], seconds[""], strict=True)
        shares[name] = median(own / (evaluations * one) for own, one in pairs)
    return {"side": options.side, "batch": options.batch, "evaluation": median(seconds[""]), "shares": shares}


class _Nothing(torch.nn.Module):
    """Answers with what it was given first."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, *_: object) -> Tensor:
        return self.answer


def show(results: dict[str, Any]) -> None:
    """Prints the tables."""
    console = Console()
    if "step" in results:
        found = results["step"]
        table = Table(title=f"A training step at {found['side']} px, batch {found['batch']}")
        for column in ("", "seconds", "parameters", "times faster than the fastest rival", "goal"):
            table.add_column(column, justify="right")
        for name, seconds in found["seconds"].items():
            precision = name.removeprefix("gesso ")
            ratio = found["fastest rival over"].get(precision) if name != precision else None
            goal = "" if ratio is None else str(GOALS[precision])
            ratios = "" if ratio is None else f"{ratio:.2f}"
            table.add_row(name, f"{seconds:.3f}", f"{found['parameters'][name]:,}", ratios, goal)
        console.print(table)
    if "samplers" in results:
        table = Table(title=f"18 steps without a network, in its time (goal: under {OVERHEAD:.0%})")
        for name, share in results["samplers"]["shares"].items():
            table.add_row(name, f"{share:.2%}")
        console.print(table)


def main() -> None:
    """Runs what was chosen, prints the tables and keeps the figures of the others."""
    parser = argparse.ArgumentParser(description="Diffusion against its public implementations")
    parser.add_argument("what", nargs="*", choices=[[], "step", "samplers"], help="default: both")
    parser.add_argument("--edm", type=Path, help="a checkout of NVlabs/edm")
    parser.add_argument("--rivals", type=Path, help="a folder into which the other rivals are installed")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    runs = {"step": training_step, "samplers": samplers}
    machine = {"processor": processor(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    known = json.loads(options.output.read_text()) if options.output.is_file() else {}
    for name in options.what or runs:
        start = time.perf_counter()
        known[name] = {"machine": machine, **runs[name](options)}
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(known, indent=1) + "\n")
    show(known)
    print(f"figures: {options.output}")


if __name__ == "__main__":
    main()
