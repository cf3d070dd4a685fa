"""ONNX files of ``gesso export`` behind a server."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gesso.common.extras import needing
from gesso.common.text import one_line
from launch.inference.pictures import as_tensor
from launch.serving.asks import Ask, Generate, Stylize, Translate, Verb
from launch.serving.families import BATCH, arrays
from launch.serving.served import Facts, Served, check_label, check_verb, check_weights
from lightning_modules.kinds.random_codes import codes_of_pictures, drawn_codes, numbered_codes
from lightning_modules.networks.padding import repeat_edges, to_multiple
from lightning_modules.pictures.sizes import fit, resize

#: Of a file's metadata: where its weights come from.
_MADE_BY = ("run", "checkpoint_sha256", "kimg", "weights", "family")
#: What a file can do, by the input that says so.
_VERBS: dict[str, Verb] = {"latents": "generate", "content": "stylize", "source": "translate"}


class ServedOnnx:
    """An exported network in onnxruntime.

    Args:
        name: under which it is served.
        file: the file.
        threads: of onnxruntime.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is none of ``gesso export``, or holds a network that makes no pictures by itself.
    """

    def __init__(self, name: str, file: Path, *, threads: int = 1) -> None:
        with needing("export"):
            import onnxruntime
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no such file")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            # Of its bytes: a file cannot name others that are then read.
            self.session = onnxruntime.InferenceSession(file.read_bytes(), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own classes, private ones
            raise ValueError(f"{file}: onnxruntime cannot load it ({one_line(error)[:200]})") from error
        self.inputs = {port.name: list(port.shape) for port in self.session.get_inputs()}
        said = self.session.get_modelmeta().custom_metadata_map
        self.facts = _facts(name, file, self.inputs, said)
        #: By input: of what its free sides are multiples.
        self.multiples = {port: _multiple(about) for port, about in json.loads(said["gesso.inputs"]).items()}

    def check(self, ask: Ask) -> None:
        """See ``Served``."""
        check_verb(self.facts, ask.verb)
        match ask:
            case Generate():
                check_label(self.facts, ask.label)
                if ask.sampling:
                    raise ValueError(f"{ask.sampling[0][0]}: {self.facts.name} makes a picture as it was exported")
            case Stylize():
                check_weights(self.facts, len(ask.styles), ask.weights)
                if len(ask.styles) > 1:
                    raise ValueError(f"style: {self.facts.name} is an exported file, which takes one picture")
                self._check_size("content", ask.size)
                if ask.alpha != 1 and "alpha" not in self.inputs:
                    raise ValueError(f"alpha: {self.facts.name} was exported without")
            case Translate():
                self._check_size("source", ask.size)
                if ask.direction not in (None, *self.facts.directions):
                    raise ValueError(f"direction {ask.direction}: it translates {' and '.join(self.facts.directions)}")
                if ask.style is not None:
                    raise ValueError(f"style: {self.facts.name} is an exported file, which takes no style picture")
                if ask.style_seed is not None and not self.facts.takes_style:
                    raise ValueError(f"style_seed: {self.facts.name} takes no styles")

    def batches(self, verb: Verb) -> bool:
        """See ``Served``: not where the file's first dimension is fixed."""
        return verb == "generate" and isinstance(self.inputs["latents"][0], str)

    def batch(self, verb: Verb) -> int:
        """See ``Served``."""
        return BATCH

    def exact(self, verb: Verb) -> bool:
        """See ``Served``."""
        return True

    def again(self) -> Served:
        """See ``Served``: a session may be used by several threads."""
        return self

    def run(self, asks: Sequence[Ask]) -> list[np.ndarray]:
        """See ``Served``."""
        feeds: dict[str, torch.Tensor] = {}
        match asks[0]:
            case Generate():
                feeds = self._latents([ask for ask in asks if isinstance(ask, Generate)])
            case Stylize() as ask:
                feeds = self._style(ask)
            case Translate() as ask:
                feeds = {"source": self._sized("source", ask.picture, ask.size)}
                if "style_code" in self.inputs:
                    length = self.inputs["style_code"][1]
                    feeds["style_code"] = (
                        codes_of_pictures(feeds["source"], length)  # as the run chooses
                        if ask.style_seed is None
                        else drawn_codes(1, length, seed=ask.style_seed)
                    )
        whole = feeds.get("source", feeds.get("content"))
        wanted = {name: self._padded(name, value).numpy() for name, value in feeds.items() if name in self.inputs}
        try:
            (made,) = self.session.run(["picture"], wanted)
        except Exception as error:  # its own classes, private ones
            raise ValueError(f"{self.facts.name} cannot take this ({one_line(error)[:200]})") from error
        return arrays(torch.from_numpy(made if whole is None else made[:, :, : whole.shape[2], : whole.shape[3]]))

    def _latents(self, asks: Sequence[Generate]) -> dict[str, torch.Tensor]:
        """The latents and labels of the run's own samples of these numbers."""
        length, classes = self.inputs["latents"][1], self.facts.classes
        labels = [ask.label if ask.label is not None else ask.seed % max(classes, 1) for ask in asks]
        latents = [numbered_codes([ask.seed], length, seed=ask.sequence) for ask in asks]
        return {"latents": torch.cat(latents), "labels": torch.tensor(labels)}

    def _style(self, ask: Stylize) -> dict[str, torch.Tensor]:
        content = self._sized("content", ask.content, ask.size)
        feeds = {"content": content, "alpha": torch.tensor([ask.alpha])}
        if ask.styles:
            feeds["style"] = self._sized("style", ask.styles[0], None)
        if "mix" in self.inputs:
            weights = torch.tensor(ask.weights or [1.0] * len(self.facts.own_styles))
            feeds["mix"] = (weights / weights.sum())[None]
        if "noise" in self.inputs:
            # As FastStyle draws it for itself.
            feeds["noise"] = torch.randn(1, 1, *content.shape[2:], generator=torch.Generator().manual_seed(0))
        return feeds

    def _check_size(self, port: str, size: int | None) -> None:
        height, width = self.inputs[port][2:]
        if size is not None and not isinstance(height, str):
            raise ValueError(f"size: {self.facts.name} was exported for pictures of {width} x {height}: leave it out")

    def _padded(self, port: str, value: torch.Tensor) -> torch.Tensor:
        """Pictures at whole multiples of the network's coarsest map, with such borders as its run gives them."""
        multiple = self.multiples.get(port, 1)
        if multiple == 1 or not isinstance(self.inputs[port][2], str):
            return value
        return repeat_edges(value, multiple) if port == "source" else to_multiple(value, multiple)

    def _sized(self, port: str, picture: np.ndarray, size: int | None) -> torch.Tensor:
        """The picture as an input takes it: of the file's size, where that is fixed."""
        image = as_tensor(picture)
        height, width = self.inputs[port][2:]
        if isinstance(height, str):
            return image if size is None else fit(image, size)
        # The largest part of its middle with the wanted sides' ratio.
        scale = min(image.shape[2] / height, image.shape[3] / width)
        tall, wide = max(1, int(height * scale)), max(1, int(width * scale))
        top, left = (image.shape[2] - tall) // 2, (image.shape[3] - wide) // 2
        return resize(image[:, :, top : top + tall, left : left + wide], (height, width))


