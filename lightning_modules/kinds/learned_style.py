"""Families whose pictures a style encoder judges in training, or a discriminator on style pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from gesso.common.ranges import NonNegative, Positive
from gesso.common.ranks import rows_of_all_ranks, rows_of_this_rank
from lightning_modules.core.family import Batch, ImageFamily, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.perceiving import PerceivingFamily
from lightning_modules.losses.adversarial import discriminator_loss, generator_loss
from lightning_modules.losses.style_learned import StyleCodes, style_cross_entropy, style_distance
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from lightning_modules.networks.style_discriminator import StyleDiscriminator
from lightning_modules.networks.style_head import StyleHead, StyleHeadOptions


class LearnedStyleFamily(PerceivingFamily):
    """A family with losses by the codes of a trained style encoder, each off with a weight of 0.

    The encoder's head is in the checkpoints, but never trained: a resumed training does not need its run.

    Args:
        style_encoder: the run of a ``StyleEncoder``, a checkpoint or an exported file.
        style_head: the shape of its head.
        style_distance_weight: of the distance between a result's code and its style's.
        style_classifier_weight: of the cross-entropy of a classifier that is to find a result's style.
        style_temperature: of the classifier's softmax.
        options: those of ``ImageFamily``.

    Raises:
        ValueError: a weight without an encoder, or below 0.
    """

    #: What a family adds to its ``fixed_options``.
    learned_networks: ClassVar[tuple[str, ...]] = ("style_head",)

    def __init__(  # type: ignore[explicit-any] # options as ImageFamily declares them
        self,
        *,
        style_encoder: str | None = None,
        style_head: StyleHeadOptions = StyleHeadOptions(),
        style_distance_weight: NonNegative = 0.0,
        style_classifier_weight: NonNegative = 0.0,
        style_temperature: Positive = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        #: Weights of the losses by codes, by the names of these.
        self.code_weights = {"style_distance": style_distance_weight, "style_classifier": style_classifier_weight}
        check_weights(**{f"{name}_weight": weight for name, weight in self.code_weights.items()})
        if style_temperature <= 0:
            raise ValueError(f"style_temperature is {style_temperature}; it must be more than 0")
        self.style_encoder, self.style_temperature = style_encoder, style_temperature
        #: Whether a style encoder is among the judges.
        self.has_codes = any(self.code_weights.values())
        self._style_head_options = style_head
        if self.has_codes and not style_encoder:
            on = " and ".join(f"{name}_weight" for name, weight in self.code_weights.items() if weight)
            raise ValueError(f"{on}: name the run of a StyleEncoder by style_encoder")

    def build_judges(self, resolution: int) -> None:
        """Makes the networks of the losses with a weight, after the family's own, which so stay as they are without.

        Args:
            resolution: of the pictures in training.

        Raises:
            ValueError: pictures that are too small.
        """
        if self.has_codes:
            self.style_head = StyleHead(self._style_head_options).requires_grad_(False)

    def runs(self) -> dict[str, str]:
        """See ``ImageFamily``."""
        return {**super().runs(), **({"style_encoder": self.style_encoder or ""} if self.has_codes else {})}

    def take_run(self, option: str, module: ImageFamily) -> None:
        """See ``ImageFamily``."""
        if option != "style_encoder":
            return super().take_run(option, module)
        head = getattr(module, "head", None)
        if not isinstance(head, StyleHead):
            raise ValueError(f"is the run of {module.described()}; the run of a StyleEncoder is wanted")
        if head.options != self.style_head.options:
            wanted = " ".join(f"--model.style_head.{name} {value}" for name, value in vars(head.options).items())
            raise ValueError(f"its head has another shape: give {wanted}")
        self.style_head.load_state_dict(head.state_dict())

    def styles_of_batch(self, codes: Tensor, *, training: bool) -> tuple[Tensor, Tensor]:
        """A classifier's classes where each result has a style picture: codes [K, D], and each result's own, int64 [N].

        They are the style pictures of all ranks in training, and of this rank elsewhere, where ranks may have different
        numbers of batches.

        Args:
            codes: of the style pictures, [N, D].
            training: whether all ranks are here.

        Raises:
            ValueError: a classifier of one class.
        """
        if not training:
            return codes, torch.arange(len(codes), device=codes.device)
        styles = rows_of_all_ranks(codes)
        if self.code_weights["style_classifier"] and len(styles) < 2:
            raise ValueError(
                "style_classifier_weight: the classes are the style pictures of a batch: set data.global_batch_size "
                "to 2 or more per micro-batch"
            )
        return styles, rows_of_this_rank(torch.arange(len(styles), device=codes.device))

    def codes_of(self, pictures: Tensor) -> Tensor:
        """Codes [N, D] of length 1 of pictures [N, 3, H, W] in [-1, 1]."""
        return StyleCodes(self.encoder, self.style_head)(pictures)

    def code_terms(self, codes: Tensor, styles: Tensor, own: Tensor) -> dict[str, Tensor]:
        """The losses by codes whose weights are not 0.

        Args:
            codes: of the results, [N, D].
            styles: of the style pictures, which are the classifier's classes, [K, D].
            own: the number of each result's style among these, int64 [N].
        """
        terms: dict[str, Callable[[], Tensor]] = {
            "style_distance": lambda: style_distance(codes, styles[own]).mean(),
            "style_classifier": lambda: style_cross_entropy(codes, styles, own, temperature=self.style_temperature),
        }
        return {name: term() for name, term in terms.items() if self.code_weights[name]}


class AdversarialStyleFamily(LearnedStyleFamily):
    """The same with an adversarial style loss: a discriminator tells results from style pictures, patch by patch.

    It is told the style by VGG19's statistics of the style picture, and is updated after the family's own networks, by
    what these made before their update. Both sides have the hinge loss.

    Args:
        style_adversarial_weight: of the adversarial style loss; 0: there is no discriminator.
        style_discriminator: options of the discriminator.
        style_discriminator_optimizer: options of its optimizer.
        options: those of ``LearnedStyleFamily`` and ``ImageFamily``.
    """

    learned_networks: ClassVar[tuple[str, ...]] = (*LearnedStyleFamily.learned_networks, "style_discriminator")

    def __init__(  # type: ignore[explicit-any] # options as ImageFamily declares them
        self,
        *,
        style_adversarial_weight: NonNegative = 0.0,
        style_discriminator: PatchDiscriminatorOptions = PatchDiscriminatorOptions(
            normalization="none", spectral_norm=True
        ),
        style_discriminator_optimizer: OptimizerOptions = OptimizerOptions(lr=2e-4, beta1=0.0),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        check_weights(style_adversarial_weight=style_adversarial_weight)
        self.style_adversarial_weight = style_adversarial_weight
        self.style_discriminator_optimizer = style_discriminator_optimizer
        self._style_discriminator_options = style_discriminator
        #: What the discriminator will learn from in this step, of each micro-batch.
        self._judged: list[dict[str, Tensor]] = []

    @property
    def learned_weights(self) -> dict[str, float]:
        """Weights of all learned style losses, by the losses' names."""
        return {**self.code_weights, "style_adversarial": self.style_adversarial_weight}

    def build_judges(self, resolution: int) -> None:
        super().build_judges(resolution)
        if self.style_adversarial_weight:
            self.style_discriminator = StyleDiscriminator(self._style_discriminator_options)
            self.style_discriminator.patches.check_side(resolution, "style_discriminator")

    def judges(self) -> dict[str, OptimizerOptions]:
        """What a family's ``optimization`` has besides its own networks."""
        return {"style_discriminator": self.style_discriminator_optimizer} if self.style_adversarial_weight else {}

    def adversarial_terms(self, pictures: Tensor, statistics: Tensor, real: Tensor) -> dict[str, Tensor]:
        """The adversarial style loss, if it has a weight; keeps what the discriminator will learn from.

        Args:
            pictures: the results, [N, 3, H, W] in [-1, 1].
            statistics: of each one's style, [N, STATISTICS].
            real: parts of the style pictures, [N, 3, H, W] in [-1, 1].
        """
        self._judged.append({"fake": pictures.detach(), "statistics": statistics, "real": real})
        return {"style_adversarial": generator_loss("hinge", self.style_discriminator(pictures, statistics))}

    def update_style_discriminator(self, batch: Batch) -> None:
        """Updates the discriminator, if there is one, by what ``adversarial_terms`` has kept."""
        judged, self._judged = self._judged, []
        if judged:
            kept = {name: torch.cat([part[name] for part in judged]) for name in judged[0]}
            self.update("style_discriminator", self.style_discriminator_losses, {**batch, **kept})

    def style_discriminator_losses(self, batch: Batch) -> Losses:
        """The hinge loss on parts of style pictures and on results, each with the statistics of its style."""
        real, fake = (self.style_discriminator(batch[name], batch["statistics"]) for name in ("real", "fake"))
        loss = discriminator_loss("hinge", real, fake)
        return {"loss": loss, "real_logits": real.mean(), "fake_logits": fake.mean()}
