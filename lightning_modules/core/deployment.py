"""What leaves the lab of a family: one folded network with named inputs, and what it must agree with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

#: Inputs of a network by name. All families share the names: ``latents`` (z, or a map of latents), ``labels``,
#: ``truncation``, ``content``, ``style``, ``alpha``, ``mix``, ``source``, ``style_code``, ``noise``, ``noisy``,
#: ``sigma``.
Inputs = Mapping[str, Tensor]
#: Out of sample numbers int64 [N], a seed and the pictures that inputs ask for: the inputs.
Draw = Callable[[Tensor, int, Inputs], dict[str, Tensor]]


@dataclass(frozen=True)
class Layout:
    """Sizes of an export.

    Args:
        height, width: of pictures in pixels, for a network that takes them of any size; None: the family's resolution.
        dynamic: the number of pictures, and their sizes where the network takes any, are free; the sizes are then those
            that the network is traced with.
        truncation: the truncation of w, where the network has one, is an input; else it is as the family has it.
    """

    height: int | None = None
    width: int | None = None
    dynamic: bool = False
    truncation: bool = False

    def sides(self, resolution: int, multiple: int = 1) -> tuple[int, int]:
        """Height and width of example pictures; different ones where they are free, so that none is taken for both.

        Args:
            resolution: the family's, where none is asked for.
            multiple: sides are multiples of it, where they are free.
        """
        height, width = self.height or resolution, self.width or resolution
        if self.dynamic:
            height = -(-height // multiple) * multiple
            width = height + multiple * -(-16 // multiple) if self.width is None else -(-width // multiple) * multiple
        return height, width

    @property
    def count(self) -> int:
        """Number of example pictures: 1, or 2 where it is free (a tracer takes 1 for a constant)."""
        return 2 if self.dynamic else 1


@dataclass(frozen=True)
class Port:
    """An input of a deployable network.

    Args:
        example: one value of it.
        about: what it is, its shape and its range, in one line.
        axes: the dimensions that a dynamic export leaves free, and their names; equal names are equal numbers.
        pictures: the batch's key of the pictures that it takes; empty: it is drawn, or follows from the others.
        multiple: its free sides are multiples of this.
        bound: of latents that are truncated before the network: where the normal distribution ends; 0: they are not.
        names: of the parts of a mixture.
    """

    example: Tensor
    about: str
    axes: Mapping[int, str] = field(default_factory=dict)
    pictures: str = ""
    multiple: int = 1
    bound: float = 0.0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployable:
    """A network that needs nothing of this package, and the run that it must agree with.

    Args:
        network: takes the inputs by position, in the order of ``inputs``; gives one tensor.
        inputs: its inputs by name.
        output: name of what it gives: ``picture``, ``denoised`` or ``mean``.
        about: what it gives, its shape and its range, in one line.
        draw: makes inputs: see ``Draw``.
        run: what the run gives for inputs, by its own way, unfolded.
        is_picture: whether it gives pictures, NCHW in [-1, 1].
    """

    network: nn.Module
    inputs: Mapping[str, Port]
    output: str
    about: str
    draw: Draw
    run: Callable[[Inputs], Tensor]
    is_picture: bool = True


class Named(nn.Module):
    """A function of tensors with the networks that it calls, as one module.

    Args:
        function: called with the module's inputs.
        networks: by name; the function must call these very modules.
    """

    def __init__(self, function: Callable[..., Tensor], **networks: nn.Module) -> None:  # type: ignore[explicit-any]
        super().__init__()
        self.function = function
        for name, network in networks.items():
            self.add_module(name, network)

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(*inputs)
