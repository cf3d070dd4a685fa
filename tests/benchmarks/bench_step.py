"""The DCGAN training step: gesso against a plain PyTorch loop, and against the common DCGAN example.

    python -m tests.benchmarks.bench_step

Three contestants take turns, one step each, in one process and on one batch (64x64 RGB, batch 128, width 64):

- ``gesso``: the DCGAN family under Lightning's Trainer with the callbacks that act in every step of `gesso fit`;
- ``plain``: a loop of the same networks, losses, precision and moving average, with every trick that gesso uses;
- ``example``: the structure of the DCGAN tutorial that most repositories start from, in eager float32.

A ratio is the median over the rounds of the two contestants' times in the same round.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from launch.callbacks.clock import Clock
from launch.callbacks.ema import EMA
from launch.callbacks.interruption import Interruption
from launch.callbacks.progress import Progress
from launch.runs.machine import processor
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions

RESULTS = Path(__file__).parent / "results" / "step.json"
CPU = torch.device("cpu")
LATENT = 128
WARM_UP = 1
GOALS = {"32-true": 1.15, "bf16-mixed": 2.0}

Precision = Literal["32-true", "bf16-mixed"]
Seconds = dict[str, list[float]]


class PlainLoop:
    """The least that trains these networks well: no Trainer, no callbacks, no base class."""

    def __init__(self, family: DCGAN, precision: Precision, device: torch.device = CPU) -> None:
        self.device = device
        self.generator, self.discriminator = (
            copy.deepcopy(network).to(device, memory_format=torch.channels_last)
            for network in (family.generator, family.discriminator)
        )
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)
            for network in (self.generator, self.discriminator)
        ]
        self.live = [tensor for tensor in self.generator.state_dict().values() if tensor.is_floating_point()]
        self.average = [tensor.clone() for tensor in self.live]
        self.autocast = precision == "bf16-mixed"

    def step(self, real: Tensor) -> None:
        softplus = nn.functional.softplus
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            with torch.no_grad():
                fake = self.generator(torch.randn(len(real), LATENT, device=self.device))
            loss = softplus(-self.discriminator(real)).mean() + softplus(self.discriminator(fake)).mean()
        self._update(self.optimizers[1], loss)
        self.discriminator.requires_grad_(False)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            fake = self.generator(torch.randn(len(real), LATENT, device=self.device))
            loss = softplus(-self.discriminator(fake)).mean()
        self._update(self.optimizers[0], loss)
        self.discriminator.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.live, 0.01)

    def _update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def captured(loop: PlainLoop, real: Tensor) -> Callable[[Tensor], None]:
    """A plain loop's step as one CUDA graph, made by hand as PyTorch's notes on CUDA semantics say."""
    for optimizer in loop.optimizers:
        for group in optimizer.param_groups:
            group["capturable"] = True
    fixed, side = real.clone(), torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            loop.step(fixed)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loop.step(fixed)

    def step(images: Tensor) -> None:
        fixed.copy_(images)
        graph.replay()

    return step


class ExampleLoop:
    """The common example: NCHW, a sigmoid and BCELoss, default Adam, nothing frozen, ``item()`` in each step."""

    def __init__(self, width: int, device: torch.device = CPU) -> None:
        self.device = device
        self.generator = example_generator(width).to(device)
        self.discriminator = example_discriminator(width).to(device)
        for network in (self.generator, self.discriminator):
            network.apply(example_init)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))
            for network in (self.generator, self.discriminator)
        ]
        self.criterion = nn.BCELoss()
        self.log: dict[str, float] = {}

    def step(self, real: Tensor) -> None:
        self.discriminator.zero_grad()
        label = torch.full((len(real),), 1.0, device=self.device)
        output = self.discriminator(real).view(-1)
        real_loss = self.criterion(output, label)
        real_loss.backward()
        real_mean = output.mean().item()

        fake = self.generator(torch.randn(len(real), LATENT, 1, 1, device=self.device))
        label.fill_(0.0)
        output = self.discriminator(fake.detach()).view(-1)
        fake_loss = self.criterion(output, label)
        fake_loss.backward()
        fake_mean = output.mean().item()
        self.optimizers[1].step()

        self.generator.zero_grad()
        label.fill_(1.0)
        output = self.discriminator(fake).view(-1)
        generator_loss = self.criterion(output, label)
        generator_loss.backward()
        self.optimizers[0].step()
        self.log = {
            "loss_d": (real_loss + fake_loss).item(),
            "loss_g": generator_loss.item(),
            "d_x": real_mean,
            "d_g_z": fake_mean / max(output.mean().item(), 1e-8),
        }


def example_generator(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, 8 * width, 4, 1, 0, bias=False)]
    for factor in (8, 4, 2):
        layers += [nn.BatchNorm2d(factor * width), nn.ReLU(True)]
        layers += [nn.ConvTranspose2d(factor * width, factor * width // 2, 4, 2, 1, bias=False)]
    layers += [nn.BatchNorm2d(width), nn.ReLU(True), nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()]
    return nn.Sequential(*layers)


def example_discriminator(width: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for factor in (1, 2, 4):
        layers += [nn.Conv2d(factor * width, 2 * factor * width, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(2 * factor * width), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def example_init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


class Turns:
    """The Trainer's loader. Between the batches that it hands to the Trainer, the other contestants make their step.

    So all that the Trainer does from one batch to the next counts as gesso's step.
    """

    def __init__(self, real: Tensor, rounds: int, others: dict[str, Callable[[Tensor], None]]) -> None:
        self.real = real
        self.rounds = rounds
        self.others = others
        self.seconds: Seconds = {"gesso": [], **{name: [] for name in others}}

    def __len__(self) -> int:
        # A loader of known length is not read ahead: the Trainer asks for a batch when it has done with the last one.
        # One batch more, since after the last one it does not ask, and nobody could take the time.
        return WARM_UP + self.rounds + 1

    def __iter__(self) -> Iterator[dict[str, Any]]:
        labels = torch.full((len(self.real),), -1)
        for turn in range(len(self)):
            start = time.perf_counter()
            yield {"image": self.real, "label": labels, "position": (turn + 1) * len(self.real)}
            self._take("gesso", start)
            for name, step in self.others.items():
                start = time.perf_counter()
                step(self.real)
                self._take(name, start)

    def _take(self, name: str, start: float) -> None:
        if self.real.is_cuda:
            torch.cuda.synchronize()
        self.seconds[name].append(time.perf_counter() - start)


def contest(
    precision: Precision, rounds: int, batch: int, width: int, device: torch.device = CPU, *, graphs: bool = False
) -> Seconds:
    """Seconds of each contestant's steps at one precision, in turns, without the warm-up.

    Args:
        graphs: gesso replays its steps as CUDA graphs, and another plain loop, ``captured``, does so too.
    """
    torch.manual_seed(0)
    family = DCGAN(generator=GeneratorOptions(width), discriminator=DiscriminatorOptions(width), latent_dim=LATENT)
    real = torch.rand(batch, 3, 64, 64).to(device) * 2 - 1
    plain, example = PlainLoop(family, precision, device), ExampleLoop(width, device)
    channels_last = real.to(memory_format=torch.channels_last)
    others: dict[str, Callable[[Tensor], None]] = {"plain": plain.step, "example": lambda _: example.step(real)}
    if graphs:
        others["captured"] = captured(PlainLoop(family, precision, device), channels_last)
    family.cuda_graphs = graphs
    turns = Turns(channels_last, rounds, others)
    kimg = (len(turns) + 1) * batch / 1000  # never reached: the loader ends first
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=precision,
            max_epochs=1,
            logger=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[Clock(kimg, log_every_kimg=1.0), Progress(), EMA(), Interruption()],
        )
        trainer.fit(family, turns)
    return {name: times[WARM_UP:] for name, times in turns.seconds.items()}


def ratio(seconds: Seconds, numerator: str, denominator: str) -> float:
    """Median over the rounds of one contestant's time over another's in the same round."""
    return median(a / b for a, b in zip(seconds[numerator], seconds[denominator], strict=True))


def summary(seconds: Seconds, batch: int) -> dict[str, Any]:
    """What the table and the file say of one precision."""
    return {
        "seconds_per_step": {name: median(times) for name, times in seconds.items()},
        "images_per_second": {name: batch / median(times) for name, times in seconds.items()},
        "overhead_over_plain": ratio(seconds, "gesso", "plain") - 1,
        "speedup_over_example": ratio(seconds, "example", "gesso"),
        "rounds": seconds,
    }


def show(results: dict[str, dict[str, Any]], batch: int) -> None:
    """Prints the table."""
    table = Table(
        title=f"DCGAN step, 64x64, batch {batch}: seconds, medians",
        caption=f"goals: gesso / plain < 1.03; example / gesso >= {GOALS['32-true']} and {GOALS['bf16-mixed']}",
    )
    for column in ("precision", "gesso", "plain", "example", "gesso / plain", "example / gesso"):
        table.add_column(column, justify="right")
    for precision, result in results.items():
        times = result["seconds_per_step"]
        table.add_row(
            precision,
            *(f"{times[name]:.3f}" for name in ("gesso", "plain", "example")),
            f"{1 + result['overhead_over_plain']:.3f}",
            f"{result['speedup_over_example']:.2f}",
        )
    Console().print(table)


def main() -> None:
    """Runs the contest in float32 and in bfloat16, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description="DCGAN's training step against plain PyTorch and the common example")
    parser.add_argument("--rounds", type=int, default=40, help="steps of each contestant and precision")
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--width", type=int, default=64, help="channels of the networks' largest feature map")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the figures go, as JSON")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    results: dict[str, dict[str, Any]] = {}
    for precision in get_args(Precision):
        print(f"{precision}: {options.rounds} rounds ...", flush=True)
        seconds = contest(precision, options.rounds, options.batch, options.width)
        results[precision] = summary(seconds, options.batch)
    show(results, options.batch)
    machine = {
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "lightning": L.__version__,
    }
    shape = {"batch": options.batch, "width": options.width, "resolution": 64}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine, **shape, "results": results}, indent=1) + "\n")
    print(f"figures: {options.output}")


if __name__ == "__main__":
    main()
