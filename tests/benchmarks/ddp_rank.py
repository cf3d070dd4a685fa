"""What each rank of bench_ddp runs: `LOCAL_RANK=r ddp_rank.py OUT JOB`, the contestants in turns.

A job: ``family`` (vae, gan), ``width``, ``batch`` (of a rank), ``contestants``, ``rounds``, ``steps``, ``delay``
(milliseconds that each message takes longer). Rank 0 writes the seconds of each step.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.nn.parallel import DistributedDataParallel

from launch.callbacks import interruption
from launch.callbacks.clock import Clock
from launch.callbacks.ema import EMA
from launch.callbacks.interruption import Interruption
from launch.strategies.ddp import MultiNetworkDDP
from launch.strategies.messages import buckets
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.core.family import ImageFamily
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from lightning_modules.networks.vae import AutoencoderOptions
from tests.launch.planning.memory_program import Steps
from tests.trainers import bare_trainer

NEVER = 1e6


def vae(width: int) -> ImageFamily:
    return VAE(resolution=32, latent_dim=512, autoencoder=AutoencoderOptions(width=width))


def gan(width: int) -> ImageFamily:
    critic = DiscriminatorOptions(width, normalization="none", spectral_norm=False)
    return DCGAN(resolution=32, generator=GeneratorOptions(width), discriminator=critic)


class AfterTheBackward(MultiNetworkDDP):
    """As gesso's ddp was: gradients travel after the backward pass, all buffers in each step, and an agreement."""

    def pre_backward(self, closure_loss: Tensor) -> None:
        DDPStrategy.pre_backward(self, closure_loss)

    def post_backward(self, closure_loss: Tensor) -> None:
        if not self._reduce:
            return
        assert self.model is not None
        gradients = [p.grad for p in self.model.parameters() if p.requires_grad and p.grad is not None]
        for bucket in buckets(gradients):
            flat = _flatten_dense_tensors(bucket)
            dist.all_reduce(flat)
            flat /= self.world_size
            for gradient, mean in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
                gradient.copy_(mean)

    def share_buffers(self) -> None:
        assert self.model is not None
        for tensors in buckets(list(self.model.buffers())):
            flat = _flatten_dense_tensors(tensors)
            dist.broadcast(flat, src=0)
            for tensor, value in zip(tensors, _unflatten_dense_tensors(flat, tensors), strict=True):
                tensor.copy_(value)


class Late:
    """A message that arrives ``delay`` seconds later."""

    def __init__(self, work: Any, delay: float) -> None:
        self.work, self.at = work, time.monotonic() + delay

    def wait(self) -> None:
        self.work.wait()
        time.sleep(max(0.0, self.at - time.monotonic()))


@contextlib.contextmanager
def delayed(milliseconds: float) -> Iterator[None]:
    """Context manager: each message arrives later, as over a network; who need not wait for it goes on."""
    real = {name: getattr(dist, name) for name in ("all_reduce", "broadcast")}

    def late(name: str) -> Any:
        def send(*arguments: Any, async_op: bool = False, **options: Any) -> Any:
            message = Late(real[name](*arguments, async_op=True, **options), milliseconds / 1000)
            return message if async_op else message.wait()

        return send

    for name in real if milliseconds else ():
        setattr(dist, name, late(name))
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(dist, name, function)


def under_the_trainer(family: ImageFamily, strategy: DDPStrategy, job: dict[str, Any], out: Path) -> list[float]:
    """Seconds of each step of the family's training."""
    images = torch.rand(job["batch"], 3, 32, 32) * 2 - 1
    turn = Steps({"image": images, "label": torch.full((job["batch"],), -1)}, job["steps"])
    os.environ["MASTER_PORT"] = str(job["port"])
    callbacks = [Clock(NEVER, NEVER), EMA(), Interruption()]
    options = {"devices": job["ranks"], "use_distributed_sampler": False, "enable_checkpointing": True}
    trainer = bare_trainer(out, strategy=strategy, callbacks=callbacks, **options)
    trainer.fit(family, turn)
    return turn.seconds[: job["steps"]]


def by_hand(family: DCGAN, job: dict[str, Any]) -> list[float]:
    """Seconds of each step of a loop with a torch ``DistributedDataParallel`` for each network."""
    networks = [
        copy.deepcopy(network).to(memory_format=torch.channels_last)
        for network in (family.generator, family.discriminator)
    ]
    generator, critic = (DistributedDataParallel(network, broadcast_buffers=False) for network in networks)
    optimizers = [torch.optim.Adam(n.parameters(), 2e-4, (0.5, 0.999), fused=True) for n in networks]
    live = [tensor for tensor in networks[0].state_dict().values() if tensor.is_floating_point()]
    average = [tensor.clone() for tensor in live]
    real = torch.rand(job["batch"], 3, 32, 32).to(memory_format=torch.channels_last) * 2 - 1
    softplus, seconds = nn.functional.softplus, []
    for _ in range(job["steps"]):
        start = time.perf_counter()
        with torch.no_grad():
            fake = networks[0](torch.randn(len(real), family.latent_dim))
        scores = critic(torch.cat([real, fake]))
        (softplus(-scores[: len(real)]).mean() + softplus(scores[len(real) :]).mean()).backward()
        optimizers[1].step()
        optimizers[1].zero_grad()
        networks[1].requires_grad_(False)
        softplus(-networks[1](generator(torch.randn(len(real), family.latent_dim)))).mean().backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
        networks[1].requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(average, live, 0.01)
        seconds.append(time.perf_counter() - start)
    return seconds


def steps(name: str, job: dict[str, Any], out: Path) -> list[float]:
    """Seconds of each step of one contestant's turn."""
    torch.manual_seed(0)
    family = {"vae": vae, "gan": gan}[job["family"]](job["width"])
    if name == "torch":
        if isinstance(family, DCGAN):
            address = f"tcp://127.0.0.1:{job['port']}"
            dist.init_process_group("gloo", address, timedelta(seconds=60), job["ranks"], int(os.environ["LOCAL_RANK"]))
            try:
                return by_hand(family, job)
            finally:
                dist.destroy_process_group()
        return under_the_trainer(family, DDPStrategy(), job, out)
    if name == "gesso":
        return under_the_trainer(family, MultiNetworkDDP(), job, out)
    late, interruption.agreed_a_step_ago = interruption.agreed_a_step_ago, interruption.agreed
    try:
        return under_the_trainer(family, AfterTheBackward(), job, out)
    finally:
        interruption.agreed_a_step_ago = late


def main() -> None:
    out, job = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.set_num_threads(1)
    seconds: dict[str, list[list[float]]] = {name: [] for name in job["contestants"]}
    with delayed(job["delay"]):
        for _ in range(job["rounds"]):
            for name in seconds:
                seconds[name].append(steps(name, job, out))
    if os.environ["LOCAL_RANK"] == "0":
        (out / "seconds.json").write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
