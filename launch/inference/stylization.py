"""Pictures in and out of style transfer: files to tensors, masks, sizes and colours."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from datamodules.decoding.frames import read_mask
from gesso.common.arguments import one_of
from gesso.common.text import counted
from launch.inference.animations import convert_file
from launch.inference.pictures import Finish, decode_file
from lightning_modules.kinds.stylizer import Style, Stylizer
from lightning_modules.pictures.colors import keep_chrominance, match_colors
from lightning_modules.pictures.sizes import fit

#: The methods with published weights.
Method = Literal["adain", "gatys"]
#: How the content's colours are kept: the style is recoloured beforehand, or only its luminance is taken.
KeepColors = Literal["no", "match", "luminance"]
#: A picture of more pixels is worked on in tiles of this side: 6 GB or so, whatever its size.
LARGEST, TILE = 2048**2, 1024


@dataclass(frozen=True)
class Request:
    """The options of a stylisation, for every picture.

    Args:
        styles: [1, 3, H, W] in [-1, 1] each; none for a run that was trained for styles of its own.
        weights: how much of each; None: equally much.
        masks: files, one for each style: white is where it goes, and where none is white the content stays; none:
            everywhere.
        regions: of each style, [H, W] in [0, 1]: where it is taken from; None: from all of its picture.
        alpha: from 0 (the content) to 1.
        colors: see ``KeepColors``.
        size: longer side of the result in pixels; None: the content's own.
        tile: side of the squares that are worked on one after the other, in pixels; None: the method's own
            (``tile_side``, or ``TILE``) for pictures larger than ``LARGEST``; 0: never.
    """

    styles: Sequence[Tensor]
    weights: Sequence[float] | None = None
    masks: Sequence[Path] = ()
    regions: Sequence[Tensor] | None = None
    alpha: float = 1.0
    colors: KeepColors = "no"
    size: int | None = None
    tile: int | None = None
    #: What methods have found out of the styles, by the method.
    _memories: dict[int, tuple[Stylizer, dict[Hashable, object]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def memory_of(self, stylizer: Stylizer) -> dict[Hashable, object]:
        """Where a method keeps what it finds out of the styles: see ``Style.of_each``."""
        # The method is held, so that no other gets its number.
        return self._memories.setdefault(id(stylizer), (stylizer, {}))[1]


def read_masks(files: Sequence[Path], content: Tensor) -> Tensor | None:
    """Masks of the content's size: [K, H, W] in [0, 1]; None without files."""
    if not files:
        return None
    return torch.stack([read_mask_of(file, content) for file in files]).to(content.device)


def read_mask_of(file: Path, picture: Tensor) -> Tensor:
    """A mask of the picture's size: [H, W] in [0, 1], on the CPU.

    Raises:
        ValueError: it has another size.
    """
    mask = torch.from_numpy(decode_file(file, read_mask)).float() / 255
    if mask.shape != picture.shape[2:]:
        (rows, columns), (height, width) = mask.shape, picture.shape[2:]
        raise ValueError(f"{file}: {columns} x {rows} pixels, the picture has {width} x {height}: make them equal")
    return mask


def stylize_file(
    file: Path,
    out: Path,
    stylizer: Stylizer,
    request: Request,
    device: torch.device,
    *,
    finish: Finish | None = None,
) -> Path:
    """Stylises one picture file, an animation frame by frame, and writes the result to ``out``.

    ``finish``: see ``launch.inference.pictures.save_frames``.
    """

    def stylize(content: Tensor) -> Tensor:
        content = content.to(device)
        return stylize_picture(content, read_masks(request.masks, content), stylizer, request)

    return convert_file(file, out, stylize, finish=finish)


