"""One network for 174 styles: a photograph in the manner of every painting, and how near each result is to its own.

    python -m tests.benchmarks.many_styles [--side 128] [--sheet sheet.jpg]

Figures of quality, not of time, of AdaIN with its authors' published decoder, which has not been trained on these
paintings. A distance is AdaIN's style loss (means and deviations at four layers of VGG19) of the result and the
painting, as a share of that of the photograph itself and the painting: 1 is a photograph that has taken nothing.
Rank is the painting's among all of them, nearest first. Prints a table, keeps the figures in
``tests/benchmarks/results/many_styles.json``, and makes a contact sheet of the first 100.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from datamodules.assets.fetching import fetch
from gesso.common.pixels import to_uint8
from lightning_modules.kinds.stylizer import Style
from lightning_modules.losses.style import mean_std
from lightning_modules.metrics.style import STYLE_LAYERS
from lightning_modules.networks.adain import Decoder
from lightning_modules.networks.vgg import VGG19
from lightning_modules.style.adain import AdaINTransfer
from tests.pictures import paintings, photographs

RESULTS = Path(__file__).parent / "results" / "many_styles.json"
PAINTINGS = 174
#: Rows and columns of the contact sheet, and the sides of its pictures in pixels.
SHEET, CELL = 10, 96


def spread(values: Tensor) -> dict[str, float]:
    """Percentiles 0, 5, 50, 95 and 100 by name."""
    return {f"{percent}%": float(np.percentile(values.numpy(), percent)) for percent in (0, 5, 50, 95, 100)}


class Distances:
    """AdaIN's style loss between pictures and all paintings.

    Args:
        encoder: VGG19 with published weights.
        pictures: the paintings, [N, 3, S, S] in [-1, 1].
    """

    def __init__(self, encoder: VGG19, pictures: Tensor) -> None:
        self.encoder = encoder
        found = [self._statistics(picture) for picture in pictures.split(1)]
        self.paintings = [torch.cat(layer) for layer in zip(*found, strict=True)]

    @torch.no_grad()
    def __call__(self, picture: Tensor) -> Tensor:
        """Distances of a picture [1, 3, H, W] from each painting, [N]."""
        ours = self._statistics(picture)
        # A sum of the mean squares of both statistics is twice the mean over both.
        squares = [(mine - theirs).square().mean(1) for mine, theirs in zip(ours, self.paintings, strict=True)]
        return 2 * torch.stack(squares).sum(0)

    @torch.no_grad()
    def _statistics(self, picture: Tensor) -> list[Tensor]:
        features = self.encoder(picture, STYLE_LAYERS)
        return [torch.cat(mean_std(features[name]), 1).flatten(1) for name in STYLE_LAYERS]


def stylized(network: AdaINTransfer, content: Tensor, pictures: Tensor) -> Iterator[Tensor]:
    """The content in the manner of each painting, [1, 3, H, W]."""
    for picture in pictures.split(1):
        yield network.stylize(content, Style([picture]))


def sheet(cells: list[Tensor], columns: int, side: int) -> Image.Image:
    """Pictures [1, 3, H, W] in rows, as squares of ``side`` pixels."""
    page = Image.new("RGB", (columns * side, -(-len(cells) // columns) * side))
    for number, cell in enumerate(cells):
        pixels = Image.fromarray(to_uint8(cell)[0].permute(1, 2, 0).numpy())
        row, column = divmod(number, columns)
        page.paste(pixels.resize((side, side), Image.Resampling.LANCZOS), (column * side, row * side))
    return page


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=128, help="of photograph and paintings, in pixels")
    parser.add_argument("--sheet", type=Path, help="file of the contact sheet")
    options = parser.parse_args()
    decoder = Decoder()
    decoder.load_published(fetch("adain_decoder", progress=False))
    network = AdaINTransfer(VGG19(fetch("vgg19_normalized", progress=False)), decoder).eval()
    content, pictures = photographs(options.side)[:1], paintings(options.side, PAINTINGS)
    distances = Distances(network.encoder, pictures)
    before, shares, ranks, cells = distances(content), [], [], []
    for number, result in enumerate(stylized(network, content, pictures)):
        after = distances(result)
        shares.append(after[number] / before[number])
        ranks.append(1 + int((after < after[number]).sum()))
        cells.append(result)
    share, rank = torch.stack(shares), torch.tensor(ranks)
    figures = {
        "side": options.side,
        "paintings": len(pictures),
        "share": spread(share),
        "mean_share": share.mean().item(),
        "first": (rank == 1).double().mean().item(),
        "mean_rank": rank.double().mean().item(),
        "worst_rank": int(rank.max()),
    }
    table = Table(title=f"A photograph in {len(pictures)} styles: distance from the painting, the photograph's being 1")
    for column in (*figures["share"], "mean", "own painting nearest", "mean rank"):
        table.add_column(column)
    ends = (f"{figures['first']:.0%}", f"{figures['mean_rank']:.2f}")
    table.add_row(*(f"{value:.3f}" for value in (*figures["share"].values(), figures["mean_share"])), *ends)
    Console().print(table)
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    if options.sheet:
        sheet(cells[: SHEET**2], SHEET, CELL).save(options.sheet, quality=88)


if __name__ == "__main__":
    main()
