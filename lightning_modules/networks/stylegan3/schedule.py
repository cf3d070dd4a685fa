"""The published schedule of StyleGAN3's layers: cut-offs, stop-bands, sampling rates and sizes.

Karras et al. 2021, arXiv:2106.12423, section 3.2 and appendix D. Frequencies are in cycles per side of the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from gesso.common.ranges import Count, Positive, Whole


@dataclass(frozen=True)
class SynthesisOptions:
    """The synthesis network. The defaults are the authors' StyleGAN3-T; ``rotation_equivariant`` makes it their R.

    Args:
        layers: number of layers, without Fourier features and the last one, to the image's channels.
        channel_base: a layer of cut-off f has ``channel_base`` / (2 f) channels,
        channel_max: but no more than this.
        rotation_equivariant: convolutions of 1x1 and radial filters; the authors then double both numbers of channels.
        critical_layers: last layers that may use all frequencies of the image.
        first_cutoff: cut-off of the first layer, f_c,0.
        first_stopband: least stop-band of the first layer, f_t,0.
        last_stopband: least stop-band of the last layer, over its cut-off.
        margin: pixels around the image, at the sampling rate of each layer.
        filter_size: taps of a low-pass filter for each pixel of the lower resolution.
        upsampling: sampling rate of the leaky ReLU, over the layer's.
        output_scale: factor of the images.
        clamp: bound of what a leaky ReLU gives, against overflow in float16.
        magnitude_half_life_kimg: half-life of the mean square of each layer's input, which its inputs are divided by.
        half_resolutions: how many of the highest resolutions run in 16 bits under autocast; the others in float32.
        gradient_checkpointing: recompute each layer in the backward pass: far less memory, a third more time.
    """

    layers: Count = 14
    channel_base: Count = 32768
    channel_max: Count = 512
    rotation_equivariant: bool = False
    critical_layers: Count = 2
    first_cutoff: Positive = 2.0
    first_stopband: Positive = 2.0**2.1
    last_stopband: Positive = 2.0**0.3
    margin: Whole = 10
    filter_size: Count = 6
    upsampling: Count = 2
    output_scale: Positive = 0.25
    clamp: Positive | None = 256.0
    magnitude_half_life_kimg: Positive = 20.0
    half_resolutions: Whole = 4
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Signal:
    """What a layer gives to the next one.

    Args:
        channels: number of them.
        size: side in pixels, with margins.
        rate: sampling rate s: pixels per side of the image.
        cutoff: f_c.
        half_width: of the transition band, f_h.
    """

    channels: int
    size: int
    rate: int
    cutoff: float
    half_width: float


def schedule(options: SynthesisOptions, resolution: int, channels: int) -> list[Signal]:
    """What each layer gives, the last one included: ``layers`` + 1 signals.

    Args:
        options: see ``SynthesisOptions``.
        resolution: side of the images in pixels, a power of two from 16 on.
        channels: of the images.

    Raises:
        ValueError: an unsupported resolution, or more critical layers than layers.
    """
    if resolution < 16 or resolution & (resolution - 1):
        raise ValueError(f"resolution is {resolution}; StyleGAN3's networks need a power of two, 16 or more")
    if options.critical_layers >= options.layers:
        raise ValueError(
            f"synthesis.critical_layers is {options.critical_layers}; it must be less than synthesis.layers "
            f"({options.layers})"
        )
    last_cutoff = resolution / 2
    last_stopband = last_cutoff * options.last_stopband
    found = []
    for number in range(options.layers + 1):
        exponent = min(number / (options.layers - options.critical_layers), 1.0)
        cutoff = options.first_cutoff * (last_cutoff / options.first_cutoff) ** exponent
        stopband = options.first_stopband * (last_stopband / options.first_stopband) ** exponent
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, resolution)))
        last_two = number >= options.layers - 1
        found.append(
            Signal(
                channels=round(min(options.channel_base / 2 / cutoff, options.channel_max)),
                size=resolution if last_two else rate + 2 * options.margin,
                rate=rate,
                cutoff=cutoff,
                half_width=max(stopband, rate / 2) - cutoff,
            )
        )
    found[-1] = Signal(channels, resolution, found[-1].rate, found[-1].cutoff, found[-1].half_width)
    return found
