"""Interface of all families: what each can do and what it needs. Callbacks and commands ask this, never the class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import lightning as L
import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_modules.core.deployment import Deployable, Layout
    from lightning_modules.kinds.stylizer import Style
    from lightning_modules.kinds.w_space import WSpace
    from lightning_modules.metrics.evaluator import EvaluationOptions, Evaluator

#: A batch on the device: ``image`` float32 NCHW in [-1, 1], ``label`` int64 [N] (-1: none), maybe ``caption``.
Batch = Mapping[str, Any]  # type: ignore[explicit-any] # tensors, but for captions and the position
#: What a family may be able to do; each is a method.
Ability = Literal[
    "generate",
    "interpolate",
    "sample_with",
    "edit",
    "w_space",
    "on_path",
    "transformed",
    "stylize",
    "translate",
    "translate_in_style",
    "encode",
    "codes",
    "sheet",
    "deployable",
]

#: Texts of the error for each ability that a family lacks.
_LACKS: dict[Ability, str] = {
    "generate": "makes no samples: it can neither generate nor be scored by them",
    "interpolate": "has no latents to interpolate between",
    "sample_with": "makes a picture in one pass: it takes no sampler, steps, guidance or truncation",
    "edit": "edits no pictures",
    "w_space": "has no latent space W, which a StyleGAN has: no directions, projections or mixed styles",
    "on_path": "has no latents: there is no path between two of them",
    "transformed": "has no input that moves and turns with the image, which a StyleGAN3 has",
    "stylize": "puts no picture into another's style",
    "translate": "translates no pictures from one domain into another",
    "translate_in_style": "has one translation of each picture: it takes no styles",
    "encode": "encodes no pictures into latents: it is no autoencoder",
    "codes": "encodes no pictures into vectors",
    "sheet": "has no sheet of held-out pictures to show",
    "deployable": "cannot be exported: it names no network for use alone",
}


class CannotDo(ValueError):
    """A family lacks an ability that was asked for."""


class Preview(NamedTuple):
    """A grid of images for people to look at: ``images`` NCHW in [-1, 1], row by row in ``columns`` columns."""

    images: Tensor
    columns: int


@dataclass(frozen=True)
class BatchSpec:
    """Requirements on a training batch.

    Args:
        images: keys of its images; the first is ``image``.
        channels: of the images: 1, 3 or None (any).
        resolution: height and width of the images in pixels; None: any.
        num_classes: number of classes of ``label``, for a conditional family; 0: labels are not used.
        captions: whether the family is conditioned on ``caption``.
        latents: whether ``image`` holds latents in place of pictures, [N, 2 channels, h, w]: the means of an encoder's
            posterior, then its standard deviations. ``channels`` and ``resolution`` are then those of a latent.
    """

    images: tuple[str, ...] = ("image",)
    channels: int | None = None
    resolution: int | None = None
    num_classes: int = 0
    captions: bool = False
    latents: bool = False


class Abilities(L.LightningModule):
    """Base with every method that a family can have; a kind of family overrides those that it supports."""

    def abilities(self) -> frozenset[Ability]:
        """Names of the abilities that this family has."""
        return frozenset(name for name in _LACKS if getattr(type(self), name) is not getattr(Abilities, name))

    def described(self) -> str:
        """The family's name with its article, for messages: ``a VAE``, ``an AdaIN``."""
        name = type(self).__name__
        return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"

    def require(self, ability: Ability) -> None:
        """Checks that the family has an ability.

        Raises:
            CannotDo: it has not; one line.
        """
        if ability not in self.abilities():
            self._cannot(ability)

    def _cannot(self, ability: Ability) -> NoReturn:
        raise CannotDo(f"{self.described()} {_LACKS[ability]}")

    # ---- what it can do ---------------------------------------------------------------------------------------------

    def generate(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        """Samples number ``index`` (int64 [N]) of the infinite sequence ``seed``: NCHW in [-1, 1].

        A sample depends on (seed, index) alone: any number of ranks makes the same set.

        Raises:
            CannotDo: this family does not generate.
        """
        self._cannot("generate")

    def interpolate(self, *, pairs: int, steps: int, seed: int) -> Preview:
        """``pairs`` rows, each of ``steps`` images between two random samples.

        Raises:
            CannotDo: this family has no latents.
        """
        self._cannot("interpolate")

    def sample_with(self, changes: Mapping[str, object]) -> dict[str, object]:
        """Changes how samples are made: ``sampler``, ``steps`` ... (``samplers.sampling``), or ``truncation_psi``.

        Returns:
            The changes that undo it.

        Raises:
            CannotDo: this family takes no steps from noise to picture.
            ValueError: an unknown option or sampler, or a number out of its range.
        """
        self._cannot("sample_with")

    def sampled(self) -> dict[str, object]:
        """How samples are made, as a figure made of them has to say: sampler, steps, evaluations of the network ..."""
        return {}

    def edit(
        self,
        pictures: Tensor,
        index: Tensor,
        *,
        seed: int,
        strength: float = 0.5,
        known: Tensor | None = None,
        labels: Tensor | None = None,
        resamples: int = 1,
    ) -> Tensor:
        """Makes new pictures out of pictures [N, C, H, W] in [-1, 1].

        Args:
            pictures: of the family's resolution and channels.
            index: int64 [N]: which of the infinite sequence of versions.
            seed: of that sequence.
            strength: how much is made anew, from 0 (nothing) to 1 (all); without ``known``.
            known: bool [N or 1, 1, H, W], True where the picture is kept, bit for bit: the rest is filled in.
            labels: int64 [N]; None: as ``generate``.
            resamples: how often each stretch of steps is gone down when filling in (RePaint).

        Raises:
            CannotDo: this family edits no pictures.
        """
        self._cannot("edit")

    def w_space(self) -> WSpace:
        """The generator's latent space W, in which pictures are projected, mixed and edited.

        Raises:
            CannotDo: this family has none.
        """
        self._cannot("w_space")

    def on_path(self, index: Tensor, times: Tensor, *, seed: int, space: Literal["z", "w"]) -> Tensor:
        """Images on paths between samples, which perceptual path lengths follow: NCHW about in [-1, 1].

        Args:
            index: int64 [N]: path number i goes from sample 2i to sample 2i + 1 of the sequence ``seed``, both of one
                class and with one noise.
            times: float64 [N]: where on each path, from 0 to 1.
            seed: of the sequence.
            space: ``z``: the great circle between latents; ``w``: the straight line in W.

        Raises:
            CannotDo: this family has no latents, or no W.
        """
        self._cannot("on_path")

    def transformed(self, index: Tensor, transforms: Tensor, *, seed: int) -> Tensor:
        """Samples whose network's input is moved and turned: NCHW about in [-1, 1], not clamped.

        Args:
            index: int64 [N]; of ``generate``.
            transforms: [N, 3, 3], where each place of the image comes from, in sides of the image, from its middle.
            seed: of ``generate``.

        Raises:
            CannotDo: this family has no such input.
        """
        self._cannot("transformed")

    def stylize(self, content: Tensor, style: Style, *, tile: int | None = None) -> Tensor:
        """Stylises the content picture [1, 3, H, W] with one or several styles: see ``kinds.stylizer.Stylizer``.

        Raises:
            CannotDo: this family does not stylise.
        """
        self._cannot("stylize")

    @property
    def own_styles(self) -> tuple[str, ...]:
        """Names of the fixed styles that ``stylize`` was trained for; empty: it takes any style picture."""
        return ()

    def translate(self, images: Tensor, direction: str) -> Tensor:
        """Translates images [N, C, H, W] in [-1, 1] into the other domain: see ``kinds.translating``.

        Raises:
            CannotDo: this family does not translate.
        """
        self._cannot("translate")

    def translate_in_style(self, images: Tensor, direction: str, styles: Tensor) -> Tensor:
        """Translates like ``translate``, each image in the style [N, D] or [1, D] that is given for it.

        Raises:
            CannotDo: this family has one translation of each image.
        """
        self._cannot("translate_in_style")

    def draw_styles(self, count: int, *, seed: int, direction: str | None = None) -> Tensor:
        """``count`` styles [count, D] of the sequence ``seed``, of a direction's target domain (None: the main one's).

        Raises like ``translate_in_style``.
        """
        self._cannot("translate_in_style")

    def translation_styles(self, images: Tensor, direction: str | None = None) -> Tensor | None:
        """The style, [N, D], in which ``translate`` puts each picture by itself in a direction (None: the main one).

        None where the family takes no styles.
        """
        return None

    def style_of(self, images: Tensor, direction: str) -> Tensor:
        """Styles [N, D] of images of a direction's target domain; raises like ``translate_in_style``."""
        self._cannot("translate_in_style")

    def directions(self) -> tuple[str, ...]:
        """Directions that ``translate`` accepts, the main one first; empty: it does not translate."""
        return ()

    def known_direction(self, name: str | None) -> str:
        """Checks a direction's name; None stands for the main one.

        Raises:
            ValueError: the family does not translate, or not in this direction.
        """
        self.require("translate")
        known = self.directions()
        if name is not None and name not in known:
            raise ValueError(f"direction {name}: {self.described()} translates {' and '.join(known)}")
        return known[0] if name is None else name

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes images [N, C, H, W] in [-1, 1] into maps of latents.

        Returns:
            Mean and log variance (natural logarithm) of each latent, float32 [N, latent channels, h, w] each.

        Raises:
            CannotDo: this family is no autoencoder.
        """
        self._cannot("encode")

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Decodes maps of latents [N, latent channels, h, w], as ``encode`` makes them, to float32 images in [-1, 1].

        Raises:
            CannotDo: this family is no autoencoder.
        """
        self._cannot("encode")

    def codes(self, images: Tensor) -> Tensor:
        """Encodes images [N, C, H, W] in [-1, 1] into vectors, float32 [N, D], in whose numbers factors may be found.

        Raises:
            CannotDo: this family has no such codes.
        """
        self._cannot("codes")

    def encoder_checksum(self) -> str:
        """SHA-256 of the encoder's weights: says whether latents are of this very encoder.

        Raises:
            CannotDo: this family is no autoencoder.
        """
        self._cannot("encode")

    def sheet(self, held_out: Batch) -> Preview:
        """A grid of held-out images beside the family's results for them.

        Raises:
            CannotDo: the family takes no images.
        """
        self._cannot("sheet")

    def deployable(self, part: str, layout: Layout) -> Deployable:
        """One network for use without this package, folded, and what it must agree with.

        Args:
            part: one of ``deployable_parts``.
            layout: sizes of its inputs.

        Raises:
            CannotDo: this family has none.
            ValueError: it has no such part, or not in this layout; one line.
        """
        self._cannot("deployable")

    def deployable_parts(self) -> tuple[str, ...]:
        """Names of what ``deployable`` knows, the main one first; empty: none."""
        return ()

    def known_part(self, name: str | None) -> str:
        """Checks the name of a deployable part; None stands for the main one.

        Raises:
            ValueError: the family exports nothing, or no such part.
        """
        self.require("deployable")
        known = self.deployable_parts()
        if name is not None and name not in known:
            raise ValueError(f"part {name}: {self.described()} exports {', '.join(known)}")
        return known[0] if name is None else name

    # ---- what it needs ----------------------------------------------------------------------------------------------

    def batch_spec(self) -> BatchSpec:
        """Requirements on a training batch, from the options ``channels``, ``resolution`` and ``num_classes``."""
        options = self.hparams
        return BatchSpec(
            channels=options.get("channels"),
            resolution=options.get("resolution"),
            num_classes=options.get("num_classes") or 0,
        )

    def picture_shape(self) -> tuple[int | None, int | None]:
        """Channels and side in pixels of the pictures that the family makes or takes; None: any."""
        spec = self.batch_spec()
        return spec.channels, spec.resolution

    def example_batch(self, count: int) -> Batch:
        """A training batch of ``count`` random images, to measure memory with.

        Raises:
            ValueError: ``batch_spec`` has no resolution.
        """
        spec = self.batch_spec()
        if spec.resolution is None:
            raise ValueError(f"{self.described()} names no resolution in batch_spec: no batch can be made up for it")
        shape = (count, (spec.channels or 3) * (2 if spec.latents else 1), spec.resolution, spec.resolution)
        return {
            **{key: torch.rand(shape) * 2 - 1 for key in spec.images},
            "label": torch.arange(count) % max(spec.num_classes, 1),
            **({"caption": [""] * count} if spec.captions else {}),
            "index": torch.arange(count),
            "position": count,
        }

    def pictures(self) -> dict[str, tuple[str, ...]]:
        """Files of pictures that training needs besides its batches, by option; they are read before it begins."""
        return {}

    def take_pictures(self, option: str, pictures: Sequence[Tensor]) -> None:
        """Receives the pictures of an option, [1, 3, H, W] in [-1, 1] each."""
        raise NotImplementedError(option)

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def evaluator(self, options: EvaluationOptions) -> Evaluator | None:
        """The evaluator that measures this family; None: no metrics.

        Raises:
            ValueError: a metric is asked for that cannot be measured of this family.
        """
        if options.metrics:
            raise CannotDo(
                f"{options.option}: {', '.join(options.metrics)} cannot be measured of {self.described()}, which "
                "neither generates, stylises nor translates: leave the option out"
            )
        return None
