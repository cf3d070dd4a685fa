"""The moment at which training begins: nothing may refuse it any more, and its files may be written."""

from __future__ import annotations

from collections.abc import Callable

import lightning as L


class Opening(L.Callback):
    """Calls ``action`` when training begins, on every rank: data, checkpoint and reference pictures have been read."""

    def __init__(self) -> None:
        self.action: Callable[[], None] = lambda: None
        #: Whether training has begun.
        self.done = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.action()
        self.done = True
