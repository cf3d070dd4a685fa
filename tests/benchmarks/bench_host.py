"""Host work of a training step: gesso under the Trainer, beside a plain loop of the same networks.

    python -m tests.benchmarks.bench_host

On a GPU a step waits for the host where networks are small or GPUs fast. Two things are counted, per family:

- operator calls of a step, under a ``TorchDispatchMode``: exact, without noise, and each is a kernel launch on a GPU;
- CPU time of a step (``time.process_time``, one thread), at sizes where the arithmetic is small.

The plain loop has the same networks, losses, fused optimizer and moving average, and nothing else: no Trainer, no
callbacks, no base class. gesso has all callbacks of `gesso fit`; between two steps neither of the two logs.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from datamodules.assets.fetching import fetch
from launch.callbacks.checkpoints import Checkpoints
from launch.callbacks.clock import Clock
from launch.callbacks.ema import EMA
from launch.callbacks.evaluation import Evaluation
from launch.callbacks.interruption import Interruption
from launch.callbacks.previews import Previews
from launch.callbacks.progress import Progress
from launch.runs.machine import processor
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.draws import NoiseAhead
from lightning_modules.core.family import Batch, ImageFamily
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from lightning_modules.networks.vae import AutoencoderOptions
from lightning_modules.style.adain import AdaIN
from lightning_modules.style.fast_style import FastStyle
from tests.operators import CountCalls

RESULTS = Path(__file__).parent / "results" / "host.json"
BATCH, SIZE, WIDTH = 4, 64, 8
#: The first steps set up optimizers' states and lists.
WARM_UP = 3
#: Extra operator calls, and extra CPU time, as a share of the plain loop's.
GOAL = 0.05
#: Never reached: no interval comes round in the contest.
NEVER = 1e6


class PlainNoise:
    """Random numbers as a plain loop draws them."""

    def normal(self, count: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Standard normal [count, *shape]."""
        return torch.randn(count, *shape, device=device)

    def uniform(self, count: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Uniform [count, *shape]."""
        return torch.rand(count, *shape, device=device)


class PlainLoop:
    """The least that trains a family's networks: forward, backward, step, zero, moving average.

    Args:
        family: the family; it is copied.
        losses: for each trained network, in the order of a step, the name of the method that gives its losses.
    """

    def __init__(self, family: ImageFamily, losses: Mapping[str, str]) -> None:
        self.family = copy.deepcopy(family)
        self.family._now.noise = PlainNoise()  # type: ignore[assignment]
        self.networks = {name: getattr(self.family, name) for name in losses}
        for network in self.networks.values():
            network.to(memory_format=self.family.memory_format)
        self.losses = {name: getattr(self.family, method) for name, method in losses.items()}
        self.optimizers = {
            name: self.family.optimization()[name].optimizer(network) for name, network in self.networks.items()
        }
        self.parameters = {name: list(network.parameters()) for name, network in self.networks.items()}
        averaged = [getattr(self.family, name) for name in self.family.generating_networks()]
        self.live = [t for network in averaged for t in network.state_dict().values() if t.is_floating_point()]
        self.average = [tensor.clone() for tensor in self.live]

    def step(self, batch: Batch) -> None:
        """One step, of every network."""
        for name, losses in self.losses.items():
            others = [p for other, own in self.parameters.items() if other != name for p in own]
            for parameter in others:
                parameter.requires_grad_(False)
            losses(batch)["loss"].backward()
            self.optimizers[name].step()
            self.optimizers[name].zero_grad()
            for parameter in others:
                parameter.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.live, 0.01)


@dataclass
class Turns:
    """The Trainer's loader; between two batches the plain loop makes its step, so all between them is gesso's step."""

    batch: Batch
    rounds: int
    plain: Callable[[Batch], None]
    count: bool
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"gesso": [], "plain": []})
    calls: dict[str, list[Counter[str]]] = field(default_factory=lambda: {"gesso": [], "plain": []})

    def __len__(self) -> int:
        return WARM_UP + self.rounds + 1

    def __iter__(self) -> Iterator[Batch]:
        for turn in range(len(self)):
            batch = {**self.batch, "position": (turn + 1) * BATCH}
            with self._measured("gesso"):
                yield batch
            with self._measured("plain"):
                self.plain(batch)

    def _measured(self, name: str) -> Measured:
        return Measured(self, name)


class Measured:
    """Context manager: takes the CPU time, or counts the operator calls, of one contestant's step."""

    def __init__(self, turns: Turns, name: str) -> None:
        self.turns, self.name = turns, name
        self.mode = CountCalls() if turns.count else None

    def __enter__(self) -> None:
        if self.mode is not None:
            self.mode.__enter__()
        self.start = time.process_time()

    def __exit__(self, *_: object) -> None:
        self.turns.seconds[self.name].append(time.process_time() - self.start)
        if self.mode is not None:
            self.mode.__exit__(None, None, None)
            self.turns.calls[self.name].append(self.mode.calls)


@dataclass(frozen=True)
class Contest:
    """One family, and how its plain loop gets its losses."""

    family: Callable[[], ImageFamily]
    losses: Mapping[str, str]


def dcgan() -> ImageFamily:
    """A DCGAN with batch norm in both networks, as its recipes have it."""
    return DCGAN(generator=GeneratorOptions(WIDTH), discriminator=DiscriminatorOptions(WIDTH), resolution=SIZE)


def with_vgg(family: ImageFamily) -> ImageFamily:
    """A style family with its encoder, and a style picture if it wants one."""
    family.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    for option in family.pictures():
        family.take_pictures(option, [torch.rand(1, 3, SIZE, SIZE) * 2 - 1])
    return family


GAN_LOSSES = {"discriminator": "discriminator_losses", "generator": "generator_losses"}
CONTESTS = {
    "DCGAN": Contest(dcgan, GAN_LOSSES),
    "VAE": Contest(
        lambda: VAE(resolution=SIZE, autoencoder=AutoencoderOptions(width=WIDTH)), {"autoencoder": "losses"}
    ),
    "AdaIN": Contest(lambda: with_vgg(AdaIN(resolution=SIZE)), {"decoder": "training_losses"}),
    "FastStyle": Contest(
        lambda: with_vgg(FastStyle(styles=["style.png"], resolution=SIZE)), {"network": "training_losses"}
    ),
}


def contest(name: str, rounds: int, *, count: bool, precision: str = "32-true") -> Turns:
    """Steps of a family under the Trainer and in its plain loop, in turns."""
    torch.manual_seed(0)
    chosen = CONTESTS[name]
    family = chosen.family()
    plain = PlainLoop(family, chosen.losses)
    images = torch.rand(BATCH, 3, SIZE, SIZE) * 2 - 1
    images = images.to(memory_format=family.memory_format)
    batch: Batch = {"image": images, "style": images.flip(0), "label": torch.full((BATCH,), -1)}
    turns = Turns(batch, rounds, plain.step, count)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            precision=precision,  # type: ignore[arg-type]
            max_epochs=1,
            logger=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[Clock(NEVER, NEVER), Progress(), EMA(), *quiet_callbacks(), Interruption()],
        )
        trainer.fit(family, turns)
    return turns


