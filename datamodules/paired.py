"""Two streams side by side: photographs, and the pictures whose styles they are to take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from torch import Tensor

from datamodules.shards import ShardData, to_float_images


class ContentStyleData(ShardData):
    """Content images as of ``ShardData``, each with a picture of another shard set: ``style``, like ``image``.

    Both orders are functions of one position, so that the state is still one integer.

    Args:
        path: folder of the content's shard set.
        style_path: folder of the styles' shard set.
        global_batch_size: pairs of one step over all ranks.
        options: those of ``ShardData``, for both.
    """

    def __init__(self, path: str, style_path: str, global_batch_size: int = 8, **options: Any) -> None:
        super().__init__(path, global_batch_size, **options)
        self.style_path = style_path
        self._options = options

    @cached_property
    def style(self) -> ShardData:
        """The styles' stream."""
        # Its own seed: sets of one size would else be paired in the same way in every epoch.
        options = {**self._options, "seed": self.seed + 1, "size": self.size, "channels": 3}
        return ShardData(self.style_path, self.global_batch_size, **options)

    def train_dataloader(self) -> Any:
        self.style.trainer, self.style.position = self.trainer, self.position
        return Pairs(super().train_dataloader(), self.style.train_dataloader())

    def val_dataloader(self) -> Any:
        return self._held_out_pairs(super().val_dataloader())

    def test_dataloader(self) -> Any:
        return self._held_out_pairs(super().test_dataloader())

    def _held_out_pairs(self, content: Any) -> Any:
        """Each photograph with the same held-out style every time."""
        self.style.trainer = self.trainer
        return Pairs(content, self.style.held_out_dataloader())

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Both become float32 NCHW in [-1, 1], on the device."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return {**batch, "style": to_float_images(batch["style"])}

    def held_out_images(self, count: int) -> dict[str, Tensor]:
        """See ``ShardData``; with styles."""
        return {**super().held_out_images(count), "style": self.style.held_out_images(count)["image"]}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "style_fingerprint": self.style.manifest.fingerprints["train"]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        fit = self.trainer is None or self.trainer.state.fn == "fit"
        if fit and state_dict["style_fingerprint"] != self.style.manifest.fingerprints["train"]:
            raise ValueError(
                f"{self.style_path}: not the style pictures that the checkpoint was trained on; "
                "set --data.style_path to those"
            )


class Pairs:
    """Batches of content, each with the style pictures of a batch of the same size."""

    def __init__(self, content: Iterable[Any], style: Iterable[Any]) -> None:
        self.content = content
        self.style = style

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for content, style in zip(self.content, self.style, strict=False):
            yield {**content, "style": style["image"][: len(content["image"])]}
