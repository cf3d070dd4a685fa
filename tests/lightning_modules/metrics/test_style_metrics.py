"""Metrics of style transfer on photographs and paintings, against torchmetrics, scipy and plain formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from datamodules.assets.fetching import fetch
from lightning_modules.losses.style import mean_std
from lightning_modules.metrics.features import FeatureExtractor, build_extractor
from lightning_modules.metrics.style import STYLE_LAYERS, StyleMetrics
from lightning_modules.networks.adain import Decoder
from lightning_modules.networks.instance_norm import adain
from lightning_modules.networks.lpips import LPIPS
from lightning_modules.networks.vgg import VGG19
from tests.lightning_modules.metrics.metrics_reference import scipy_frechet
from tests.pictures import paintings, photographs, scikit_ssim

KEYS = ["lpips/alexnet", "ssim", "content_cosine", "gram_distance", "statistics_distance", "artfid/inception-tf"]


class _TinyNetwork(nn.Module):
    """Fixed random features: fast, and its statistics are no less real."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Parameter(torch.randn(3 * 64, 3, generator=torch.Generator().manual_seed(0)) / 8)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return nn.functional.adaptive_avg_pool2d(x, 8).flatten(1) @ self.project, None


def tiny_extractor() -> FeatureExtractor:
    return FeatureExtractor(
        "inception-tf", _TinyNetwork(), lambda images: images / 128 - 1, feature_dim=3, num_classes=0
    )


def make_metrics() -> StyleMetrics:
    lpips = LPIPS(fetch("alexnet_lpips", progress=False), "alexnet")
    return StyleMetrics(VGG19(fetch("vgg19_normalized", progress=False)), lpips, tiny_extractor())


@pytest.fixture(scope="module")
def metrics() -> StyleMetrics:
    return make_metrics()