def quiet_callbacks() -> list[L.Callback]:
    """The callbacks of `gesso fit` whose intervals do not come round, and which write nothing when training ends."""
    callbacks: list[L.Callback] = [Checkpoints(NEVER), Previews(NEVER), Evaluation(NEVER)]
    for callback in callbacks:
        for hook in ("setup", "on_fit_start", "on_train_start", "on_train_end", "teardown"):
            setattr(callback, hook, lambda *_, **__: None)
    return callbacks


def calls(name: str, precision: str = "32-true") -> tuple[Counter[str], Counter[str]]:
    """Operator calls of ``NoiseAhead.STEPS`` steps after the warm-up: gesso's, and the plain loop's."""
    turns = contest(name, NoiseAhead.STEPS, count=True, precision=precision)
    ours, theirs = (turns.calls[who][WARM_UP : WARM_UP + NoiseAhead.STEPS] for who in ("gesso", "plain"))
    return sum(ours, Counter()), sum(theirs, Counter())


def main() -> None:
    """Runs the contests, prints the table and writes the figures."""
    parser = argparse.ArgumentParser(description="Host work of a training step, beside a plain loop's")
    parser.add_argument("--rounds", type=int, default=150, help="steps of each contestant and family")
    parser.add_argument("--family", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--show", action="store_true", help="print which operators gesso calls more often")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the figures go, as JSON")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    torch.set_num_threads(1)
    table = Table(title=f"a step's host work, batch {BATCH}, {SIZE} px", caption=f"goal: at most {GOAL:.0%} more")
    for column in ("family", "calls", "plain", "more", "CPU ms", "plain ms", "more CPU"):
        table.add_column(column, justify="right")
    results: dict[str, dict[str, float]] = {}
    for name in options.family:
        ours, theirs = calls(name)
        if options.show:
            for operator, number in (ours - theirs).most_common():
                print(f"{number / NoiseAhead.STEPS:+6.2f}  {operator}")
        more_calls = ours.total() / theirs.total() - 1
        # The style families' arithmetic hides any host work at any size.
        few = max(5, options.rounds // 20) if "Style" in name or name == "AdaIN" else options.rounds
        seconds = contest(name, few, count=False).seconds
        ms = {who: 1000 * median(times[WARM_UP:]) for who, times in seconds.items()}
        # The Trainer asks for no batch after the last one: there the plain loop has no turn.
        pairs = zip(seconds["gesso"][WARM_UP:-1], seconds["plain"][WARM_UP:], strict=True)
        more_time = median(a / b for a, b in pairs) - 1
        results[name] = {
            "calls": ours.total() / NoiseAhead.STEPS,
            "plain_calls": theirs.total() / NoiseAhead.STEPS,
            "more_calls": more_calls,
            "cpu_ms": ms["gesso"],
            "plain_cpu_ms": ms["plain"],
            "more_cpu": more_time,
        }
        table.add_row(
            name,
            f"{results[name]['calls']:.1f}",
            f"{results[name]['plain_calls']:.1f}",
            f"{more_calls:+.1%}",
            f"{ms['gesso']:.2f}",
            f"{ms['plain']:.2f}",
            f"{more_time:+.1%}",
        )
    Console().print(table)
    machine = {"processor": processor(), "torch": torch.__version__, "lightning": L.__version__}
    shape = {"batch": BATCH, "resolution": SIZE, "width": WIDTH, "rounds": options.rounds}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": machine, **shape, "results": results}, indent=1) + "\n")
    print(f"figures: {options.output}")


if __name__ == "__main__":
    main()
