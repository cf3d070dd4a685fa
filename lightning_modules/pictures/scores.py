"""Closed-form scores of pictures: brightness, hue, warmth, stroke width and slant.

Each takes images [N, 1 or 3, H, W] in [-1, 1] and gives float32 [N]. Strokes may be bright on a dark ground, as in
MNIST, or dark on a bright one: the border of a picture says which.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

import torch
from torch import Tensor

from gesso.common.pixels import LUMA

GROUP = "gesso.scorers"
#: Images to a number for each.
Scorer = Callable[[Tensor], Tensor]


def brightness(images: Tensor) -> Tensor:
    """Mean luma in [0, 1]: black is 0, white 1."""
    return _luma(images).mean((1, 2))


def hue(images: Tensor) -> Tensor:
    """Mean colour on the colour wheel, in degrees from -180 to 180: red is 0, green 120, blue -120; grey is 0.

    Pixels count by their chroma: the angle is that of their mean vector.
    """
    if images.shape[1] == 1:
        return images.new_zeros(len(images), dtype=torch.float32)
    red, green, blue = images.float().clamp(-1, 1).mean((2, 3)).unbind(1)
    return torch.rad2deg(torch.atan2(3**0.5 / 2 * (green - blue), red - (green + blue) / 2))


def warmth(images: Tensor) -> Tensor:
    """Mean of red minus blue, from -1 (blue) to 1 (red, yellow): unlike an angle, it has two ends; grey is 0."""
    if images.shape[1] == 1:
        return images.new_zeros(len(images), dtype=torch.float32)
    return (images[:, 0].float() - images[:, 2].float()).mean((1, 2)) / 2


def stroke_width(images: Tensor) -> Tensor:
    """Mean width of strokes in pixels: twice their area over their outline's length; 0 without strokes.

    Right for long straight strokes with smooth edges; short ones come out thinner, since their ends are outline, too.
    The outline's length is the total variation.
    """
    ink = on_dark(images)
    padded = torch.nn.functional.pad(ink[:, None], (1, 1, 1, 1))[:, 0]
    down, right = padded[:, 1:, :-1] - padded[:, :-1, :-1], padded[:, :-1, 1:] - padded[:, :-1, :-1]
    outline = (down.square() + right.square()).sqrt().sum((1, 2))
    return torch.where(outline > 0, 2 * ink.sum((1, 2)) / outline.clamp_min(1e-6), 0)


def slant(images: Tensor) -> Tensor:
    """Angle by which upright strokes lean to the right, in degrees: of the shear that would make the ink upright.

    tan(slant) = -cov(x, y) / var(y) of the ink, with y downwards: deskewing, as LeCun et al. did for MNIST. 0 without
    ink.
    """
    ink = on_dark(images)
    mass = ink.sum((1, 2), keepdim=True).clamp_min(1e-6)
    height, width = ink.shape[1:]
    y = torch.arange(height, device=ink.device, dtype=ink.dtype)[:, None].expand(height, width)
    x = torch.arange(width, device=ink.device, dtype=ink.dtype)[None].expand(height, width)
    share = ink / mass
    down = y - (share * y).sum((1, 2), keepdim=True)
    right = x - (share * x).sum((1, 2), keepdim=True)
    sheared, tall = (share * down * right).sum((1, 2)), (share * down.square()).sum((1, 2))
    return torch.rad2deg(torch.atan2(-sheared, tall.clamp_min(1e-6)))


def on_dark(images: Tensor) -> Tensor:
    """Ink in [0, 1], [N, H, W]: how much each pixel stands out from the ground, which is the border's mean luma."""
    luma = _luma(images)
    edges = torch.cat([luma[:, 0], luma[:, -1], luma[:, :, 0], luma[:, :, -1]], 1)
    ground = edges.mean(1)[:, None, None]
    return torch.where(ground > 0.5, 1 - luma, luma)


def _luma(images: Tensor) -> Tensor:
    """[N, H, W] in [0, 1]."""
    images = (images.float().clamp(-1, 1) + 1) / 2
    if images.shape[1] == 1:
        return images[:, 0]
    return torch.einsum("nchw,c->nhw", images, images.new_tensor(LUMA))


#: Scorers by name.
SCORERS: dict[str, Scorer] = {
    "brightness": brightness,
    "hue": hue,
    "warmth": warmth,
    "stroke-width": stroke_width,
    "slant": slant,
}


def scorer(name: str) -> Scorer:
    """A scorer by name: one of ours, or one that an installed package declares as an entry point of ``gesso.scorers``.

    ::

        [project.entry-points."gesso.scorers"]
        smile = "my_package.faces:smile"

    Raises:
        ValueError: no such name, or what a package declares is no function.
        ImportError: the package cannot be imported.
    """
    if name in SCORERS:
        return SCORERS[name]
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        names = ", ".join(dict.fromkeys([*SCORERS, *points]))
        raise ValueError(
            f"no scorer {name!r}; there are {names}; a package makes its own known as an entry point of {GROUP}"
        )
    try:
        found = points[name].load()
    except (ImportError, AttributeError) as error:
        raise ImportError(f"scorer {name} ({points[name].value}) cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"scorer {name} ({points[name].value}): must be a function of images [N, C, H, W] in [-1, 1]")
    return found
