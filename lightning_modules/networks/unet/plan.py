"""The blocks of a U-Net, one by one, and checks of the options that they follow from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Resampling = Literal["keep", "down", "up"]


@dataclass(frozen=True)
class BlockPlan:
    """One block of a U-Net.

    Args:
        side: of the feature map that leaves the block, in pixels.
        before: channels of the map that enters.
        after: channels of the map that leaves.
        skip: channels of the encoder's map that is concatenated to the entering one; 0: none is.
        resampling: ``down`` halves the side, ``up`` doubles it.
        attention: self-attention ends the block.
        decoder: the block is one of the decoder's.
    """

    side: int
    before: int
    after: int
    skip: int = 0
    resampling: Resampling = "keep"
    attention: bool = False
    decoder: bool = False


def plan_unet(
    *,
    resolution: int,
    stem: int,
    widths: Sequence[int],
    blocks: int,
    attention_resolutions: Sequence[int],
    attention_after_each: bool = True,
) -> tuple[list[BlockPlan], list[BlockPlan]]:
    """The blocks of a U-Net's encoder and decoder, in the order in which they run.

    A level of the encoder is one block that halves the side (but for the first level) and ``blocks`` that keep it; one
    of the decoder a block that doubles it and ``blocks + 1`` that keep it, each of which takes one map of the encoder,
    the last first. The deepest level of the decoder begins with two blocks, the first of which always has attention.

    Args:
        resolution: side of the images in pixels.
        stem: channels of the map that enters the encoder, which is also the last that the decoder takes.
        widths: channels of each level, from full resolution downwards.
        blocks: blocks of each level of the encoder.
        attention_resolutions: sides of the levels with attention.
        attention_after_each: in such a level of the decoder, all blocks that keep the side have attention, otherwise
            the last one alone (Song's).
    """
    encoder: list[BlockPlan] = []
    channels = stem
    for level, width in enumerate(widths):
        side = resolution >> level
        if level:
            encoder.append(BlockPlan(side, channels, channels, resampling="down"))
        for _ in range(blocks):
            encoder.append(BlockPlan(side, channels, width, attention=side in attention_resolutions))
            channels = width
    skips = [stem, *(block.after for block in encoder)]
    deepest = resolution >> (len(widths) - 1)
    decoder = [
        BlockPlan(deepest, channels, channels, attention=True, decoder=True),
        BlockPlan(deepest, channels, channels, decoder=True),
    ]
    for level, width in reversed(list(enumerate(widths))):
        side = resolution >> level
        if side != deepest:
            decoder.append(BlockPlan(side, channels, channels, resampling="up", decoder=True))
        for number in range(blocks + 1):
            attention = side in attention_resolutions and (attention_after_each or number == blocks)
            decoder.append(BlockPlan(side, channels, width, skip=skips.pop(), attention=attention, decoder=True))
            channels = width
    return encoder, decoder


def check_levels(resolution: int, multipliers: Sequence[int], attention_resolutions: Sequence[int]) -> None:
    """Checks the options that tell a U-Net's levels.

    Raises:
        ValueError: no levels, a side that cannot be halved so often, attention where no level is.
    """
    if not multipliers:
        raise ValueError("multipliers is empty; it tells the channels of each level, such as [2, 2, 2]")
    halvings = len(multipliers) - 1
    if resolution < 1 or resolution % 2**halvings:
        raise ValueError(
            f"{len(multipliers)} multipliers halve the side {halvings} times, which {resolution} px does not allow; "
            f"choose a resolution that is a multiple of {2**halvings}, or fewer multipliers"
        )
    sides = [resolution >> level for level in range(len(multipliers))]
    for side in attention_resolutions:
        if side not in sides:
            raise ValueError(
                f"attention_resolutions holds {side}, which is no level of a {resolution} px network with "
                f"{len(multipliers)} multipliers; choose among {', '.join(map(str, sides))}"
            )


def check_heads(plans: Sequence[BlockPlan], head_channels: int) -> None:
    """Raises a ValueError unless every block with attention has a multiple of ``head_channels`` channels."""
    for plan in plans:
        if plan.attention and plan.after % head_channels:
            raise ValueError(
                f"width gives the attention at {plan.side} px {plan.after} channels, no multiple of head_channels "
                f"{head_channels}; choose another width or head_channels"
            )


def check_groups(plans: Sequence[BlockPlan]) -> None:
    """Raises a ValueError unless group norm can share the channels of every block among its groups."""
    for channels in (count for plan in plans for count in (plan.before + plan.skip, plan.after)):
        if channels < 4 or channels % group_count(channels):
            raise ValueError(
                f"width gives a block {channels} channels, which group norm cannot share among its groups; choose a "
                f"width that is a multiple of 32 (or of 4, where no block gets more than 128 channels)"
            )


def group_count(channels: int) -> int:
    """Groups of a group norm: 32, or fewer where a group would have less than four channels."""
    return min(32, channels // 4)
