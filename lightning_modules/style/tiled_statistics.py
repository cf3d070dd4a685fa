"""Instance norms on tiles: each normalises by the statistics of the whole picture, gathered over all tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from lightning_modules.networks.instance_norm import ConditionalInstanceNorm
from lightning_modules.pictures.tiles import Tile, merged_mean_std


@contextmanager
def whole_statistics(network: nn.Module, run: Callable[[Tile], Tensor], parts: Sequence[Tile]) -> Iterator[None]:
    """Context manager: each norm of ``network`` normalises a tile by the statistics of the whole picture.

    Those of a norm depend on all norms before it, so there is a pass over the tiles for each, up to that norm.

    Args:
        run: calls the network on a tile.
        parts: the picture's tiles; a single one has the statistics itself.
    """
    norms = [module for module in network.modules() if isinstance(module, ConditionalInstanceNorm)]
    try:
        for norm in norms if len(parts) > 1 else ():
            norm.given = merged_mean_std(_input_of(norm, run, part) for part in parts)
        yield
    finally:
        for norm in norms:
            norm.given = None


def _input_of(norm: nn.Module, run: Callable[[Tile], Tensor], part: Tile) -> Tensor:
    """The norm's input at the tile's own pixels; the rest of the network does not run."""
    found: list[Tensor] = []

    def catch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])
        raise _EnoughSeen

    handle = norm.register_forward_pre_hook(catch)
    try:
        run(part)
    except _EnoughSeen:
        pass
    finally:
        handle.remove()
    seen_height = part.seen_bottom - part.seen_top
    scale = next(scale for scale in (1, 2, 4) if -(-seen_height // scale) <= found[0].shape[2])
    return part.own(found[0], scale)


class _EnoughSeen(Exception):
    """Raised to end a forward pass early."""
