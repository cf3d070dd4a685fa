"""Whether FastStyle repeats small tiles in what is flat: three photographs in the style of a run.

    python -m tests.benchmarks.style_tiles RUN [--before docs/images/fast-style.jpg] [--sheet sheet.png]

Figures of quality, not of time: the highest peak of the autocorrelation of the photographs' flat places beyond the
size of the painting's strokes (``lightning_modules.metrics.repetition``), of all three photographs together and of
each; the painting's own and the photographs' beside them. ``--before`` measures such a sheet as ``--sheet`` writes.
Prints a table and keeps it in ``tests/benchmarks/results/style_tiles.json``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gesso.common.pixels import to_float, to_uint8
from launch.inference.loading import load_family
from launch.training.family_files import load_pictures
from lightning_modules.metrics.repetition import Repetition, flat_places, repetition, stroke_size, unframed
from lightning_modules.style.fast_style import FastStyle
from tests.pictures import photographs

RESULTS = Path(__file__).parent / "results" / "style_tiles.json"
#: Sides of the pictures, and the white between those of the sheet.
SIDE, GAP = 256, 4
NAMES = ("astronaut", "cat", "coffee")
GOAL = 0.3


def contents() -> Tensor:
    """Three photographs in the order of ``NAMES``, [3, 3, SIDE, SIDE]."""
    return photographs(SIDE)[[0, 2, 1]]


def sheet(painting: Tensor, upper: Tensor, lower: Tensor) -> Image.Image:
    """The painting at the left, photographs above and their results below."""
    page = Image.new("RGB", (4 * SIDE + 3 * GAP, 2 * SIDE + GAP), "white")
    left = _image(painting)
    page.paste(left, (0, (page.height - left.height) // 2))
    for row, pictures in enumerate((upper, lower)):
        for column, picture in enumerate(pictures.split(1)):
            page.paste(_image(picture), ((column + 1) * (SIDE + GAP), row * (SIDE + GAP)))
    return page


def results_of(page: Image.Image) -> Tensor:
    """The three results of such a sheet, [3, 3, SIDE, SIDE]."""
    pixels = to_float(torch.from_numpy(np.asarray(page.convert("RGB")).copy())).permute(2, 0, 1)
    lower = pixels[:, SIDE + GAP :]
    return torch.stack([lower[:, :, start : start + SIDE] for start in range(SIDE + GAP, page.width, SIDE + GAP)])


def _image(picture: Tensor) -> Image.Image:
    return Image.fromarray(to_uint8(picture)[0].permute(1, 2, 0).numpy())


def measured(pictures: Tensor, places: Tensor, stroke: float) -> dict[str, Repetition]:
    """Of all pictures together, and of each."""
    each = zip(NAMES, pictures.split(1), places.split(1), strict=True)
    return {
        "all": repetition(pictures, places, stroke=stroke),
        **{name: repetition(picture, flat, stroke=stroke) for name, picture, flat in each},
    }


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="of FastStyle, with one painting")
    parser.add_argument("--before", type=Path, help="a sheet to compare with")
    parser.add_argument("--sheet", type=Path, help="file of the sheet")
    options = parser.parse_args()
    run, origin = load_family(options.run)
    assert isinstance(run, FastStyle)
    load_pictures(run)
    ((painting, style),) = run.styles_of({})
    upper = contents()
    lower = torch.cat([run.stylize(photograph, style) for photograph in upper.split(1)])
    stroke, places = stroke_size(painting), flat_places(upper)
    found = {"photographs": measured(upper, places, stroke)}
    if options.before:
        found["before"] = measured(results_of(Image.open(options.before)), places, stroke)
    found["now"] = measured(lower, places, stroke)
    own = repetition(painting, unframed(painting), stroke=stroke)
    table = Table(title=f"Highest peak beyond {stroke:.1f} px; the painting's own: {own.peak:.2f}; goal: {GOAL}")
    for column in ("", "all", *NAMES):
        table.add_column(column)
    for name, peaks in found.items():
        table.add_row(name, *(f"{peak.peak:.2f} at {peak.shift}" for peak in peaks.values()))
    Console().print(table)
    figures = {
        "images_seen": origin["images_seen"],
        "stroke": stroke,
        "painting": own.peak,
        **{name: {key: [peak.peak, peak.shift] for key, peak in peaks.items()} for name, peaks in found.items()},
    }
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    if options.sheet:
        sheet(painting, upper, lower).save(options.sheet, quality=90)


if __name__ == "__main__":
    main()
