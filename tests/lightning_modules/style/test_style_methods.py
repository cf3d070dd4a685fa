"""Style transfer of real photographs and paintings: formulas, controls, and what a picture must not do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from lightning_modules.kinds.stylizer import Style
from lightning_modules.losses.style import gram, weighted_gram
from lightning_modules.networks.adain import Decoder
from lightning_modules.networks.vgg import VGG19
from lightning_modules.pictures.colors import keep_chrominance, match_colors
from lightning_modules.style.adain import AdaINTransfer
from lightning_modules.style.gatys import StyleOptimization
from lightning_modules.style.picture_loss import STYLE_LAYERS, PictureLoss, places
from tests.pictures import paintings, photographs


@pytest.fixture(scope="module")
def encoder() -> VGG19:
    return VGG19(fetch("vgg19_normalized", progress=False))


@pytest.fixture(scope="module")
def published(encoder: VGG19) -> AdaINTransfer:
    decoder = Decoder()
    decoder.load_published(fetch("adain_decoder", progress=False))
    return AdaINTransfer(encoder, decoder.requires_grad_(False))


def by_formula(published: AdaINTransfer, content: Tensor, style: Tensor, alpha: float) -> Tensor:
    """Equations 8 and 14 of the paper, written with nothing of ours but the two networks."""
    f, s = (published.encoder(picture, ("relu4_1",))["relu4_1"] for picture in (content, style))
    sigma = [(x.flatten(2).var(2) + 1e-5).sqrt()[..., None, None] for x in (f, s)]
    mu = [x.flatten(2).mean(2)[..., None, None] for x in (f, s)]
    t = sigma[1] * (f - mu[0]) / sigma[0] + mu[1]
    return published.decoder((1 - alpha) * f + alpha * t)


@pytest.mark.network
@pytest.mark.parametrize("alpha", [1.0, 0.4, 0.0])
def test_the_published_decoder_gives_the_papers_picture(published: AdaINTransfer, alpha: float) -> None:
    content, style = photographs(96)[:1], paintings(96)[:1]
    expected = by_formula(published, content, style, alpha).clamp(-1, 1)
    torch.testing.assert_close(published.stylize(content, Style([style], alpha=alpha)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.network
def test_the_picture_has_the_painting_s_statistics(published: AdaINTransfer, encoder: VGG19) -> None:
    content, style = photographs(192)[:1], paintings(192)[:1]

    def distance(picture: Tensor) -> float:
        ours, theirs = encoder(picture, ("relu3_1",))["relu3_1"], encoder(style, ("relu3_1",))["relu3_1"]
        return (ours.mean((2, 3)) - theirs.mean((2, 3))).norm().item()

    assert distance(published.stylize(content, Style([style]))) < 0.6 * distance(content)


@pytest.mark.network
@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 70), (61, 47), (64, 33)])
def test_pictures_of_any_size_keep_it(published: AdaINTransfer, height: int, width: int) -> None:
    content = photographs(80)[:1, :, :height, :width]
    picture = published.stylize(content, Style([paintings(64)[:1, :, :51]]))
    assert picture.shape == content.shape
    assert picture.isfinite().all()


@pytest.mark.network
def test_two_styles_mix_as_features(published: AdaINTransfer) -> None:
    content, (one, two) = photographs(64)[:1], paintings(64).split(1)
    alone = [published.stylize(content, Style([style])) for style in (one, two)]
    torch.testing.assert_close(published.stylize(content, Style([one, two], weights=[3, 0])), alone[0])
    mixed = published.stylize(content, Style([one, two], weights=[1, 1]))
    assert all((mixed - picture).abs().mean() > 0.02 for picture in alone)


@pytest.mark.network
def test_masks_put_styles_into_places(published: AdaINTransfer) -> None:
    content, (one, two) = photographs(128)[:1], paintings(128).split(1)
    left = torch.zeros(128, 128)
    left[:, :64] = 1
    picture = published.stylize(content, Style([one, two], masks=torch.stack([left, 1 - left])))
    for style, columns in ((one, slice(0, 24)), (two, slice(104, 128))):
        # Far from the border both agree with the whole picture in that style.
        torch.testing.assert_close(
            picture[..., columns], published.stylize(content, Style([style]))[..., columns], rtol=1e-3, atol=1e-3
        )


def test_shares_sum_to_one_and_uncovered_places_get_all_styles() -> None:
    content, style = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 4, 4)
    masks = torch.tensor([[[1.0, 0], [0, 0]], [[1, 1], [0, 0]]])
    share = Style([style, style], [1, 3], masks).shares(content, 2)
    torch.testing.assert_close(share.sum(0), torch.ones(2, 2))
    torch.testing.assert_close(share[0], torch.tensor([[0.25, 0], [0.25, 0.25]]))
    torch.testing.assert_close(Style(weights=[1, 3]).shares(content, 2).flatten(), torch.tensor([0.25, 0.75]))
    for bad, message in [
        (Style(weights=[1.0]), "1 weights for 2 styles"),
        (Style(weights=[0.0, 0]), "not all are 0"),
        (Style(masks=torch.ones(2, 3, 2)), "masks of 2 x 3 pixels"),
        (Style(alpha=1.5), "alpha is 1.5"),
    ]:
        with pytest.raises(ValueError, match=message):
            bad.shares(content, 2)


def test_a_place_that_no_mask_covers_keeps_the_content() -> None:
    content, picture = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2)
    masks = torch.tensor([[[1.0, 0], [0.25, 0]], [[1, 0.5], [0.25, 0]]])
    style = Style(masks=masks)
    torch.testing.assert_close(style.cover(content, 2), torch.tensor([[[1, 0.5], [0.5, 0]]]))
    placed = style.placed(picture, content, 2)
    assert torch.equal(placed[..., 1, 1], content[..., 1, 1])
    assert torch.equal(placed[..., 0, 0], picture[..., 0, 0])
    torch.testing.assert_close(placed[..., 0, 1], (content + picture)[..., 0, 1] / 2)
    assert Style(weights=[1, 0], masks=masks).cover(content, 2)[0, 0, 1] == 0
    assert Style().placed(picture, content, 2) is picture
    with pytest.raises(ValueError, match="black all over"):
        Style(masks=torch.zeros(2, 2, 2)).cover(content, 2)


# ---- the optimised picture ------------------------------------------------------------------------------------------


@pytest.mark.network
def test_losses_fall_over_the_scales_and_the_picture_takes_the_style(encoder: VGG19) -> None:
    content, style = photographs(96)[:1], paintings(96)[:1]
    reports: list[tuple[int, int]] = []
    method = StyleOptimization(
        encoder, steps=12, smallest=48, progress=lambda done, total, loss: reports.append((done, total))
    )
    picture = method.stylize(content, Style([style]))
    assert [(scale.side, scale.steps) for scale in method.scales] == [(48, 12), (96, 12)]
    for scale in method.scales:
        assert all(later <= earlier * 1.0001 for earlier, later in zip(scale.losses, scale.losses[1:], strict=False))
        assert scale.losses[-1] < 0.5 * scale.losses[0]
    assert reports[-1] == (24, 24)
    distances = [
        (gram(encoder(image, ("relu2_1",))["relu2_1"]) - gram(encoder(style, ("relu2_1",))["relu2_1"])).norm().item()
        for image in (content, picture)
    ]
    assert distances[1] < 0.5 * distances[0]


def picture_loss(
    encoder: VGG19, content: Tensor, style: Style, *, content_weight: float = 2, tile: int | None = None
) -> PictureLoss:
    share = style.shares(content, len(style.pictures))
    return PictureLoss(
        encoder,
        content,
        style.pictures,
        share,
        content_weight=content_weight,
        style_weight=50,
        tv_weight=0.5,
        tile=tile,
    )


@pytest.mark.network
def test_the_loss_is_the_papers(encoder: VGG19) -> None:
    content, style = photographs(48)[:1], paintings(48)[:1]
    picture = paintings(48)[1:]
    total, gradient = picture_loss(encoder, content, Style([style])).with_gradient(picture)
    pixels = picture.clone().requires_grad_()
    ours, theirs = (encoder(image, (*STYLE_LAYERS, "relu4_2")) for image in (pixels, style))
    expected = 2 * (ours["relu4_2"] - encoder(content, ("relu4_2",))["relu4_2"]).square().mean()
    for name in STYLE_LAYERS:
        matrices = [torch.einsum("nchw,ndhw->cd", f[name], f[name]) / f[name][0, 0].numel() for f in (ours, theirs)]
        expected = expected + 50 / 5 * (matrices[0] - matrices[1]).square().mean()
    rows, columns = (pixels.diff(dim=dim).abs().mean() for dim in (2, 3))
    expected = expected + 0.5 * (rows + columns)
    torch.testing.assert_close(total, expected.detach(), rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad(expected, pixels)[0]
    assert (gradient - wanted).norm() < 1e-3 * wanted.norm()


@pytest.mark.network
@pytest.mark.parametrize("masked", [False, True])
def test_tiles_give_the_loss_and_gradient_of_the_whole(encoder: VGG19, masked: bool) -> None:
    content, styles = photographs(130)[:1, :, :, :90], list(paintings(100).split(1))
    masks = torch.linspace(0, 1, 90).expand(130, 90)
    style = Style(styles, masks=torch.stack([masks, 1 - masks]) if masked else None)
    picture = content + 0.1 * torch.randn(content.shape, generator=torch.Generator().manual_seed(0))
    whole, tiled = (picture_loss(encoder, content, style, tile=tile) for tile in (None, 64))
    assert len(tiled.tiles) == 6
    (loss, gradient), (again, by_tiles) = whole.with_gradient(picture), tiled.with_gradient(picture)
    torch.testing.assert_close(again, loss, rtol=1e-4, atol=0)
    assert (by_tiles - gradient).norm() < 1e-3 * gradient.norm()


@pytest.mark.network
@pytest.mark.parametrize("start", ["content", "style", "noise"])
def test_the_same_seed_gives_the_same_picture(encoder: VGG19, start: str) -> None:
    content, style = photographs(32)[:1], paintings(40)[:1]
    pictures = [
        StyleOptimization(encoder, steps=2, smallest=32, start=start, seed=3).stylize(content, Style([style]))  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert torch.equal(*pictures)


@pytest.mark.network
def test_a_mask_s_gram_matrix_is_its_region_s(encoder: VGG19) -> None:
    content = photographs(32)[:1]
    features = encoder(content, ("relu2_1",))["relu2_1"]
    half = torch.ones(1, 32, 32)
    half[:, :, :16] = 0
    (place,) = places(half, content, 2)
    torch.testing.assert_close(weighted_gram(features, place), gram(features[..., 8:]))


# ---- colours --------------------------------------------------------------------------------------------------------


@pytest.mark.network
def test_matched_colours_have_the_content_s_mean_and_covariance() -> None:
    content, style = photographs(64)[:1] * 0.2, paintings(64)[:1]  # nothing is clamped
    matched = match_colors(style, content)
    ours, theirs = (image[0].flatten(1) for image in (matched, content))
    torch.testing.assert_close(ours.mean(1), theirs.mean(1), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(ours.cov(), theirs.cov(), atol=1e-3, rtol=1e-2)


@pytest.mark.network
def test_a_grey_painting_can_be_matched() -> None:
    grey = paintings(32)[:1].mean(1, keepdim=True).expand(1, 3, 32, 32)
    assert match_colors(grey, photographs(32)[:1]).isfinite().all()


@pytest.mark.network
def test_luminance_is_the_picture_s_and_colour_the_content_s() -> None:
    picture, content = paintings(32)[:1] * 0.4, photographs(32)[:1] * 0.4
    kept = keep_chrominance(picture, content)
    luminance = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    torch.testing.assert_close((kept * luminance).sum(1), (picture * luminance).sum(1), atol=1e-4, rtol=1e-4)
    # Differences of channels to luminance are the colours.
    ours, theirs = (image - (image * luminance).sum(1, keepdim=True) for image in (kept, content))
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-2)


@pytest.mark.network
def test_the_optimisation_takes_its_gradients_whatever_the_caller_does(encoder: VGG19) -> None:
    content, style = photographs(32)[:1], Style([paintings(32)[:1]])

    def optimised() -> Tensor:
        return StyleOptimization(encoder, steps=2).stylize(content.clone(), style)

    expected = optimised()
    with torch.no_grad():
        assert torch.equal(optimised(), expected)
    with torch.inference_mode():
        assert torch.equal(optimised(), expected)
