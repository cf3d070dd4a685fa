"""Motion against known shifts, smoothing without ghosts or blur, and flicker that is measured by a known motion."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_modules.pictures.flow import (
    Motion,
    TemporalConsistency,
    TemporalSmoother,
    blend,
    consistent,
    motion_between,
    warp,
)
from tests.pictures import paintings, photographs

SIDE = 160


class Clip:
    """A camera that pans and zooms over a photograph, a cup that moves through its picture, and the sensor's noise.

    Attributes:
        frames: [1, 3, SIDE, SIDE] in [-1, 1] each.
        covers: [SIDE, SIDE] each, True where the cup is.
        flows: [1, 2, SIDE, SIDE] each, the background's motion back to the frame before; the first has none.
    """

    def __init__(self, count: int, *, pan: float = 1.3, zoom: float = 0.002, noise: float = 0.012) -> None:
        rng = np.random.default_rng(0)
        ground, cup = (pixels(photographs(side)[number]) for side, number in ((400, 0), (120, 1)))
        y, x = np.indices((SIDE, SIDE), np.float32)
        self.frames: list[Tensor] = []
        self.covers: list[np.ndarray] = []
        self.flows: list[Tensor] = []
        for t in range(count):
            scale, left, top = 1 + zoom * t, 40 + pan * t, 60 + 0.6 * pan * t
            frame = look(ground, scale, left, top)
            column, row = 20 + 2.5 * t, SIDE * 0.55 + 20 * math.sin(t / 8)
            distance = np.hypot(x - column, y - row)
            cover = np.clip(24.5 - distance, 0, 1)[..., None]
            frame = frame * (1 - cover) + look(cup, 2, 60 - 2 * column, 60 - 2 * row) * cover
            self.frames.append(tensor((frame + rng.normal(0, noise, frame.shape)).clip(0, 1)))
            self.covers.append(distance < 25)
            before = 1 + zoom * (t - 1)
            steps = [(scale / before - 1) * place + step / before for place, step in ((x, pan), (y, 0.6 * pan))]
            self.flows.append(torch.from_numpy(np.stack(steps))[None].float())

    def background(self, t: int) -> Tensor:
        """Where the known motion holds, [1, 1, SIDE, SIDE]: off the cup and the borders, now and before."""
        cups = (self.covers[t] | self.covers[t - 1]).astype(np.uint8)
        clear = 1 - cv2.dilate(cups, np.ones((25, 25), np.uint8))
        clear[:4] = clear[-4:] = clear[:, :4] = clear[:, -4:] = 0
        return torch.from_numpy(clear)[None, None].float()


def look(image: np.ndarray, scale: float, left: float, top: float) -> np.ndarray:
    view = np.array([[scale, 0, left], [0, scale, top]], np.float32)
    how = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, view, (SIDE, SIDE), flags=how, borderMode=cv2.BORDER_REFLECT)


def pixels(picture: Tensor) -> np.ndarray:
    return (picture.permute(1, 2, 0).numpy() + 1) / 2


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None] * 2 - 1


def sharpness(picture: Tensor, where: Tensor | None = None) -> float:
    """Mean magnitude of the gradient, over all pixels or those that are 1 in ``where``."""
    slope = torch.hypot(picture[..., 1:, 1:] - picture[..., 1:, :-1], picture[..., 1:, 1:] - picture[..., :-1, 1:])
    if where is None:
        return slope.mean().item()
    return ((slope.mean(1, keepdim=True) * where[..., 1:, 1:]).sum() / where[..., 1:, 1:].sum()).item()


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip(48)


# ---- motion ---------------------------------------------------------------------------------------------------------


def test_a_warp_by_whole_pixels_moves_them() -> None:
    picture = photographs(40)[:1]
    flow = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 40, 40)
    torch.testing.assert_close(warp(picture, flow)[..., 2:, :-3], picture[..., :-2, 3:], rtol=0, atol=1e-5)
    torch.testing.assert_close(warp(picture, torch.zeros_like(flow)), picture, rtol=0, atol=1e-5)


def test_a_warp_by_parts_of_a_pixel_follows_a_wave() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(48.0), indexing="ij")

    def wave(x: Tensor, y: Tensor) -> Tensor:
        return (torch.sin(x / 4) * torch.cos(y / 5))[None, None]

    flow = torch.stack([0.3 + x / 100, -0.6 + y / 80])[None]
    expected = wave(x + flow[0, 0], y + flow[0, 1])
    torch.testing.assert_close(warp(wave(x, y), flow)[..., 3:-3, 3:-3], expected[..., 3:-3, 3:-3], rtol=0, atol=0.015)


@pytest.mark.parametrize(("pan", "zoom"), [(3.0, 0.0), (-1.5, 0.0), (0.7, 0.02)])
@pytest.mark.parametrize("longest", [640, 80])
def test_the_flow_is_the_cameras(pan: float, zoom: float, longest: int) -> None:
    clip = Clip(2, pan=pan, zoom=zoom)
    motion = motion_between(*clip.frames, longest=longest)
    error = (motion.flow - clip.flows[1]).norm(dim=1)[clip.background(1)[:, 0] > 0]
    assert error.median() < (0.15 if longest == 640 else 0.3)
    assert motion.flow.shape == (1, 2, SIDE, SIDE)
    assert motion.visible.shape == motion.trust.shape == (1, 1, SIDE, SIDE)
    assert (motion.visible * clip.background(1)).sum() > 0.9 * clip.background(1).sum()


def test_what_was_covered_is_not_visible() -> None:
    clip = Clip(20)
    (now, before), motion = (clip.covers[k] for k in (19, 17)), motion_between(clip.frames[17], clip.frames[19])
    uncovered = torch.from_numpy(before & ~now)
    assert uncovered.sum() > 100
    # All but the outline, which no flow finds to the pixel.
    assert motion.visible[0, 0][uncovered].mean() < 0.2
    assert motion.trust[0, 0][uncovered].mean() < 0.15
    # The cup itself is seen to move.
    inside = torch.from_numpy(cv2.erode(now.astype(np.uint8), np.ones((21, 21), np.uint8)) > 0)
    assert motion.visible[0, 0][inside].mean() > 0.9


def test_the_check_of_both_directions_is_the_papers() -> None:
    back = np.zeros((8, 10, 2), np.float32)
    back[..., 0] = 2
    assert consistent(back, -back)[:, :-2].all()
    # Two columns come from outside.
    assert not consistent(back, -back)[:, -2:].any()
    # |w + w'|^2 <= 0.01 (|w|^2 + |w'|^2) + 0.5
    for gap, passes in ((0.75, True), (0.80, False)):
        forth = -back + np.array([0, gap], np.float32)
        limit = 0.01 * (4 + 4 + gap**2) + 0.5
        assert (gap**2 <= limit) is passes
        assert consistent(back, forth)[:, :-2].all() == passes
    # |grad u|^2 + |grad v|^2 <= 0.01 |w|^2 + 0.002
    for slope, passes in ((0.1, True), (0.5, False)):
        sheared = back + np.array([0, slope], np.float32) * np.arange(8, dtype=np.float32)[:, None, None]
        forth = -sheared
        flat = consistent(sheared, forth)[2:4, 2:5]
        assert flat.all() == passes


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 50), (12, 12), (33, 61)])
def test_any_size_has_a_motion(height: int, width: int) -> None:
    pictures = photographs(64)[:2, :, :height, :width]
    motion = motion_between(pictures[:1], pictures[:1])
    assert motion.flow.shape == (1, 2, height, width)
    assert motion.flow.abs().max() == 0
    assert motion.visible.min() == motion.trust.min() == 1
    smoother = TemporalSmoother(0.8)
    for picture in pictures:
        assert smoother(picture[None], picture[None]).shape == (1, 3, height, width)


# ---- the measure ----------------------------------------------------------------------------------------------------


def still(side: int = 16) -> Motion:
    return Motion(torch.zeros(1, 2, side, side), torch.ones(1, 1, side, side), torch.ones(1, 1, side, side))


def test_the_error_of_a_known_difference() -> None:
    metric = TemporalConsistency()
    before = photographs(16)[:1] / 2
    metric.update(before, before + 0.2, still().visible)
    metric.update(before, before - 0.4, still().visible)
    # In [0, 1] the differences are 0.1 and 0.2.
    found = metric.compute()
    assert found["warping_error"].item() == pytest.approx(0.15, abs=1e-6)
    assert found["warped_psnr"].item() == pytest.approx(-10 * math.log10((0.01 + 0.04) / 2), abs=1e-4)


def test_hidden_places_do_not_count() -> None:
    metric = TemporalConsistency()
    motion = still()
    motion.visible[..., :8] = 0
    before, now = torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)
    now[..., :8], now[..., 8:] = 1, 0.1
    metric.update(before, now, motion.visible)
    assert metric.compute()["warping_error"].item() == pytest.approx(0.05, abs=1e-7)
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert TemporalConsistency().compute()["warping_error"].isnan()


def test_parts_add_up(clip: Clip) -> None:
    """Two ranks, or two videos, are as one: states are sums."""
    steps = [(a, b, motion_between(a, b).visible) for a, b in zip(clip.frames[:4], clip.frames[1:5], strict=True)]
    whole, parts = TemporalConsistency(), [TemporalConsistency(), TemporalConsistency()]
    for number, step in enumerate(steps):
        whole.update(*step)
        parts[number % 2].update(*step)
    summed = sum(part.absolute for part in parts) / sum(part.count for part in parts)
    assert whole.compute()["warping_error"].item() == pytest.approx(float(summed), rel=1e-6)


def test_a_video_that_only_moves_does_not_flicker() -> None:
    clip = Clip(3, pan=2.0, zoom=0.0, noise=0.0)
    moving, boiling = TemporalConsistency(), TemporalConsistency()
    noise = torch.Generator().manual_seed(0)
    for before, now in zip(clip.frames, clip.frames[1:], strict=False):
        motion = motion_between(before, now)
        carried = warp(before, motion.flow)
        moving.update(carried, now, motion.visible)
        boiling.update(carried, now + 0.1 * torch.randn(now.shape, generator=noise), motion.visible)
    assert moving.compute()["warping_error"] < 0.01
    # Noise of deviation s has the mean magnitude s sqrt(2 / pi).
    assert boiling.compute()["warping_error"].item() == pytest.approx(0.05 * math.sqrt(2 / math.pi), rel=0.1)


# ---- smoothing ------------------------------------------------------------------------------------------------------


def test_nothing_is_done_at_0_and_1_is_no_strength(clip: Clip) -> None:
    smoother = TemporalSmoother(0)
    for frame in clip.frames[:3]:
        assert smoother(frame, frame) is frame
    assert smoother.raw.compute() == smoother.smoothed.compute()
    for bad in (-0.1, 1.0, 7.0, math.nan):
        with pytest.raises(ValueError, match="smooth is"):
            TemporalSmoother(bad)


def test_blending_is_the_formula_where_nothing_is_averaged_away() -> None:
    """Smooth pictures have no detail to bring back."""
    ramp = torch.linspace(-0.5, 0.5, 64).expand(1, 3, 64, 64)
    trust = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2 + 0.4
    trust = F.avg_pool2d(trust, 9, 1, 4)
    expected = ramp + trust * 0.8 * ((ramp + 0.1) - ramp)
    torch.testing.assert_close(blend(ramp, ramp + 0.1, trust, 0.8), expected, rtol=0, atol=6e-3)


def test_unrelated_textures_keep_their_strength() -> None:
    """An average of two has 1 / sqrt(2) of it."""
    one, two = (0.2 * torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    mixed = blend(one, two, torch.ones(1, 1, 96, 96), 0.5)
    assert (one + two).div(2).std().item() == pytest.approx(0.2 / math.sqrt(2), rel=0.02)
    assert mixed.std().item() == pytest.approx(0.2, rel=0.03)


def test_a_cut_leaves_nothing_of_the_scene_before(clip: Clip) -> None:
    one, two, three = photographs(SIDE).split(1)
    assert motion_between(one, two).trust.max() == 0
    for first, second in ((one, two), (two, three), (clip.frames[5], two)):
        smoother = TemporalSmoother(0.9)
        smoother(first, first)
        torch.testing.assert_close(smoother(second, second), second, rtol=0, atol=1e-6)


def test_no_ghost_follows_a_moving_thing() -> None:
    """Taken as it is, a video needs no smoothing: what differs afterwards is a trail, or blur."""
    clip = Clip(30, noise=0.004)
    smoother = TemporalSmoother(0.9)
    naive = clip.frames[0]
    errors: list[tuple[float, float]] = []
    for t, frame in enumerate(clip.frames):
        out = smoother(frame, frame)
        if t == 0:
            continue
        naive = torch.lerp(frame, warp(naive, motion_between(clip.frames[t - 1], frame).flow), 0.9)
        trail = torch.from_numpy(np.any(clip.covers[max(0, t - 4) : t], axis=0) & ~clip.covers[t])[None, None].float()
        found = [((x - frame).abs().mean(1, keepdim=True) / 2 * trail).sum() / trail.sum() for x in (out, naive)]
        errors.append((found[0].item(), found[1].item()))
        edge = torch.from_numpy(cv2.morphologyEx(clip.covers[t].astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5))))
        outline = edge[None, None].float()
        assert sharpness(out, outline) > 0.9 * sharpness(frame, outline)
        assert sharpness(out) > 0.95 * sharpness(frame)
    ours, theirs = np.mean(errors, 0)
    assert ours < 0.012
    # Without the masks there is one.
    assert theirs > 4 * ours


def test_the_style_may_have_another_size(clip: Clip) -> None:
    smoother = TemporalSmoother(0.8)
    noise = torch.Generator().manual_seed(0)
    for frame in clip.frames[:8]:
        small = F.interpolate(frame, (97, 120), mode="bilinear", antialias=True)
        assert smoother(frame, small + 0.1 * torch.randn(small.shape, generator=noise)).shape == (1, 3, 97, 120)
    assert smoother.smoothed.compute()["warping_error"] < 0.6 * smoother.raw.compute()["warping_error"]


@pytest.fixture(scope="module")
def stylised(clip: Clip) -> list[list[Tensor]]:
    """The clip in two styles, frame by frame, by the published AdaIN."""
    from datamodules.assets.fetching import fetch
    from lightning_modules.losses.style import adain, mean_std
    from lightning_modules.networks.adain import Decoder
    from lightning_modules.networks.vgg import VGG19

    encoder, decoder = VGG19(fetch("vgg19_normalized", progress=False)), Decoder()
    decoder.load_published(fetch("adain_decoder", progress=False))

    def features(picture: Tensor) -> Tensor:
        return encoder(picture, ("relu4_1",))["relu4_1"]

    with torch.no_grad():
        styles = [mean_std(features(style)) for style in paintings(256).split(1)]
        return [[decoder(adain(features(x), *style)).clamp(-1, 1) for x in clip.frames] for style in styles]


@pytest.mark.slow
def test_real_style_transfer_flickers_less_and_stays_sharp(clip: Clip, stylised: list[list[Tensor]]) -> None:
    for raw in stylised:
        smoother = TemporalSmoother(0.8)
        out = [smoother(content, styled) for content, styled in zip(clip.frames, raw, strict=True)]
        reported = smoother.smoothed.compute()["warping_error"] / smoother.raw.compute()["warping_error"]
        assert reported < 0.6
        assert smoother.smoothed.compute()["warped_psnr"] > smoother.raw.compute()["warped_psnr"] + 4
        # By the camera's own motion, and nothing that the smoother made: no mask, no flow of it.
        flicker = {}
        for name, video in (("raw", raw), ("out", out)):
            known = TemporalConsistency()
            for t in range(1, len(video)):
                known.update(warp(video[t - 1], clip.flows[t]), video[t], clip.background(t))
            flicker[name] = known.compute()["warping_error"].item()
        assert flicker["out"] < 0.6 * flicker["raw"]
        assert np.mean([sharpness(x) for x in out[8:]]) > 0.8 * np.mean([sharpness(x) for x in raw[8:]])
        # Still the same picture: colours do not drift away.
        for mine, theirs in zip(out[8::8], raw[8::8], strict=True):
            assert (mine.mean((2, 3)) - theirs.mean((2, 3))).abs().max() / 2 < 0.02
