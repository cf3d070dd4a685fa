"""Families that decode a Gaussian latent into an image: sampling and latent interpolation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from gesso.common.ranges import check_options
from lightning_modules.core.abilities import Batch, CannotDo, Preview
from lightning_modules.core.deployment import Deployable, Inputs, Layout, Named, Port
from lightning_modules.kinds.generative import GenerativeFamily
from lightning_modules.kinds.random_codes import numbered_codes
from lightning_modules.networks.folding import folded
from lightning_modules.samplers.editing import slerp

#: Images of a network, latents [N, latent_dim] and labels [N] or None.
Decoded = Callable[[nn.Module, Tensor, Tensor | None], Tensor]


class LatentFamily(GenerativeFamily):
    """A family with a latent z ~ N(0, I) of ``latent_dim`` dimensions and ``num_classes`` classes (0: none)."""

    latent_dim: int
    num_classes: int = 0

    @abstractmethod
    def decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        """Decodes latents [N, latent_dim] (and labels int64 [N]) to images NCHW in [-1, 1]."""

    def generate(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        """See ``Abilities.generate``. Without ``labels``, a conditional family cycles through its classes."""
        return self.decode(*self.conditions(index, seed, labels))

    def conditions(self, index: Tensor, seed: int, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Latents [N, latent_dim] and labels [N] (None: unconditional) of samples, on the module's device."""
        if self.num_classes and labels is None:
            labels = index % self.num_classes
        latents = self.latents(index, seed=seed)
        return latents, labels.to(self.device) if self.num_classes and labels is not None else None

    def latents(self, index: Tensor, *, seed: int) -> Tensor:
        """Latents number ``index`` of the sequence ``seed``: [N, latent_dim] on the module's device."""
        return numbered_codes(index.tolist(), self.latent_dim, seed=seed).to(self.device)

    def on_path(self, index: Tensor, times: Tensor, *, seed: int, space: Literal["z", "w"]) -> Tensor:
        """See ``Abilities.on_path``."""
        if space == "w":
            self.require("w_space")
        latents, labels = self.path_latents(index, times, seed=seed)
        return self.decode(latents, labels).float()

    def path_latents(self, index: Tensor, times: Tensor, *, seed: int) -> tuple[Tensor, Tensor | None]:
        """Latents [N, latent_dim] on great circles, and their labels: see ``Abilities.on_path``."""
        (start, labels), (end, _) = self.path_ends(index, seed=seed)
        between = slerp(start.double(), end.double(), times[:, None].to(start.device)).squeeze(1)
        return between.to(start.dtype), labels

    def path_ends(
        self, index: Tensor, *, seed: int
    ) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
        """Latents and labels of both ends of paths: see ``Abilities.on_path``."""
        labels = index % self.num_classes if self.num_classes else None
        return self.conditions(2 * index, seed, labels), self.conditions(2 * index + 1, seed, labels)

    def change_sampling(self, changes: Mapping[str, object], *options: str) -> dict[str, object]:
        """What ``sample_with`` answers for a family that truncates its latents.

        Args:
            changes: see ``Abilities.sample_with``.
            options: of the family, by which it does so; attributes of the same names.
        """
        if unknown := sorted(changes.keys() - set(options)):
            raise CannotDo(f"{self.described()} makes a picture in one pass: it takes truncation, no {unknown[0]}")
        check_options(type(self), changes)
        before = {name: getattr(self, name) for name in changes}
        for name, value in changes.items():
            setattr(self, name, value)
        return before

    def interpolate(self, *, pairs: int, steps: int, seed: int) -> Preview:
        """``pairs`` rows, each of ``steps`` images on the great circle between two latents of one class."""
        ends = self.latents(torch.arange(2 * pairs), seed=seed)
        path = slerp(ends[0::2], ends[1::2], torch.linspace(0, 1, steps, device=ends.device))
        labels = None
        if self.num_classes:
            labels = (torch.arange(pairs, device=ends.device) % self.num_classes).repeat_interleave(steps)
        return Preview(self.decode(path.flatten(0, 1), labels), columns=steps)

    def deployable_decoder(self, network: nn.Module, decoded: Decoded, layout: Layout) -> Deployable:
        """What ``deployable`` answers for the network that makes images of latents.

        Args:
            network: as it is in the family.
            decoded: what ``decode`` does, with any such network.
            layout: see ``deployable``.
        """
        alone = folded(network)

        def picture(latents: Tensor, labels: Tensor | None = None) -> Tensor:
            return decoded(alone, latents, labels)

        def draw(index: Tensor, seed: int, pictures: Inputs) -> dict[str, Tensor]:
            latents, labels = self.conditions(index, seed, None)
            return {"latents": latents} if labels is None else {"latents": latents, "labels": labels}

        index = torch.arange(layout.count)
        about = {
            "latents": f"z ~ N(0, I), float32 [N, {self.latent_dim}]",
            "labels": f"classes, int64 [N] in [0, {self.num_classes})",
        }
        return Deployable(
            Named(picture, network=alone),
            {name: Port(value.cpu(), about[name], {0: "batch"}) for name, value in draw(index, 0, {}).items()},
            "picture",
            "pictures, float32 [N, C, H, W] in [-1, 1]",
            draw,
            lambda inputs: self.decode(inputs["latents"], inputs.get("labels")),
        )

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        # A conditional family shows one class per column.
        columns = self.num_classes if 4 <= self.num_classes <= 16 else 10
        return {
            "samples": Preview(self.generate(torch.arange(6 * columns), seed=seed), columns=columns),
            "interpolation": self.interpolate(pairs=6, steps=10, seed=seed),
        }