def stylize_picture(content: Tensor, masks: Tensor | None, stylizer: Stylizer, request: Request) -> Tensor:
    """Stylises a picture [1, 3, H, W] in [-1, 1] where masks are white.

    Args:
        masks: of the picture's size, [K, H, W] in [0, 1]; None: everywhere.
    """
    if request.size is not None:
        content = fit(content, request.size)
        masks = None if masks is None else fit(masks[None], request.size)[0].clamp(0, 1)
    pictures = [style.to(content.device) for style in request.styles]
    if request.colors == "match":
        pictures = [match_colors(style, content) for style in pictures]
    tile = request.tile
    if tile is None:
        # A method of another package need not have a side of its own.
        side: int = getattr(stylizer, "tile_side", TILE)
        tile = side if content.shape[2] * content.shape[3] > LARGEST else 0
    # Styles in the colours of this picture are no other's.
    memory = None if request.colors == "match" else request.memory_of(stylizer)
    style = Style(pictures, request.weights, masks, request.alpha, request.regions, memory)
    picture = stylizer.stylize(content, style, tile=tile or None)
    if request.colors == "luminance":
        picture = keep_chrominance(picture, content)
    return picture if masks is None else style.placed(picture, content, len(masks))


def stylize_clip(
    file: Path,
    out: Path,
    stylizer: Stylizer,
    request: Request,
    device: torch.device,
    *,
    smooth: float,
    progress: Callable[[int, int | None], None],
    finish: Finish | None = None,
) -> str:
    """Stylises a video without flicker, see ``launch.inference.video``; returns a summary in one line."""
    from launch.inference.video import stylize_video

    stylize = frames_through(stylizer, request, device)
    report = stylize_video(file, out, stylize, smooth=smooth, progress=progress, finish=finish)
    calmer = f", {1 - report.flicker / report.flicker_raw:.0%} less than without" if report.flicker_raw > 0 else ""
    lost = "".join(f"; sound left out: {track}" for track in report.dropped)
    lost += "; transparency left out, which MP4 does not keep" if report.transparent else ""
    flicker = "" if math.isnan(report.flicker) else f"; flicker {report.flicker:.4f}{calmer}"
    return f"{counted(report.frames, 'frame')}, {report.seconds:.1f} s{flicker}{lost}"


def frames_through(stylizer: Stylizer, request: Request, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Stylises frames of one size: masks are read once, and styles wait on the device."""
    request = replace(request, styles=[style.to(device) for style in request.styles])
    masks: list[Tensor | None] = []

    def stylize(frame: Tensor) -> Tensor:
        frame = frame.to(device)
        if not masks:
            masks.append(read_masks(request.masks, frame))
        return stylize_picture(frame, masks[0], stylizer, request)

    return stylize


def trained(run: str, device: torch.device) -> tuple[Stylizer, dict[str, Any]]:
    """A run's own network, with the averaged weights, and where it comes from: see ``loading.load_family``.

    Raises:
        ValueError: the run's family does not stylise.
    """
    from launch.inference.loading import load_family

    module, origin = load_family(run, device=device)
    module.require("stylize")
    return module, origin


def stylizer(
    method: Method,
    device: torch.device,
    *,
    steps: int = 200,
    seed: int = 0,
    progress: Callable[[int, int, float], None] = lambda done, total, loss: None,
) -> Stylizer:
    """A method with its real weights, fetched if need be.

    Args:
        method: its name.
        device: of the weights.
        steps, seed, progress: of ``gatys``; see ``StyleOptimization``.

    Raises:
        ValueError: there is no such method.
    """
    one_of(method, "method", get_args(Method))
    from datamodules.assets.fetching import fetch
    from lightning_modules.networks.adain import Decoder
    from lightning_modules.networks.vgg import VGG19
    from lightning_modules.style.adain import AdaINTransfer
    from lightning_modules.style.gatys import StyleOptimization

    encoder = VGG19(fetch("vgg19_normalized"))
    if method == "gatys":
        return StyleOptimization(encoder.to(device), steps=steps, seed=seed, progress=progress)
    decoder = Decoder()
    decoder.load_published(fetch("adain_decoder"))
    return AdaINTransfer(encoder, decoder.requires_grad_(False)).to(device)
