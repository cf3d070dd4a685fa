"""StyleGAN3's synthesis network and generator: features that move with the image.

Karras et al. 2021, arXiv:2106.12423.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_modules.networks.checkpointing import checkpointed
from lightning_modules.networks.precision import (
    ExactBuffers,
    at_least_float32,
    in_full_precision,
    inner_dtype,
    weights_dtype,
)
from lightning_modules.networks.stylegan2.generator import StyleGenerator
from lightning_modules.networks.stylegan2.layers import EqualizedLinear, bias_act, modulated_conv2d
from lightning_modules.networks.stylegan3.filters import (
    RadialDownsampling,
    Resampling,
    kaiser_lowpass,
    radial_lowpass,
)
from lightning_modules.networks.stylegan3.schedule import Signal, SynthesisOptions, schedule


class FourierFeatures(nn.Module):
    """Waves of random frequency and phase, which w turns and moves; then a learned mixture of them.

    Args:
        signal: what it gives.
        w_dim: dimensions of w.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, signal: Signal, w_dim: int) -> None:
        super().__init__()
        self.signal = signal
        drawn = torch.randn(signal.channels, 2)
        radii = drawn.square().sum(1, keepdim=True).sqrt()
        # Uniform on the disc of the bandwidth.
        self.register_buffer("frequencies", drawn / (radii * radii.square().exp().pow(0.25)) * signal.cutoff)
        self.register_buffer("phases", torch.rand(signal.channels) - 0.5)
        self.weight = nn.Parameter(torch.randn(signal.channels, signal.channels))
        self.affine = EqualizedLinear(w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        """Features ``[N, channels, size, size]``, at least float32.

        Args:
            w: ``[N, w_dim]``.
            transform: where each place of the image comes from, ``[3, 3]`` or ``[N, 3, 3]`` in sides of the image,
                from its middle: the inverse of how the image is to move; None: it stays.
        """
        turned = in_full_precision(self.affine(w))
        turned = turned / turned[:, :2].norm(dim=1, keepdim=True)
        cos, sin, x, y = turned.unbind(1)
        rotation = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        shift = rotation @ torch.stack([-x, -y], 1)[:, :, None]
        if transform is not None:
            transform = transform.to(w)
            shift = shift + rotation @ transform[..., :2, 2:]
            rotation = rotation @ transform[..., :2, :2]
        frequencies, signal = self.frequencies.to(turned.dtype), self.signal
        phases = self.phases + (frequencies @ shift).squeeze(2)
        moved = frequencies @ rotation
        # Waves beyond the band, which a transform may make, are dampened.
        beyond = (moved.norm(dim=2) - signal.cutoff) / (signal.rate / 2 - signal.cutoff)
        amplitudes = (1 - beyond).clamp(0, 1)
        # Middles of the pixels, in sides of the image.
        places = (torch.arange(signal.size, device=w.device, dtype=turned.dtype) + 0.5 - signal.size / 2) / signal.rate
        along = moved[:, :, 0, None, None] * places[None, None, None] + moved[:, :, 1, None, None] * places[:, None]
        waves = torch.sin(2 * math.pi * (along + phases[:, :, None, None])) * amplitudes[:, :, None, None]
        weight = self.weight.to(waves.dtype) / math.sqrt(signal.channels)
        return torch.einsum("oc,nchw->nohw", weight, waves)


class SynthesisLayer(nn.Module):
    """Modulated convolution, and a leaky ReLU at a higher sampling rate between two low-pass filters.

    Args:
        before, after: what it gets and gives.
        w_dim: dimensions of w.
        options: see ``SynthesisOptions``.
        resolution: side of the images in pixels.
        critical: whether it may use all frequencies of its result.
        last: the layer to the image's channels: 1x1, linear, neither demodulated nor filtered.
    """

    def __init__(
        self,
        before: Signal,
        after: Signal,
        w_dim: int,
        options: SynthesisOptions,
        resolution: int,
        *,
        critical: bool,
        last: bool,
    ) -> None:
        super().__init__()
        self.last, self.clamp = last, options.clamp
        self.kernel = 1 if last or options.rotation_equivariant else 3
        self.sixteen_bits = after.rate << options.half_resolutions > resolution
        self.affine = EqualizedLinear(w_dim, before.channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, self.kernel, self.kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        between = max(before.rate, after.rate) * (1 if last else options.upsampling)
        up, down = between // before.rate, between // after.rate
        up_taps = options.filter_size * up if up > 1 and not last else 1
        down_taps = options.filter_size * down if down > 1 and not last else 1
        # Pixels that the convolution and both filters make more or fewer than the result needs.
        size = before.size + self.kernel - 1
        total = (after.size - 1) * down + 1 - size * up + up_taps + down_taps - 2
        middle = (after.size - 1) * down + down_taps
        self.upsampling = Resampling(
            _taps(up_taps, before, between), up=up, before=(total + up) // 2, size=size, results=middle
        )
        self.downsampling: nn.Module
        if options.rotation_equivariant and not critical and down_taps > 1:
            jinc = radial_lowpass(down_taps, after.cutoff, 2 * after.half_width, between)
            self.downsampling = RadialDownsampling(jinc, down=down)
        else:
            self.downsampling = Resampling(_taps(down_taps, after, between), down=down, size=middle, results=after.size)

    def forward(self, x: Tensor, w: Tensor, gain: Tensor) -> Tensor:
        """Features ``[N, C, size, size]`` and w ``[N, w_dim]`` to the next signal's.

        Args:
            x: features.
            w: the style's latent.
            gain: factor of the features, float32 scalar.
        """
        dtype = inner_dtype(self, w.device) if self.sixteen_bits else weights_dtype(self)
        with torch.autocast(w.device.type, enabled=False):
            styles, weight = in_full_precision(self.affine(w)), in_full_precision(self.weight)
            if self.last:
                styles = styles / math.sqrt(weight.shape[1])
            else:
                # Demodulation takes any factor back; the paper has unit ones (appendix D.1).
                styles = styles * styles.square().mean(1, keepdim=True).rsqrt()
                weight = weight * weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
            x = modulated_conv2d(
                x.to(dtype), weight, styles, demodulate=not self.last, padding=self.kernel - 1, gain=gain
            )
            x = self.upsampling(bias_act(x, self.bias))
            x = bias_act(x, None, "linear" if self.last else "lrelu", clamp=self.clamp)
            return self.downsampling(x)


class SynthesisNetwork(ExactBuffers):
    """w to images: Fourier features and layers of growing bandwidth, which treat all places alike.

    Args:
        options: see ``SynthesisOptions``.
        w_dim: dimensions of w.
        resolution: side of the images in pixels, a power of two from 16 on.
        channels: of the images, 1 or 3.

    Raises:
        ValueError: see ``schedule``.
    """

    exact_buffers = ("magnitudes",)
    #: Mean square of each layer's input, ``[layers + 1]``; averages of weights copy it.
    magnitudes: Tensor

    def __init__(
        self,
        options: SynthesisOptions = SynthesisOptions(),
        *,
        w_dim: int = 512,
        resolution: int = 256,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.options = options
        signals = schedule(options, resolution, channels)
        self.input = FourierFeatures(signals[0], w_dim)
        self.layers = nn.ModuleList(
            SynthesisLayer(
                before,
                after,
                w_dim,
                options,
                resolution,
                critical=number >= options.layers - options.critical_layers,
                last=number == options.layers,
            )
            for number, (before, after) in enumerate(zip([signals[0], *signals], signals, strict=False))
        )
        self.register_buffer("magnitudes", torch.ones(len(signals)))
        #: Latents w that an image takes: of the Fourier features, and of each layer.
        self.num_ws = len(signals) + 1
        #: There is no noise.
        self.noise_sides: tuple[int, ...] = ()

    def forward(self, ws: Tensor, noise: object = None, *, transform: Tensor | None = None) -> Tensor:
        """Images of latents, about in [-1, 1], not clamped: at least float32 ``[N, channels, resolution, resolution]``.

        Args:
            ws: one w for each layer, ``[N, num_ws, w_dim]``.
            noise: none is used.
            transform: see ``FourierFeatures``.
        """
        return self.measured(ws, transform)[0]

    def measured(self, ws: Tensor, transform: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images like ``forward``, and the mean square of each layer's input, ``[layers + 1]`` like ``magnitudes``."""
        with torch.autocast(ws.device.type, enabled=False):
            x = self.input(ws[:, 0].to(at_least_float32(weights_dtype(self))), transform)
        gains, seen = self.magnitudes.rsqrt(), []
        for number, layer in enumerate(self.layers):
            seen.append(in_full_precision(x.detach()).square().mean())
            w = ws[:, number + 1]
            x = checkpointed(layer, x, w, gains[number], enabled=self.options.gradient_checkpointing)
        return in_full_precision(x) * self.options.output_scale, torch.stack(seen)

    def affines(self) -> list[EqualizedLinear]:
        """The maps from w to styles, one for each of the ``num_ws`` latents: of the waves, and of each layer."""
        layers = [module.affine for module in self.modules() if isinstance(module, SynthesisLayer)]
        return [self.input.affine, *layers]

    @torch.no_grad()
    def follow(self, magnitudes: Tensor, images: int) -> None:
        """Moves ``magnitudes`` towards those of an update of so many images, over all ranks: ``[layers + 1]``."""
        kept = 0.5 ** (images / (1000 * self.options.magnitude_half_life_kimg))
        self.magnitudes.copy_(magnitudes.to(self.magnitudes.dtype).lerp(self.magnitudes, kept))


class Generator(StyleGenerator):
    """StyleGAN3's generator; the images' side is a power of two from 16 on."""

    synthesis_kind = SynthesisNetwork
    synthesis: SynthesisNetwork


def _taps(count: int, signal: Signal, rate: int) -> Tensor:
    """Taps of a separable filter that lets a signal's band through."""
    if count == 1:
        return torch.ones(1, dtype=torch.float64)
    return kaiser_lowpass(count, signal.cutoff, 2 * signal.half_width, rate)
