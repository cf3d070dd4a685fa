"""Two streams side by side: photographs and pictures of styles, or images of two domains without pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from datamodules.shards import ShardData
from datamodules.streaming.floats import to_float_images
from datamodules.truth import TruePictures
from gesso.common.ranges import Count


class TwoStreamData(ShardData):
    """Images as of ``ShardData``, each with one of a second shard set, paired by two independent orders.

    Both orders are functions of one position, so that the state is still one integer.
    """

    #: The batch's key of the second stream, and the option that names its shard set.
    SECOND: ClassVar[str]
    SECOND_OPTION: ClassVar[str]

    #: Options of both streams.
    _options: dict[str, Any]

    @cached_property
    def second(self) -> ShardData:
        """The second stream."""
        # Its own seed: sets of one size would else be paired in the same way in every epoch.
        seed = (self.seed + 1) % 2**63
        options = {**self._options, "seed": seed, "size": self.size, "channels": self._second_channels()}
        return ShardData(getattr(self, self.SECOND_OPTION), self.global_batch_size, **options)

    def _second_channels(self) -> int:
        return self.channels

    @classmethod
    def path_options(cls) -> dict[str, str]:
        """See ``ShardData``."""
        return {**super().path_options(), cls.SECOND_OPTION: cls.SECOND}

    def streams(self) -> dict[str, ShardData]:
        """See ``ShardData``."""
        return {**super().streams(), self.SECOND: self.second}

    def train_dataloader(self) -> Any:
        self.second.trainer, self.second.position = self.trainer, self.position
        return Pairs(super().train_dataloader(), self.second.train_dataloader(), self.SECOND)

    def val_dataloader(self) -> Any:
        return self._held_out_pairs(super().val_dataloader())

    def test_dataloader(self) -> Any:
        return self._held_out_pairs(super().test_dataloader())

    def _held_out_pairs(self, first: Any) -> Any:
        """Each image with the same held-out one of the second stream every time."""
        self.second.trainer = self.trainer
        return Pairs(first, self.second.held_out_dataloader(), self.SECOND)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Both become float32 NCHW in [-1, 1], on the device."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return {**batch, self.SECOND: to_float_images(batch[self.SECOND])}

    def held_out_batch(self, count: int) -> dict[str, Any]:
        """See ``ShardData``; with as many images of the second stream, or all it has."""
        return {**super().held_out_batch(count), self.SECOND: self.second.held_out_batch(count)["image"]}

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), f"{self.SECOND}_fingerprint": self.second.manifest.fingerprints["train"]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        fit = self.trainer is None or self.trainer.state.fn == "fit"
        if fit and state_dict[f"{self.SECOND}_fingerprint"] != self.second.manifest.fingerprints["train"]:
            raise ValueError(
                f"{getattr(self, self.SECOND_OPTION)}: not the set that the checkpoint was trained on; "
                f"set --data.{self.SECOND_OPTION} to that one"
            )


class ContentStyleData(TwoStreamData):
    """Content images as of ``ShardData``, each with a picture of another shard set: ``style``, like ``image``.

    Args:
        path: folder of the content's shard set.
        style_path: folder of the styles' shard set.
        global_batch_size: pairs of one step over all ranks.
        options: those of ``ShardData``, for both.
    """

    SECOND, SECOND_OPTION = "style", "style_path"

    def __init__(self, path: str, style_path: str, global_batch_size: Count = 8, **options: Any) -> None:
        super().__init__(path, global_batch_size, **options)
        self.style_path = style_path
        self._options = options

    def _second_channels(self) -> int:
        return 3


class UnpairedData(TwoStreamData):
    """Images of two domains, drawn independently: ``image`` of domain A, ``image_b`` of domain B.

    Args:
        path: folder of domain A's shard set.
        path_b: folder of domain B's shard set.
        global_batch_size: images of each domain in one step over all ranks.
        paired: held-out images of both domains that have the same caption show the same: what a translation is to
            become is known, which metrics (``truth_lpips`` ...) and previews compare it with. No training sees it.
        options: those of ``ShardData``, for both.
    """

    SECOND, SECOND_OPTION = "image_b", "path_b"

    def __init__(
        self, path: str, path_b: str, global_batch_size: Count = 8, *, paired: bool = False, **options: Any
    ) -> None:
        super().__init__(path, global_batch_size, **options)
        self.path_b = path_b
        self.paired = paired
        self._options = options

    def true_pictures(self, key: str, split: str | None = None) -> Callable[[Sequence[str]], Tensor]:
        """See ``ShardData``."""
        if not self.paired:
            return super().true_pictures(key, split)
        streams = self.streams()
        (other,) = (stream for name, stream in streams.items() if name != key)
        found = TruePictures(other, split)
        found.check(streams[key], split)
        return found

    def check_held_out(self) -> None:
        """See ``ShardData``; both domains have several images of one kind, and with ``paired`` held-out ones in pairs.

        Raises:
            ValueError: one line that names the domain's option.
        """
        stored = self.manifest.channels, self.second.manifest.channels
        if self._options.get("channels") is None and stored[0] != stored[1]:
            kinds = [{1: "grey", 3: "RGB"}.get(number, f"of {number} channels") for number in stored]
            raise ValueError(
                f"data.path holds {kinds[0]} images and data.path_b {kinds[1]} ones: set --data.channels 3, and grey "
                "ones become RGB, or 1, and colours are lost"
            )
        for option, stream in (("path", self), ("path_b", self.second)):
            if stream.manifest.split("train").samples < 2:
                raise ValueError(f"data.{option}: {stream.path} has one image to train on, which is no domain")
        if self.paired:
            self.true_pictures("image")

    def held_out_batch(self, count: int) -> dict[str, Any]:
        """See ``ShardData``; with ``paired``, both images of a row show the same, and the batch says so."""
        if not self.paired:
            return super().held_out_batch(count)
        batch = ShardData.held_out_batch(self, count)
        return {**batch, self.SECOND: self.true_pictures("image")(batch["caption"]), "paired": True}


class Pairs:
    """Batches of one stream, each with as many images of the other, under the key ``second``."""

    def __init__(self, first: Iterable[Any], other: Iterable[Any], second: str) -> None:
        self.first = first
        self.other = other
        self.second = second

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch, other in zip(self.first, self.other, strict=False):
            yield {**batch, self.second: other["image"][: len(batch["image"])]}
