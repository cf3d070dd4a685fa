"""Runs, checkpoints and published weights behind a server."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from gesso.common.pixels import to_uint8
from launch.inference.loading import load_family
from launch.inference.pictures import as_tensor
from launch.inference.stylization import Request, stylize_picture, stylizer
from launch.inference.translation import style_of, translate
from launch.serving.asks import Ask, Generate, Stylize, Translate, Verb
from launch.serving.served import Facts, Served, check_label, check_verb, check_weights
from lightning_modules.core.family import ImageFamily
from lightning_modules.kinds.stylizer import Stylizer
from lightning_modules.samplers.sampling import SamplerName

#: Of a model whose owner says nothing.
BATCH = 8
#: What is asked of a family to learn whether it takes an option: a value that any family with it takes.
_PROBES: dict[str, object] = {"steps": 2, "guidance": 1.5, "truncation_psi": 0.5, "truncation_cutoff": 1}


class ServedRun:
    """A run's family.

    Args:
        name: under which it is served.
        module: the family, in eval mode.
        what: where its weights come from.
        made_by: see ``Facts``.
    """

    def __init__(
        self, name: str, module: ImageFamily, what: str, made_by: Callable[[], Mapping[str, object]] = dict
    ) -> None:
        self.module = module
        self.facts = _facts(name, module, what, made_by)
        #: A picture takes many steps: a CPU makes several no faster at once than one by one.
        self._many_steps = "steps" in module.sampled()

    def check(self, ask: Ask) -> None:
        """See ``Served``."""
        check_verb(self.facts, ask.verb)
        match ask:
            case Generate():
                check_label(self.facts, ask.label)
                _check_sampling(self.facts, ask)
            case Stylize():
                check_weights(self.facts, len(ask.styles), ask.weights)
            case Translate():
                self.module.known_direction(ask.direction)
                if ask.style is not None or ask.style_seed is not None:
                    self.module.require("translate_in_style")

    def batches(self, verb: Verb) -> bool:
        """See ``Served``: families stylise pictures one by one."""
        return verb != "stylize"

    def batch(self, verb: Verb) -> int:
        """See ``Served``: on a CPU, only what is made in one pass gains by company."""
        slow = self.module.device.type == "cpu" and (self._many_steps or verb == "translate")
        return 1 if slow else BATCH

    def exact(self, verb: Verb) -> bool:
        """See ``Served``."""
        return verb == "generate" and not self._many_steps

    def again(self) -> Served:
        """See ``Served``: options of sampling are the module's own, so it is copied."""
        alike = copy.copy(self)
        alike.module = copy.deepcopy(self.module)
        return alike

    @torch.inference_mode()
    def run(self, asks: Sequence[Ask]) -> list[np.ndarray]:
        """See ``Served``."""
        match asks[0]:
            case Generate():
                return self._generate([ask for ask in asks if isinstance(ask, Generate)])
            case Translate():
                return self._translate([ask for ask in asks if isinstance(ask, Translate)])
            case Stylize():
                return [_stylized(self.module, ask, self.module.device) for ask in asks if isinstance(ask, Stylize)]

    def _generate(self, asks: Sequence[Generate]) -> list[np.ndarray]:
        index = torch.tensor([ask.seed for ask in asks])
        labels = None
        if classes := self.facts.classes:
            # As families choose where none is asked for.
            labels = torch.tensor([ask.seed % classes if ask.label is None else ask.label for ask in asks])
        before = self.module.sample_with(dict(asks[0].sampling)) if asks[0].sampling else {}
        try:
            return arrays(self.module.generate(index, seed=asks[0].sequence, labels=labels))
        finally:
            if before:
                self.module.sample_with(before)

    def _translate(self, asks: Sequence[Translate]) -> list[np.ndarray]:
        direction = self.module.known_direction(asks[0].direction)
        pictures = torch.cat([as_tensor(ask.picture) for ask in asks])
        styles = None
        if asks[0].style is not None or asks[0].style_seed is not None:
            styles = torch.cat([self._style(ask, direction) for ask in asks])
        return arrays(translate(self.module, pictures, direction, size=asks[0].size, style=styles))

    def _style(self, ask: Translate, direction: str) -> Tensor:
        if ask.style is not None:
            return style_of(self.module, as_tensor(ask.style), direction)
        assert ask.style_seed is not None
        return self.module.draw_styles(1, seed=ask.style_seed, direction=direction)


