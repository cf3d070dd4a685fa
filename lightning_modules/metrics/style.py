"""Metrics of stylised pictures: similarity with the content and with the style."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gesso.common.pixels import to_uint8
from lightning_modules.core.frozen import Frozen
from lightning_modules.losses.style import gram, gram_loss, mean_std, statistics_loss
from lightning_modules.metrics.features import FeatureExtractor, exact_float32, measuring
from lightning_modules.metrics.frechet import frechet_distance
from lightning_modules.metrics.similarity import in_range, structural_similarity
from lightning_modules.metrics.specs import OWN
from lightning_modules.metrics.statistics import SumMetric
from lightning_modules.networks.lpips import LPIPS
from lightning_modules.networks.vgg import VGG19

#: The metrics of the table that are computed here.
COMPUTED = tuple(spec.name for spec in OWN if "stylization" in spec.kinds)

#: Layers of VGG19 for the comparison with the content, and with the style.
CONTENT_LAYER = "relu4_1"
STYLE_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


class StyleMetrics(SumMetric):
    """Compares stylised pictures with their contents and their styles.

    Means over the pictures:

    - ``lpips``: content to stylised; from 0, lower keeps more.
    - ``ssim``: content to stylised, on the luminance, since a style may change the colours (Wang et al. 2004; Gaussian
      window of sigma 1.5); up to 1, higher keeps more.
    - ``content_cosine``: cosine similarity of the features at each place of ``CONTENT_LAYER``; up to 1, higher keeps
      more.
    - ``gram_distance``: ``losses.style.gram_loss`` of stylised and style, summed over ``STYLE_LAYERS``; from 0, lower
      is nearer.
    - ``statistics_distance``: the same of ``statistics_loss``: AdaIN's style loss.

    And over the set of them:

    - ``artfid``: (1 + LPIPS) (1 + FID), of the LPIPS above and the FID between stylised pictures and styles; from 1,
      lower is better (Wright and Ommer 2022). The paper's own numbers are others: its features are those of an
      Inception finetuned on art, which is not published here, and its code's LPIPS is AlexNet's. FID is biased upwards
      for few pictures: compare only numbers of equally many pictures.

    Keys of the results name the network: ``lpips/vgg16``, ``artfid/inception-tf``; all others use the normalised VGG19
    or no network.

    The networks move to the metric's device, and are not part of its state dict.

    Args:
        encoder: VGG19 with published weights.
        lpips: the network of ``lpips`` and ``artfid``.
        extractor: the feature extractor of ``artfid``.
        names: names of metrics; None: all that these networks allow.

    Raises:
        ValueError: an unknown name, or one whose network is missing.
    """

    count: Tensor
    sums: Tensor
    totals: Tensor
    outers: Tensor

    def __init__(
        self,
        encoder: VGG19,
        lpips: LPIPS | None = None,
        extractor: FeatureExtractor | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.names = _checked(names, lpips=lpips is not None, extractor=extractor is not None)
        self.encoder = Frozen(encoder)
        self.lpips = None if lpips is None else Frozen(lpips)
        self.extractor = None if extractor is None else Frozen(extractor)
        self.to(self.device)
        needed = {*self.names, "lpips"} if "artfid" in self.names else set(self.names)
        self.averaged = [name for name in COMPUTED if name in needed - {"artfid"}]
        self.add_sum("count", dtype=torch.int64)
        self.add_sum("sums", len(self.averaged))
        if extractor is not None and "artfid" in self.names:
            # Of the stylised pictures, and of the styles.
            self.add_sum("totals", 2, extractor.feature_dim)
            self.add_sum("outers", 2, extractor.feature_dim, extractor.feature_dim)

    def update(self, content: Tensor, stylized: Tensor, style: Tensor) -> None:
        """Adds pictures; each goes through each network once.

        Args:
            content, stylized: [N, 3, H, W], uint8, or float in [-1, 1] (and clamped to it); N may be 0.
            style: [N, 3, H', W'], likewise: what each was stylised with.

        Raises:
            ValueError: their shapes do not fit.
        """
        if content.shape != stylized.shape or content.shape[:2] != style.shape[:2] or content.shape[1:2] != (3,):
            shapes = ", ".join(str(tuple(images.shape)) for images in (content, stylized, style))
            raise ValueError(
                f"contents, stylised pictures and styles are [N, 3, H, W], the first two alike; got {shapes}"
            )
        if not len(content):
            return
        content, stylized, style = (in_range(images.to(self.device)) for images in (content, stylized, style))
        with measuring(self.device):
            means = self._means(content, stylized, style)
            self.sums += len(content) * torch.stack([means[name].double() for name in self.averaged])
            self.count += len(content)
            if "artfid" in self.names:
                self._add_features(stylized, style)

    def compute(self) -> dict[str, float]:
        """The metrics over all ranks, by name and, where there is a choice, network: ``{"lpips/vgg16": ..., ...}``.

        Raises:
            ValueError: no pictures; only one, for ``artfid``.
        """
        count = int(self.count)
        if count < 1 + ("artfid" in self.names):
            raise ValueError(f"there are too few pictures ({count}) for {', '.join(self.names)}")
        values: dict[str, float] = dict(zip(self.averaged, (self.sums / count).tolist(), strict=True))
        made_by: dict[str, str] = {"lpips": self.lpips.network.name if self.lpips is not None else ""}
        if self.extractor is not None and "artfid" in self.names:
            made_by["artfid"] = self.extractor.network.name
            values["artfid"] = (1 + values["lpips"]) * (1 + self._frechet(count))
        return {f"{name}/{made_by[name]}" if name in made_by else name: values[name] for name in self.names}

    def _means(self, content: Tensor, stylized: Tensor, style: Tensor) -> dict[str, Tensor]:
        """Scalars over the batch."""
        means = self._encoder_means(content, stylized, style)
        if "lpips" in self.averaged:
            assert self.lpips is not None
            means["lpips"] = self.lpips(stylized, content).mean()
        if "ssim" in self.averaged:
            means["ssim"] = structural_similarity(stylized, content)
        return means

    def _encoder_means(self, content: Tensor, stylized: Tensor, style: Tensor) -> dict[str, Tensor]:
        encoder, means = self.encoder, {}
        of_content = "content_cosine" in self.averaged
        of_style = bool({"gram_distance", "statistics_distance"} & set(self.averaged))
        layers = STYLE_LAYERS if of_style else (CONTENT_LAYER,)
        ours = encoder(stylized, layers) if of_content or of_style else {}
        if of_content:
            theirs = encoder(content, (CONTENT_LAYER,))[CONTENT_LAYER]
            means["content_cosine"] = F.cosine_similarity(ours[CONTENT_LAYER], theirs, dim=1).mean()
        if of_style:
            pairs = [(ours[layer], features) for layer, features in encoder(style, STYLE_LAYERS).items()]
            means["gram_distance"] = torch.stack([gram_loss(a, gram(b)) for a, b in pairs]).sum()
            means["statistics_distance"] = torch.stack([statistics_loss(a, *mean_std(b)) for a, b in pairs]).sum()
        return means

    def _add_features(self, stylized: Tensor, style: Tensor) -> None:
        assert self.extractor is not None
        for images, total, outer in zip((stylized, style), self.totals, self.outers, strict=True):
            features = self.extractor(to_uint8(images)).pool.double()
            total += features.sum(0)
            outer.addmm_(features.T, features)

    def _frechet(self, count: int) -> float:
        """FID between the stylised pictures and the styles."""
        means = self.totals / count
        covariances = (self.outers - count * means[:, :, None] * means[:, None, :]) / (count - 1)
        with exact_float32():
            return frechet_distance(means[0], covariances[0], means[1], covariances[1]).item()


def _checked(names: Sequence[str] | None, *, lpips: bool, extractor: bool) -> tuple[str, ...]:
    missing = {"lpips": not lpips, "artfid": not (lpips and extractor)}
    if names is None:
        return tuple(name for name in COMPUTED if not missing.get(name))
    if not names or set(names) - set(COMPUTED):
        raise ValueError(f"style metrics {', '.join(names) or '(none)'}: choose from {', '.join(COMPUTED)}")
    if refused := [name for name in names if missing.get(name)]:
        needs = "extractor" if lpips else "lpips"
        raise ValueError(f"the style metric {refused[0]} needs a network that is missing: pass {needs}")
    return tuple(names)
