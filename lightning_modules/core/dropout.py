"""The same dropout masks in two passes of a network."""

from __future__ import annotations

import torch


class DropoutMasks:
    """Remembers where the device's generator is, so that a later pass can have the masks of an earlier one.

    >>> masks = DropoutMasks(torch.device("cpu"))
    >>> first = torch.rand(3)
    >>> masks.again()
    >>> bool((torch.rand(3) == first).all())
    True
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def again(self) -> None:
        """The next pass draws what was drawn since this object was made."""
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(self._state, self.device)
        else:
            torch.set_rng_state(self._state)
