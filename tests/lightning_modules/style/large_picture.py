"""Stylises a large real photograph and says how much memory that took: `python -m ... SIDE TILE OUT` (TILE 0: none)."""

from __future__ import annotations

import sys

import numpy as np
import torch

from gesso.common.pixels import to_uint8
from launch.inference.stylization import stylizer
from lightning_modules.kinds.stylizer import Style
from lightning_modules.pictures.sizes import resize
from tests.memory import resident
from tests.pictures import paintings, photographs


def main() -> None:
    side, tile, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.manual_seed(0)
    method = stylizer("adain", torch.device("cpu"))
    style = Style([paintings(256)[:1]])
    # Small once, so that code and weights are in memory.
    method.stylize(photographs(64)[:1], style)
    content = resize(photographs(512)[:1], (side, side))
    before = resident("VmHWM") / 2**20
    picture = method.stylize(content, style, tile=tile or None)
    print(before, resident("VmHWM") / 2**20)
    np.save(out, to_uint8(picture).numpy())


if __name__ == "__main__":
    main()
