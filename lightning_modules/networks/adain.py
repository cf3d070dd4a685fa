"""AdaIN's decoder: from VGG19's relu4_1 back to a picture (Huang and Belongie 2017)."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.vgg import load_in_order, reflect

#: Output channels of the convolutions; "up" doubles the side.
LAYOUT = (256, "up", 256, 256, 256, 128, "up", 128, 64, "up", 64, 3)


class Decoder(nn.Module):
    """Mirrors the encoder up to relu4_1: convolutions 3 x 3 with reflection padding, nearest upsampling, no norm."""

    def __init__(self) -> None:
        super().__init__()
        widths = [step for step in LAYOUT if isinstance(step, int)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3) for before, after in zip([512, *widths], widths, strict=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        """``[N, 512, H, W]`` -> pictures ``[N, 3, 8 H, 8 W]`` in [-1, 1], though not bound to it."""
        x, last = features, len(self.convolutions) - 1
        convolutions = iter(enumerate(self.convolutions))
        for step in LAYOUT:
            if step == "up":
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
                continue
            number, convolution = next(convolutions)
            x = convolution(reflect(x))
            x = x if number == last else F.relu(x)
        return x * 2 - 1

    def load_published(self, weights: Path) -> None:
        """Takes over the published decoder, the asset ``adain_decoder``.

        Raises:
            ValueError: the file holds something else.
        """
        load_in_order(self, weights, "the published AdaIN decoder", "adain_decoder")
