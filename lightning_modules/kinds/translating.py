"""Families for unpaired image translation between two domains, evaluated against the target domain."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_modules.core.abilities import Batch, BatchSpec, Preview
from lightning_modules.core.deployment import Deployable, Layout, Named, Port
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator, Pictures
from lightning_modules.metrics.sources import SourceEvaluator

#: The batch's key of each domain.
DOMAINS = {"a": "image", "b": "image_b"}


class TranslatingFamily(ImageFamily):
    """A family that translates between domain A (a batch's ``image``) and domain B (``image_b``), unpaired."""

    def directions(self) -> tuple[str, ...]:
        """Directions that ``translate`` accepts, the main one first; a family may have only one."""
        return ("a-to-b", "b-to-a")

    @abstractmethod
    def translate(self, images: Tensor, direction: str) -> Tensor:
        """Translates images into the other domain.

        Args:
            images: [N, C, H, W] in [-1, 1], of the source domain.
            direction: one of ``directions``.

        Returns:
            Images of the same shape, in [-1, 1].
        """

    def deployable_parts(self) -> tuple[str, ...]:
        """See ``Abilities.deployable_parts``: the directions."""
        return self.directions()

    def deployable_translation(
        self, network: nn.Module, direction: str, layout: Layout, *, multiple: int = 1
    ) -> Deployable:
        """What ``deployable`` answers for a network of pictures alone.

        Args:
            network: folded; takes pictures [N, C, H, W].
            direction: that it translates in.
            layout: see ``deployable``.
            multiple: where sizes are free, sides are multiples of this.
        """
        return Deployable(
            Named(lambda source: network(source), network=network),
            {"source": self.source_port(direction, layout, multiple=multiple)},
            "picture",
            "pictures of the other domain, float32 [N, C, H, W] in [-1, 1]",
            lambda index, seed, pictures: dict(pictures),
            lambda inputs: self.translate(inputs["source"], direction),
        )

    def source_port(self, direction: str, layout: Layout, *, multiple: int = 1) -> Port:
        """The input of pictures of a direction's source domain; its arguments are those of the above."""
        spec = self.batch_spec()
        images = torch.zeros(layout.count, spec.channels or 3, *layout.sides(spec.resolution or 256, multiple))
        axes = {0: "batch", 2: "height", 3: "width"}
        sides = f"; H and W are multiples of {multiple}" if multiple > 1 and layout.dynamic else ""
        about = f"pictures, float32 [N, C, H, W] in [-1, 1]{sides}"
        return Port(images, about, axes, domains(direction)[0], multiple)

    def batch_spec(self) -> BatchSpec:
        """See ``Abilities``: images of both domains."""
        return replace(super().batch_spec(), images=tuple(DOMAINS.values()))

    def previews(self, held_out: Batch, *, seed: int) -> dict[str, Preview]:
        """Grid of held-out images of each domain above their translations."""
        return {"samples": self.sheet(held_out)}

    def sheet(self, held_out: Batch) -> Preview:
        """Grid with, for each direction, a row of up to eight held-out images above a row of their translations.

        Of a batch that is ``paired``, below these what they were to become.
        """
        keys = {direction: domains(direction)[0] for direction in self.directions()}
        columns = min(8, *(len(held_out[key]) for key in keys.values()))
        rows: list[Tensor] = []
        for direction, key in keys.items():
            originals = held_out[key][:columns]
            rows += [originals, self.translate(originals, direction).to(originals)]
            if held_out.get("paired"):
                rows.append(held_out[domains(direction)[1]][:columns])
        return Preview(torch.cat(rows), columns=columns)

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """Compares translations of held-out images with images of the target domain, and with their sources.

        By ``LPIPS`` and ``SSIM`` one sees how much of the originals is left. With paired data (``UnpairedData``),
        ``truth_lpips`` and others compare translations with what they were to become.
        """
        if options.metrics == ():
            return None
        direction = self.known_direction(options.direction)
        source, target = domains(direction)
        return SourceEvaluator(
            "translation",
            lambda images: self.translate(images, direction),
            options,
            self.described(),
            source=Pictures(source, options.split),
            reference=Pictures(target, options.reference_split, options.reference_samples),
        )


def domains(direction: str) -> tuple[str, str]:
    """The batch's keys of a direction's source and target: ``("image", "image_b")`` of ``a-to-b``.

    Raises:
        ValueError: a direction is called otherwise.
    """
    ends: Sequence[str] = direction.split("-to-")
    if len(ends) != 2 or ends[0] == ends[1] or not set(ends) <= DOMAINS.keys():
        raise ValueError(f"direction {direction}: a family's directions are called a-to-b and b-to-a")
    return DOMAINS[ends[0]], DOMAINS[ends[1]]
