"""Base of all GANs: adversarial losses, penalties, and the order of updates."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gesso.common.ranges import Count, NonNegative, Positive
from gesso.common.schedules import Schedule, largest
from lightning_modules.core.deployment import Deployable, Layout
from lightning_modules.core.family import Batch, Losses
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.latent import LatentFamily
from lightning_modules.losses.adversarial import AdversarialLoss, discriminator_loss, generator_loss, pairs_images
from lightning_modules.losses.penalties import clip_weights_
from lightning_modules.losses.regularizers import (
    R1,
    R2,
    FirstOrderPenalty,
    FirstOrderPenaltyOfFakes,
    GradientPenalty,
    Regularizer,
)
from lightning_modules.losses.weights import check_weights
from lightning_modules.networks.augment.adaptive import AdaptiveAugmentation, AugmentOptions
from lightning_modules.networks.augment.differentiable import ConsistentChanges, DiffAugment, DiffAugmentOptions


class AdversarialFamily(LatentFamily):
    """A family with a ``generator`` (latents, labels -> images) and a ``discriminator`` (images, labels -> logits).

    Subclasses set both networks and the options of their optimizers.

    Args:
        loss: ``vanilla`` (Goodfellow et al. 2014, minimax), ``non_saturating``, ``lsgan`` (Mao et al. 2017), ``wgan``
            (Arjovsky et al. 2017, clipped weights), ``wgan_gp`` (Gulrajani et al. 2017), ``hinge`` (Miyato 2018) or
            ``rpgan`` (relativistic pairing, Jolicoeur-Martineau 2019; with R1 and R2: R3GAN, Huang et al. 2024).
        n_critic: steps of the discriminator per step of the generator, each on new images.
        weight_clip: bound c of the critic's weights for ``wgan``.
        lambda_gp: weight of WGAN-GP's gradient penalty.
        r1_gamma: weight gamma of the R1 penalty gamma/2 E|grad D(x)|^2 (Mescheder et al. 2018), a number or a schedule
            with ``start`` and ``end``; 0: none.
        r2_gamma: the same of R2, on generated images; 0: none.
        r1_interval: R1 and R2 are applied every so many steps, scaled by it (lazy regularisation, Karras et al. 2020).
        first_order_gamma: weight gamma of an estimate of R1 without double backward, which runs under ZeRO 3 and
            torch.compile as well: gamma/2 E((D(x + s e) - D(x)) / s)^2, e ~ N(0, I); 0: none.
        first_order_fake_gamma: the same of R2, on generated images; 0: none.
        augmentation: of all images that the discriminator sees, with a probability that follows its overfitting (ADA),
            or a schedule.
        diff_augment: changes of all images that the discriminator sees, always (DiffAugment), after ``augmentation``.
        bcr_real_weight, bcr_fake_weight: weights of balanced consistency regularisation (Zhao et al. 2020): squared
            differences of the logits of images and of changed images; 0: none; StyleSwin's authors have 10.
        options: those of ``ImageFamily``.
    """

    #: Whether the penalties are updates of their own, as StyleGAN2's are, or part of the discriminator's loss.
    penalties_apart: ClassVar[bool] = False

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: OptimizerOptions
    discriminator_optimizer: OptimizerOptions

    def __init__(  # type: ignore[explicit-any] # options as ImageFamily declares them
        self,
        *,
        loss: AdversarialLoss = "non_saturating",
        n_critic: Count = 1,
        weight_clip: Positive = 0.01,
        lambda_gp: NonNegative = 10.0,
        r1_gamma: NonNegative | Schedule = 0.0,
        r2_gamma: NonNegative | Schedule = 0.0,
        r1_interval: Count = 1,
        first_order_gamma: NonNegative | Schedule = 0.0,
        first_order_fake_gamma: NonNegative | Schedule = 0.0,
        augmentation: AugmentOptions = AugmentOptions(),
        diff_augment: DiffAugmentOptions = DiffAugmentOptions(),
        bcr_real_weight: NonNegative = 0.0,
        bcr_fake_weight: NonNegative = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if n_critic < 1 or r1_interval < 1:
            raise ValueError("n_critic and r1_interval must be 1 or more")
        check_weights(
            lambda_gp=lambda_gp,
            r1_gamma=r1_gamma,
            r2_gamma=r2_gamma,
            first_order_gamma=first_order_gamma,
            first_order_fake_gamma=first_order_fake_gamma,
            bcr_real_weight=bcr_real_weight,
            bcr_fake_weight=bcr_fake_weight,
        )
        self.loss, self.n_critic, self.weight_clip = loss, n_critic, weight_clip
        asked: list[Regularizer] = [
            R1(r1_gamma, r1_interval),
            R2(r2_gamma, r1_interval),
            FirstOrderPenalty(first_order_gamma),
            FirstOrderPenaltyOfFakes(first_order_fake_gamma),
        ]
        #: Penalties on the discriminator, added to its loss in this order; a family may add its own.
        self.regularizers: list[Regularizer] = [regularizer for regularizer in asked if largest(regularizer.factor) > 0]
        if loss == "wgan_gp":
            self.regularizers.insert(0, GradientPenalty(lambda_gp))
        self.augmentation = AdaptiveAugmentation(augmentation) if augmentation.transforms != "none" else None
        self.diff_augment = DiffAugment(diff_augment)
        self.bcr_weights = {"real": bcr_real_weight, "fake": bcr_fake_weight}
        self.changes = ConsistentChanges()

    def optimization(self) -> dict[str, OptimizerOptions]:
        return {"generator": self.generator_optimizer, "discriminator": self.discriminator_optimizer}

    def generating_networks(self) -> tuple[str, ...]:
        return ("generator",)

    def requires_double_backward(self) -> tuple[str, ...]:
        twice = any(regularizer.requires_double_backward for regularizer in self.regularizers)
        return ("discriminator",) if twice else ()

    def decode(self, latents: Tensor, labels: Tensor | None) -> Tensor:
        return self.decoded(self.generator, latents, labels)

    def decoded(self, generator: nn.Module, latents: Tensor, labels: Tensor | None) -> Tensor:
        """What ``decode`` does, with any generator of this kind."""
        images: Tensor = generator(latents, labels)
        return images.float()

    def deployable_parts(self) -> tuple[str, ...]:
        return ("generator",)

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """See ``Abilities.deployable``: latents (and labels) to images."""
        self.known_part(part)
        return self.deployable_decoder(self.generator, self.decoded, layout)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        if self.augmentation is not None:
            self.augmentation.begin_step(self.images_seen, total_kimg=self.total_kimg)
        super().training_step(batch, batch_idx)

    def step(self, batch: Batch) -> None:
        self.update_discriminator(batch)
        if self.is_generators_turn():
            self.update("generator", self.generator_losses, batch)

    def step_kind(self) -> Hashable | None:
        """See ``ImageFamily.step_kind``."""
        due = tuple((regularizer.name, self.weight_of(regularizer)) for regularizer in self.penalties_due())
        adapts = self.augmentation is not None and self.augmentation.adapts_after(self.steps_done)
        return self.is_generators_turn(), due, adapts

    def is_generators_turn(self) -> bool:
        """Whether the generator is updated in this step: once in ``n_critic``."""
        return (self.steps_done + 1) % self.n_critic == 0

    def update_discriminator(self, batch: Batch) -> None:
        """The discriminator's updates: by its loss, by penalties that have their own, and the bounds of its weights."""
        self.update("discriminator", self.discriminator_losses, batch)
        if self.penalties_apart and self.penalties_due():
            self.update("discriminator", self.penalty_losses, batch, log_loss=False)
        if self.loss == "wgan":
            with self.edited("discriminator"):
                clip_weights_(self.discriminator, self.weight_clip)
        if self.augmentation is not None:
            self.augmentation.end_step(self.steps_done)

    def penalties_due(self) -> list[Regularizer]:
        """The penalties whose turn is in this step."""
        return [regularizer for regularizer in self.regularizers if regularizer.due(self.steps_done)]

    def weight_of(self, regularizer: Regularizer) -> float:
        """What a penalty is multiplied with in this step."""
        return regularizer.weight(self.images_seen, total_kimg=self.total_kimg)

    def discriminator_losses(self, batch: Batch) -> Losses:
        """Adversarial loss on real and generated images; and the penalties due, where they are part of it."""
        real, critic = batch["image"], self._critic(self.labels_of(batch))
        fake = self.fakes(batch)
        real_logits, fake_logits = critic(real), critic(fake)
        if self.augmentation is not None:
            self.augmentation.watch(real_logits)
        adversarial = discriminator_loss(self.loss, real_logits, fake_logits)
        losses = {"loss": adversarial, "real_logits": real_logits.mean(), "fake_logits": fake_logits.mean()}
        # The measure of overfitting of ADA, arXiv:2006.06676: near 1, the discriminator knows the training images.
        losses["r_t"] = real_logits.detach().sign().float().mean()
        if self.augmentation is not None:
            losses["augmentation_p"] = self.augmentation.p
        for name, images, logits in (("real", real, real_logits), ("fake", fake, fake_logits)):
            if weight := self.bcr_weights[name]:
                value = (critic(self.changes(images, self)) - logits).float().square().mean()
                losses[f"bcr_{name}"] = value
                losses["loss"] = losses["loss"] + weight * value
        if not self.penalties_apart:
            for regularizer in self.penalties_due():
                value = regularizer(critic, real, fake, self)
                losses[regularizer.name] = value
                losses["loss"] = losses["loss"] + self.weight_of(regularizer) * value
        return losses

    def penalty_losses(self, batch: Batch) -> Losses:
        """The penalties due at this step, where they are updates of their own."""
        due, real, critic = self.penalties_due(), batch["image"], self._critic(self.labels_of(batch))
        fake = self.fakes(batch) if any(regularizer.needs_fakes for regularizer in due) else real
        logits: list[Tensor] = []

        def noting(images: Tensor) -> Tensor:
            logits.append(critic(images))
            return logits[-1]

        losses = {regularizer.name: regularizer(noting, real, fake, self) for regularizer in due}
        weighted = [self.weight_of(regularizer) * losses[regularizer.name] for regularizer in due]
        # Weights that no penalty depends on have a gradient of 0 rather than none: their optimizer goes on.
        touched = [0 * of_some.mean() for of_some in logits]
        return {"loss": torch.stack([*weighted, *touched]).sum(), **losses}

    def generator_losses(self, batch: Batch) -> Losses:
        """Adversarial loss of newly generated images."""
        critic = self._critic(self.labels_of(batch))
        logits = critic(self.fakes(batch))
        real_logits = critic(batch["image"]) if pairs_images(self.loss) else None
        return {"loss": generator_loss(self.loss, logits, real_logits)}

    def held_out_losses(self, batch: Batch) -> Losses:
        # A mean far below that of training images: the discriminator overfits.
        return {"real_logits": self.discriminator(batch["image"], self.labels_of(batch)).mean()}

    def fakes(self, batch: Batch) -> Tensor:
        """Generated images: as many as the batch has, with the batch's labels."""
        return self.generator(self.randn(len(batch["image"]), self.latent_dim), self.labels_of(batch))

    def labels_of(self, batch: Batch) -> Tensor | None:
        """The batch's labels, if the family is conditional."""
        return batch["label"] if self.num_classes else None

    def _critic(self, labels: Tensor | None) -> Callable[[Tensor], Tensor]:
        """The discriminator as it is trained: of augmented images."""
        return lambda images: self.discriminator(self.shown(images), labels)

    def shown(self, images: Tensor) -> Tensor:
        """What the discriminator sees of images in training: them, or augmented ones."""
        if self.augmentation is not None:
            images = self.augmentation(images, self)
        changed: Tensor = self.diff_augment(images, self)
        return changed