class ServedMethod:
    """A method of style transfer with published weights.

    Args:
        name: under which it is served.
        method: the method.
        device: where its weights are.
    """

    def __init__(self, name: str, method: Stylizer, device: torch.device) -> None:
        self.method, self.device = method, device
        weights = {"family": "AdaIN", "weights": "the authors'"}
        self.facts = Facts(name, "AdaIN with the authors' decoder", ("stylize",), channels=3, made_by=lambda: weights)

    def check(self, ask: Ask) -> None:
        """See ``Served``."""
        check_verb(self.facts, ask.verb)
        if isinstance(ask, Stylize):
            check_weights(self.facts, len(ask.styles), ask.weights)

    def batches(self, verb: Verb) -> bool:
        """See ``Served``."""
        return False

    def batch(self, verb: Verb) -> int:
        """See ``Served``."""
        return 1

    def exact(self, verb: Verb) -> bool:
        """See ``Served``."""
        return False

    @torch.inference_mode()
    def run(self, asks: Sequence[Ask]) -> list[np.ndarray]:
        """See ``Served``."""
        return [_stylized(self.method, ask, self.device) for ask in asks if isinstance(ask, Stylize)]

    def again(self) -> Served:
        """See ``Served``: nothing of it changes."""
        return self


def served_run(name: str, source: str, device: torch.device, *, average: bool = True) -> ServedRun:
    """A run, checkpoint or exported file of weights; raises like ``load_family``, or a ValueError if it makes nothing.

    Args:
        name: under which it is served.
        source: where it is.
        device: of the network.
        average: with the averaged weights, where there are any.
    """
    module, origin = load_family(source, average=average, device=device)
    weights = "averaged" if origin["average"] else "raw"
    what = f"{weights} weights at {origin['images_seen'] / 1000:g} kimg"
    served = ServedRun(name, module, what, functools.partial(_run_facts, origin, type(module).__name__))
    if not served.facts.verbs:
        raise ValueError(f"{source}: {module.described()} neither generates, stylises nor translates")
    return served


def served_adain(name: str, device: torch.device) -> ServedMethod:
    """AdaIN with the authors' decoder, fetched if need be."""
    return ServedMethod(name, stylizer("adain", device), device)


def arrays(images: Tensor) -> list[np.ndarray]:
    """Images NCHW in [-1, 1] as uint8 [H, W, C] each."""
    return list(to_uint8(images).permute(0, 2, 3, 1).contiguous().cpu().numpy())


def _stylized(method: Stylizer, ask: Stylize, device: torch.device) -> np.ndarray:
    styles = [as_tensor(style).to(device) for style in ask.styles]
    request = Request(styles=styles, weights=ask.weights, alpha=ask.alpha, size=ask.size)
    return arrays(stylize_picture(as_tensor(ask.content).to(device), None, method, request))[0]


def _run_facts(origin: Mapping[str, Any], family: str) -> Mapping[str, object]:
    from launch.provenance import facts_of  # another extra

    return facts_of(origin, family)


def _facts(name: str, module: ImageFamily, what: str, made_by: Callable[[], Mapping[str, object]]) -> Facts:
    abilities = module.abilities()
    channels, resolution = module.picture_shape()
    verbs: tuple[Verb, ...] = tuple(verb for verb in get_args(Verb) if verb in abilities)
    return Facts(
        name,
        f"{module.described()}, {what}",
        verbs,
        channels=channels,
        resolution=resolution,
        classes=module.batch_spec().num_classes if "generate" in verbs else 0,
        sampling=_sampling(module) if "sample_with" in abilities else {},
        samplers=tuple(one for one in get_args(SamplerName) if _takes(module, {"sampler": one})),
        own_styles=module.own_styles,
        directions=module.directions(),
        takes_style="translate_in_style" in abilities,
        made_by=made_by,
    )


def _sampling(module: ImageFamily) -> Mapping[str, object]:
    """The options of sampling that a family takes, with what they are now; None: it does not say."""
    found: dict[str, object] = {}
    for option, value in _PROBES.items():
        if (before := _takes(module, {option: value})) is not None:
            found[option] = before[option]
    return found


def _takes(module: ImageFamily, changes: Mapping[str, object]) -> Mapping[str, object] | None:
    """What was before the changes; None: the family does not take them."""
    try:
        before = module.sample_with(changes)
    except ValueError:
        return None
    module.sample_with(before)
    return before


def _check_sampling(facts: Facts, ask: Generate) -> None:
    known = {*facts.sampling, *(("sampler",) if facts.samplers else ())}
    for option, value in ask.sampling:
        if option not in known:
            takes = f"it takes {', '.join(sorted(known))}" if known else "it makes a picture in one pass"
            raise ValueError(f"{option}: {facts.name} is {facts.what}, {takes}")
        if option == "sampler" and value not in facts.samplers:
            raise ValueError(f"sampler is {value!r}; it must be one of {', '.join(facts.samplers)}")


#: By name: published weights that can be served.
PUBLISHED = {"adain": functools.partial(served_adain)}
