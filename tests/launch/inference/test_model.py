"""A model's methods and published stylisation from Python: what is taken, and what is refused in a line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import gesso
from launch.inference.model import Model
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.style.adain import AdaIN
from tests.pictures import paintings, photographs


@pytest.fixture(scope="module")
def model() -> Model:
    module = DCGAN(resolution=32, channels=1, latent_dim=8, num_classes=10).eval()
    return Model(module, path="x", images_seen=0, average=False)


def test_numbers_of_any_library_are_numbers(model: Model) -> None:
    expected = model.generate(2, seed=3, labels=3, batch_size=2)
    numbers: dict[str, Any] = {"seed": np.int64(3), "labels": np.int64(3), "batch_size": np.int64(2)}
    assert torch.equal(model.generate(np.int64(2), **numbers), expected)  # type: ignore[arg-type]
    assert torch.equal(model.generate(2, seed=3, labels=np.array([3, 3])), expected)  # type: ignore[arg-type]
    assert torch.equal(model.generate(2, seed=3, labels=torch.tensor(3, dtype=torch.uint8)), expected)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num": 0}, "num is 0; it must be a whole number 1 or more"),
        ({"num": 2.5}, r"num is 2\.5"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": 1.5}, r"seed is 1\.5; it must be a whole number from 0 to 9223372036854775807$"),
        ({"seed": None}, "seed is None"),
        ({"labels": 3.7}, "labels are of float32; classes are whole numbers"),
        ({"labels": "3"}, "labels is '3'; give one class by its number, or 2 of them"),
        ({"labels": [True, False]}, "labels are of bool"),
        ({"label": 3}, "generate knows no label here: a DCGAN makes a picture in one pass: it takes no sampler"),
    ],
)
def test_what_is_no_number_is_named(model: Model, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        model.generate(**{"num": 2, **arguments})


@pytest.mark.parametrize("size", [0, -5, 2.5])
def test_a_size_is_a_whole_number_of_pixels(size: Any) -> None:
    with pytest.raises(ValueError, match="size is .*; it must be a whole number 1 or more"):
        Model(_Passing(), path="x", images_seen=0, average=False).stylize(photographs(16)[0], size=size)


def test_one_picture_at_a_time_is_stylised() -> None:
    model = Model(_Passing(), path="x", images_seen=0, average=False)
    with pytest.raises(ValueError, match="2 pictures in one tensor: stylise them one after the other"):
        model.stylize(photographs(16)[:2])
    assert model.stylize(photographs(16)[0], size=np.int64(8)).shape == (1, 3, 8, 8)  # type: ignore[arg-type]


class _Passing(AdaIN):
    """A stylising family that gives the content back."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def require(self, ability: str) -> None:
        pass

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def stylize(self, content: torch.Tensor, style: object, *, tile: int | None = None) -> torch.Tensor:
        return content


def test_a_method_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="method is 'foo'; it must be one of adain, gatys"):
        gesso.stylize(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16), method="foo")  # type: ignore[arg-type]


@pytest.mark.network
def test_both_methods_work_from_python() -> None:
    content, style = photographs(32)[0], paintings(32)[0]
    options: dict[str, Any] = {"device": "cpu", "size": 32}
    one, other = (gesso.stylize(content, style, method=m, steps=2, **options) for m in ("adain", "gatys"))  # type: ignore[arg-type]
    assert one.shape == other.shape == (1, 3, 32, 32)
    assert not torch.equal(one, other)
    with torch.inference_mode():
        assert torch.equal(gesso.stylize(content, style, method="gatys", steps=2, **options), other)
    # Grey tensors are the grey pictures that files would be.
    grey = gesso.stylize(content[:1], style, **options)
    torch.testing.assert_close(grey, gesso.stylize(content[:1].repeat(3, 1, 1), style, **options))