def triples(count: int, side: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Contents, mixtures that stand for stylised pictures, styles of another size: uint8."""
    photographed, painted = photographs(side).repeat(count // 3 + 1, 1, 1, 1)[:count], paintings(side, count)
    mixed = torch.lerp(photographed, painted, torch.linspace(0.1, 0.9, count).view(-1, 1, 1, 1))
    pictures = [photographed, mixed, paintings(side + 9, count)]
    content, mixed, style = (images.add(1).mul(127.5).round().to(torch.uint8) for images in pictures)
    return content, mixed, style


def evaluate(metrics: StyleMetrics, batches: list[tuple[Tensor, ...]]) -> dict[str, float]:
    metrics.reset()
    for batch in batches:
        metrics.update(*batch)
    return metrics.compute()


def split(pictures: tuple[Tensor, ...], sizes: list[int]) -> list[tuple[Tensor, ...]]:
    return list(zip(*(images.split(sizes) for images in pictures), strict=True))


def to_float(images: Tensor) -> Tensor:
    return images / 127.5 - 1


@pytest.mark.network
def test_every_metric_is_its_formula(metrics: StyleMetrics) -> None:
    pictures = triples(5)
    results = evaluate(metrics, split(pictures, [3, 2]))
    assert list(results) == KEYS
    content, stylized, style = map(to_float, pictures)
    encoder, lpips, extractor = networks_of(metrics)

    distance = lpips(content, stylized).mean().item()
    assert results["lpips/alexnet"] == pytest.approx(distance, rel=1e-5)
    fid = scipy_frechet(extractor(pictures[1]).pool, extractor(pictures[2]).pool)
    assert results["artfid/inception-tf"] == pytest.approx((1 + distance) * (1 + fid), rel=1e-4)

    weights = torch.tensor([0.299, 0.587, 0.114])
    grey = [torch.einsum("nchw,c->nhw", images.double(), weights.double()) / 255 for images in pictures[:2]]
    assert results["ssim"] == pytest.approx(scikit_ssim(*grey), rel=1e-6)

    expected: dict[str, list[float]] = {"content_cosine": [], "gram_distance": [], "statistics_distance": []}
    for pair in zip(content, stylized, style, strict=True):
        maps = [{k: v[0].double().numpy() for k, v in encoder(x[None], STYLE_LAYERS).items()} for x in pair]
        a, b = (m["relu4_1"] for m in maps[:2])
        cosine = (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
        expected["content_cosine"].append(cosine.mean())
        ours, theirs = ([m[layer].reshape(len(m[layer]), -1) for layer in STYLE_LAYERS] for m in maps[1:])
        both = list(zip(ours, theirs, strict=True))
        grams = [((x @ x.T / x.shape[1] - y @ y.T / y.shape[1]) ** 2).mean() for x, y in both]
        means = [((x.mean(1) - y.mean(1)) ** 2).mean() for x, y in both]
        # The AdaIN paper's code adds 1e-5 to the variances.
        deviations = [(x.var(1, ddof=1) + 1e-5) ** 0.5 - (y.var(1, ddof=1) + 1e-5) ** 0.5 for x, y in both]
        expected["gram_distance"].append(sum(grams))
        expected["statistics_distance"].append(sum(means) + sum((d**2).mean() for d in deviations))
    for name, values in expected.items():
        assert results[name] == pytest.approx(np.mean(values), rel=1e-4)


@pytest.mark.network
def test_floats_equal_bytes_and_an_empty_share_adds_nothing(metrics: StyleMetrics) -> None:
    pictures = triples(4)
    expected = evaluate(metrics, [pictures])
    floats = tuple(map(to_float, pictures))
    # What lies beyond the range is clamped to it.
    beyond = tuple(torch.where(images == 1, 1.5, images) for images in floats)
    empty = tuple(images[:0] for images in pictures)
    assert evaluate(metrics, [empty, *split(beyond, [1, 3])]) == pytest.approx(expected, rel=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert evaluate(metrics, [pictures]) == pytest.approx(expected, rel=1e-5)
    assert metrics(*pictures) == pytest.approx(expected, rel=1e-4)


@pytest.mark.network
def test_equal_pictures(metrics: StyleMetrics) -> None:
    content, _, _ = triples(3)
    results = evaluate(metrics, [(content, content, content)])
    assert results == pytest.approx(dict(zip(KEYS, [0, 1, 1, 0, 0, 1], strict=True)), abs=1e-5)


def networks_of(metrics: StyleMetrics) -> tuple[VGG19, LPIPS, FeatureExtractor]:
    assert metrics.lpips is not None
    assert metrics.extractor is not None
    return metrics.encoder.network, metrics.lpips.network, metrics.extractor.network


@pytest.mark.network
def test_each_picture_passes_each_network_once(metrics: StyleMetrics) -> None:
    passed = {"encoder": 0, "lpips": 0, "extractor": 0}
    encoder, lpips, extractor = networks_of(metrics)

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            passed[name] += len(inputs[0])

        return module.register_forward_pre_hook(count)

    watched = {"encoder": encoder.normalize, "lpips": lpips.stages[0], "extractor": extractor.network}
    handles = [watch(name, module) for name, module in watched.items()]
    evaluate(metrics, [triples(2)])
    for handle in handles:
        handle.remove()
    assert passed == {"encoder": 6, "lpips": 4, "extractor": 4}


@pytest.mark.network
def test_the_networks_belong_to_somebody_else(metrics: StyleMetrics) -> None:
    assert not metrics.state_dict()
    assert not list(metrics.parameters())


def _rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        pictures = triples(4)
        # Shares of different sizes; then one rank has all.
        shares: list[list[tuple[Tensor, ...]]] = [split(pictures, [3, 1])[rank : rank + 1], [pictures] if rank else []]
        metrics = make_metrics()
        torch.save([evaluate(metrics, share) for share in shares], folder / f"{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.network
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_ranks_equal_one_process(metrics: StyleMetrics, tmp_path: Path) -> None:
    mp.spawn(_rank, (tmp_path,), nprocs=2)
    expected = evaluate(metrics, [triples(4)])
    for rank in range(2):
        for results in torch.load(tmp_path / f"{rank}.pt"):
            assert results == pytest.approx(expected, rel=1e-4)


@pytest.mark.network
def test_adain_moves_from_the_content_to_the_style(metrics: StyleMetrics) -> None:
    content, style = photographs(64), paintings(64, 3)
    encoder, lpips, _ = networks_of(metrics)
    decoder = Decoder()
    decoder.load_published(fetch("adain_decoder", progress=False))
    with torch.no_grad():
        features, statistics = encoder(content, ("relu4_1",))["relu4_1"], encoder(style, ("relu4_1",))["relu4_1"]
        stylized = decoder(adain(features, *mean_std(statistics)))
    extractor = build_extractor("mobilenet_v2", fetch("mobilenet_v2", progress=False))
    metric = StyleMetrics(encoder, lpips, extractor)
    before, after = (evaluate(metric, [(content, images, style)]) for images in (content, stylized))
    assert "artfid/mobilenet_v2" in after
    for name in ("gram_distance", "statistics_distance"):
        assert after[name] < 0.2 * before[name]
    assert after["artfid/mobilenet_v2"] < before["artfid/mobilenet_v2"]
    assert after["lpips/alexnet"] > 0.2
    assert after["ssim"] < 0.8
    assert after["content_cosine"] < 0.8
    # Yet the content is nearer than another picture's.
    other = evaluate(metric, [(content.roll(1, 0), stylized, style)])
    assert after["lpips/alexnet"] < other["lpips/alexnet"]
    assert after["content_cosine"] > other["content_cosine"]
    print(before, after, other)


@pytest.mark.network
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_what_does_not_fit_is_refused(metrics: StyleMetrics) -> None:
    encoder, lpips, extractor = networks_of(metrics)
    assert StyleMetrics(encoder).names == ("ssim", "content_cosine", "gram_distance", "statistics_distance")
    with pytest.raises(ValueError, match="style metrics fid: choose from lpips, ssim"):
        StyleMetrics(encoder, names=["fid"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="metric lpips needs .* pass lpips"):
        StyleMetrics(encoder, None, extractor, ["ssim", "lpips"])
    with pytest.raises(ValueError, match="metric artfid needs .* pass extractor"):
        StyleMetrics(encoder, lpips, names=["artfid"])
    artfid = StyleMetrics(encoder, lpips, extractor, ["artfid"])
    content, stylized, style = triples(2)
    with pytest.raises(ValueError, match="the first two alike"):
        artfid.update(content, stylized[:1], style)
    with pytest.raises(ValueError, match="the first two alike"):
        artfid.update(content, stylized, style[:1])
    artfid.update(content[:1], stylized[:1], style[:1])
    with pytest.raises(ValueError, match=r"too few pictures \(1\) for artfid"):
        artfid.compute()
    artfid.update(content[1:], stylized[1:], style[1:])
    assert artfid.compute().keys() == {"artfid/inception-tf"}
