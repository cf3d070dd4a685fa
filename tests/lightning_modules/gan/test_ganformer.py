"""GANformer: W, attention's picture; it resumes to the bit; ranks, micro-batches and recomputed blocks train alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from launch.inference.direction_finding import Samples, closed_form, scored
from launch.inference.w_editing import Sources, strip
from lightning_modules.gan.ganformer import GANformer
from lightning_modules.networks.ganformer.attention import AttentionOptions
from lightning_modules.networks.ganformer.mapping import ComponentMappingOptions
from lightning_modules.networks.ganformer.synthesis import ComponentSynthesisOptions
from lightning_modules.networks.stylegan2.discriminator import DiscriminatorOptions
from lightning_modules.pictures.scores import brightness
from tests.lightning_modules.gan.alike import check_w_space, resumed_to_the_bit, trained_alike, two_ranks_alike
from tests.lightning_modules.gan.test_stylegan2 import AUGMENT, BATCH, Data, Rows, small

WIDTHS: dict[str, Any] = {"channel_base": 128, "channel_max": 8}
PARTS = 3


def narrow(
    *, checkpointing: bool = False, features: int = 1, dropout: float = 0.0, kind: Any = "duplex", **options: Any
) -> GANformer:
    chosen: dict[str, Any] = {
        "latent_dim": 8 * (PARTS + 1),
        "mapping": ComponentMappingOptions(layers=2, w_dim=8, components=PARTS, dropout=dropout),
        "synthesis": ComponentSynthesisOptions(
            **WIDTHS,
            gradient_checkpointing=checkpointing,
            attention=AttentionOptions(kind, dropout=dropout, last_side=8),
        ),
        "discriminator": DiscriminatorOptions(
            **WIDTHS, mapping_layers=2, minibatch_features=features, gradient_checkpointing=checkpointing
        ),
        "path_length_weight": 2.0,
    }
    module = small(GANformer, **{**chosen, **options})
    assert isinstance(module, GANformer)
    return module


def simplex() -> GANformer:
    return narrow(kind="simplex", augmentation=AUGMENT)


def test_a_latents_path_length_is_that_of_one_of_them() -> None:
    """The penalty that the authors' TensorFlow code has: of squared lengths that are means over the latents."""
    module = narrow()
    assert module.path_length is not None
    weight, parts = module.path_length.weight, PARTS + 1
    ws = torch.randn(2, 3, 8 * parts, dtype=torch.float64, requires_grad=True)
    images, y = (ws.flatten(1) ** 2)[:, :12].view(2, 3, 2, 2), torch.randn(2, 3, 2, 2, dtype=torch.float64)

    class Noise:
        def randn(self, count: int, *shape: int) -> torch.Tensor:
            return y

    (slope,) = torch.autograd.grad((images * y).sum() / 2, ws, retain_graph=True)
    lengths = slope.view(2, 3, parts, 8).square().sum(3).mean((1, 2)).sqrt()
    mean = 0.01 * lengths.mean()
    expected = 2.0 * module.path_length.interval * (lengths - mean).square().mean()
    found = module.path_length.double()(images, ws, Noise())  # type: ignore[arg-type]
    torch.testing.assert_close(weight * found, expected)


def test_the_authors_have_no_path_length() -> None:
    assert GANformer(resolution=8, synthesis=ComponentSynthesisOptions(**WIDTHS)).path_length is None


def test_its_space_w_is_that_of_a_stylegan() -> None:
    module = narrow().eval()
    check_w_space(module, layers=7, styles=[(8, 32)] * 7)
    # Styles are of the global latent alone.
    for weight in module.w_space().style_weights():
        assert not weight[:, :24].any()
        assert weight[:, 24:].any()
    # Untrained, no noise has any strength: a path begins with the picture of its first end.
    index, times = torch.arange(3), torch.zeros(3, dtype=torch.float64)
    found = module.on_path(index, times, seed=1, space="w").clamp(-1, 1)
    expected = module.generate(2 * index, seed=1, labels=index % module.num_classes)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_it_is_edited_like_a_stylegan() -> None:
    """By 0 to the bit what is generated; along the direction of a score its mean rises; components move, too."""
    module = narrow(channels=1, num_classes=0).eval()
    space = module.w_space()
    found = scored(space, {"brightness": brightness}, Samples(200))
    pictures = strip(Sources(space, 16), found, 0, (0.0, 2.0))
    assert torch.equal(pictures[:, 0], module.generate(torch.arange(16), seed=0))
    assert brightness(pictures[:, 1]).mean() > brightness(pictures[:, 0]).mean() + 0.05
    axes = closed_form(space, "pca", Samples(100), count=2)
    assert axes.vectors[:, :24].abs().sum() > 0


def test_the_picture_of_attention() -> None:
    """Pixels that attend to one latent alone have its colour, at the resolution of the images."""
    module = narrow(channels=1).eval()
    shares = torch.zeros(5, 1, PARTS, 8, 8)
    shares[:, :, 0, :4], shares[:, :, 2, 4:] = 1, 1
    module.generator.synthesis.attention = lambda ws: [torch.rand(5, 1, PARTS, 4, 4), shares]  # type: ignore[method-assign]
    images, columns = module.attention_picture(5, seed=0)
    assert (images.shape, columns) == ((15, 3, 16, 16), 5)
    torch.testing.assert_close(images[:5], module.generate(torch.arange(5), seed=0).expand(-1, 3, -1, -1))
    upper, lower = images[5, :, :8].flatten(1), images[5, :, 8:].flatten(1)
    assert torch.equal(upper, upper[:, :1].expand_as(upper))
    assert torch.equal(lower, lower[:, :1].expand_as(lower))
    assert (upper[:, 0] - lower[:, 0]).abs().max() > 0.5
    torch.testing.assert_close(images[10:], (images[:5] + images[5:10]) / 2)


def test_previews_show_attention() -> None:
    previews = narrow().eval().previews({}, seed=0)
    assert list(previews) == ["samples", "interpolation", "attention"]


@pytest.mark.parametrize("kind", ["duplex", "simplex"])
def test_it_resumes_to_the_bit(kind: str, tmp_path: Path) -> None:
    # With dropout, too.
    def make() -> GANformer:
        return narrow(kind=kind, dropout=0.2, augmentation=AUGMENT)

    resumed_to_the_bit(tmp_path, make, Rows, until=4, batch_size=BATCH)


@pytest.mark.parametrize("other", [{"micro_batches": 2}, {"checkpointing": True}], ids=str)
@pytest.mark.parametrize("kind", ["duplex", "simplex"])
def test_micro_batches_and_recomputed_blocks_train_like_the_whole(
    kind: str, other: dict[str, Any], tmp_path: Path
) -> None:
    # Groups of the minibatch deviation, the path lengths' mean and dropout are of a micro-batch.
    plain: dict[str, Any] = {"features": 0, "path_length_weight": 0.0, "kind": kind}
    one, two = narrow(**plain), narrow(**plain, **other)
    trained_alike(tmp_path, one, two, Data(3))


@pytest.mark.slow
@pytest.mark.process
def test_two_ranks_train_like_one(tmp_path: Path) -> None:
    two_ranks_alike(tmp_path, simplex, Data(3))


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ValueError, match=r"latent_dim is 30; it must be a multiple of mapping.components \+ 1 \(4\)"):
        narrow(latent_dim=30)
