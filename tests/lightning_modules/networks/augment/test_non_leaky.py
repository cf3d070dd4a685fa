"""EDM's augmentation: its authors' pictures and labels out of the same random numbers, and a family's use of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.diffusion.edm import EDM
from lightning_modules.networks.augment.non_leaky import LABELS, NORMALS, UNIFORMS, NonLeakyAugmentation
from tests.lightning_modules.diffusion.families import TINY, tiny

COUNT, SIDE = 6, 12


def numbers() -> tuple[Tensor, Tensor, Tensor]:
    """Images, uniform and normal numbers by formulas: the authors' code (NVlabs/edm, training/augment.py) got them."""
    images = torch.tensor([math.sin(0.37 * i) for i in range(COUNT * 3 * SIDE * SIDE)])
    uniforms = torch.tensor([(math.sin(1.3 * i + 0.2) * 43758.5453) % 1.0 for i in range(COUNT * UNIFORMS)])
    normals = torch.tensor([math.sqrt(2) * 1.2 * math.sin(2.1 * i + 0.7) for i in range(COUNT * NORMALS)])
    return images.view(COUNT, 3, SIDE, SIDE), uniforms.view(COUNT, -1), normals.view(COUNT, -1)


def test_pictures_and_labels_are_the_authors() -> None:
    # AugmentPipe(p=0.7, xflip=1e8, yflip=1, scale=1, rotate_frac=1, aniso=1, translate_frac=1), in float32.
    theirs = json.loads((Path(__file__).parent / "fixtures" / "edm.json").read_text())
    images, labels = NonLeakyAugmentation(0.7).transformed(*numbers())
    torch.testing.assert_close(labels.flatten(), torch.tensor(theirs["labels"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(images.flatten(), torch.tensor(theirs["images"]), atol=5e-5, rtol=0)
    assert (labels != 0).any(0).all()


def test_with_probability_zero_images_are_mirrored_alone() -> None:
    images, uniforms, normals = numbers()
    made, labels = NonLeakyAugmentation(0.0).transformed(images, uniforms, normals)
    mirrored = labels[:, 0] == 1
    assert 0 < mirrored.sum() < COUNT
    assert not labels[:, 1:].any()
    torch.testing.assert_close(made[mirrored], images.flip(3)[mirrored], atol=1e-4, rtol=0)
    torch.testing.assert_close(made[~mirrored], images[~mirrored], atol=1e-4, rtol=0)


def test_a_family_tells_its_network_in_training_and_nothing_when_it_samples() -> None:
    module = tiny(EDM, augment=0.5)
    assert isinstance(module, EDM)
    told: list[Tensor | None] = []
    module.network.register_forward_pre_hook(lambda _, inputs: told.append(inputs[3] if len(inputs) > 3 else None))
    loss = module.losses({"image": torch.rand(8, 1, 16, 16) * 2 - 1})["loss"]
    assert loss.isfinite()
    assert told[0] is not None
    assert told[0].shape == (8, LABELS)
    told.clear()
    module.generate(torch.arange(2), seed=0)
    assert told == [None] * 35
    with pytest.raises(ValueError, match="the architecture edm2 is not told of augmentations"):
        EDM.from_options({"augment": 0.1, "network": {"architecture": "edm2", "width": 64}})
    assert TINY.architecture == "ddpmpp"