def _facts(name: str, file: Path, inputs: dict[str, list[Any]], said: dict[str, str]) -> Facts:
    if "gesso.inputs" not in said:
        raise ValueError(f"{file}: not a file that `gesso export --onnx` wrote")
    verbs = tuple(verb for port, verb in _VERBS.items() if port in inputs)
    is_map = "latents" in inputs and len(inputs["latents"]) != 2
    if not verbs or is_map or said.get("gesso.value_range") != "-1 1":
        raise ValueError(
            f"{file}: holds the {said.get('gesso.part')} of a {said.get('gesso.family')}, which makes no picture by "
            "itself: serve the run"
        )
    pictures = inputs.get("content") or inputs.get("source") or []
    about = json.loads(said["gesso.inputs"])
    if about.get("style_code", "").startswith("textures"):
        raise ValueError(f"{file}: takes styles of pictures, which it cannot encode: serve the run")
    resolution = pictures[2] if len(pictures) == 4 and pictures[2] == pictures[3] else None
    return Facts(
        name,
        f"an exported {said['gesso.family']}, {said['gesso.weights']} weights at {said['gesso.kimg']} kimg",
        verbs,
        channels=pictures[1] if pictures else None,
        resolution=resolution if isinstance(resolution, int) else None,
        classes=_classes(about.get("labels", "")),
        own_styles=_named_styles(about.get("mix", ""), inputs.get("mix", [1, 0])[1]),
        alpha="alpha" in inputs,
        directions=(said["gesso.part"],) if verbs == ("translate",) else (),
        takes_style="style_code" in inputs,
        made_by=lambda: {key: said[f"gesso.{key}"] for key in _MADE_BY if f"gesso.{key}" in said},
    )


def _classes(about: str) -> int:
    """Of ``classes, int64 [N] in [0, 10)``, 10; of nothing, 0."""
    return int(about.rpartition(", ")[2].removesuffix(")")) if about else 0


def _multiple(about: str) -> int:
    """Of ``pictures, float32 ...; H and W are multiples of 4``, 4; of others, 1."""
    found = re.search(r"H and W are multiples of (\d+)", about)
    return int(found[1]) if found else 1


def _named_styles(about: str, count: int) -> tuple[str, ...]:
    """Of ``shares of a.png, b.png, float32 [1, 2], with a sum of 1``, the names; numbers if names have commas."""
    names = tuple(about.removeprefix("shares of ").partition(", float32 [")[0].split(", ")) if count else ()
    return names if len(names) == count else tuple(str(number) for number in range(count))
