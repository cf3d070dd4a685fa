"""StyleGAN3's networks with weights by formula, and what the authors' code made of the same ones.

The figures in ``tests/fixtures/stylegan3`` are outputs and gradients of NVlabs/stylegan3 in float64, run once on a CPU
with its reference operators, one image at a time, since it normalises the styles of a batch together; none of its code
or weights is here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_modules.networks.stylegan2.mapping import MappingOptions
from lightning_modules.networks.stylegan3.schedule import SynthesisOptions
from lightning_modules.networks.stylegan3.synthesis import Generator
from tests.lightning_modules.networks.stylegan2.mapped import CLASSES, RESOLUTION, fill_, formula

FIXTURES = Path(__file__).parents[3] / "fixtures" / "stylegan3"
MAPPING: dict[str, Any] = {"layers": 2, "w_dim": 12, "w_avg_beta": 0.998}
#: T and R; both are narrow and of few layers, one of which is upsampled, one is not and two are critical.
SYNTHESIS: dict[str, dict[str, Any]] = {
    "translation": {"layers": 5, "channel_base": 128, "channel_max": 16, "margin": 4},
    "rotation": {"layers": 5, "channel_base": 256, "channel_max": 24, "margin": 4, "rotation_equivariant": True},
}
CLASSES_OF = {"translation": CLASSES, "rotation": 0}
#: How the image is moved, inversely: turned by 0.1, shifted and a little larger.
TRANSFORM = [[0.9, -0.1, 0.06], [0.1, 0.9, -0.03], [0.0, 0.0, 1.0]]


def generator(name: str) -> Any:
    """The generator ``translation`` or ``rotation``."""
    network: Any = fill_(
        Generator(
            MappingOptions(**MAPPING),
            SynthesisOptions(**SYNTHESIS[name]),
            latent_dim=8,
            resolution=RESOLUTION,
            num_classes=CLASSES_OF[name],
        )
    )
    # Mean squares, which are positive.
    network.synthesis.magnitudes.copy_(1 + 0.3 * formula(tuple(network.synthesis.magnitudes.shape), 5))
    return network
