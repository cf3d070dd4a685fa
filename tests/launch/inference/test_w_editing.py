"""Edits in W: by 0 they are the generated pictures; along directions, scores change as they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from launch.inference.direction_finding import Samples, closed_form, scored
from launch.inference.w_editing import Sources, mixed, moved, path, strip
from launch.inference.w_files import Directions
from lightning_modules.core.abilities import CannotDo
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.dcgan import GeneratorOptions
from lightning_modules.pictures.scores import brightness
from tests.w_spaces import ToySpace, formula, tiny, tiny3

SPACE = ToySpace()


def planted(vector: Tensor, layers: tuple[int, int] | None = None) -> Directions:
    vector = vector / vector.norm()
    return Directions(vector[None], torch.tensor([2.0]), torch.ones(1), ("planted",), "svm", layers, "toy", "?")


@pytest.mark.parametrize("options", [{}, {"num_classes": 3}, {"truncation_psi": 0.5, "truncation_cutoff": 2}])
def test_an_edit_by_0_is_what_generate_makes_to_the_bit(options: dict[str, object]) -> None:
    family = tiny(**options)
    family.generator.mapping.w_avg.fill_(0.2)
    space, index = family.w_space(), torch.arange(5)
    directions = closed_form(space, "sefa", Samples(100), count=1)
    pictures = strip(Sources(space, 5, seed=3), directions, 0, (0.0, 2.0))
    assert torch.equal(pictures[:, 0], family.generate(index, seed=3))
    assert not torch.equal(pictures[:, 0], pictures[:, 1])
    if "num_classes" in options:
        label = torch.tensor([2])
        of_class = strip(Sources(space, 5, seed=3, label=label), directions, 0, (0.0,))
        assert torch.equal(of_class[:, 0], family.generate(index, seed=3, labels=label.expand(5)))
        assert not torch.equal(of_class[:, 0], pictures[:, 0])


def test_a_stylegan3_is_edited_too() -> None:
    family = tiny3()
    found = scored(family.w_space(), {"brightness": brightness}, Samples(200))
    pictures = strip(Sources(family.w_space(), 3), found, 0, (0.0, 2.0))
    assert torch.equal(pictures[:, 0], family.generate(torch.arange(3), seed=0))
    assert (brightness(pictures[:, 1]) > brightness(pictures[:, 0])).all()


def test_a_step_is_a_standard_deviation_of_w_in_the_layers_that_are_named() -> None:
    ws, vector = formula(2, 4, 6), torch.eye(6)[1]
    expected = ws.clone()
    expected[:, :, 1] += 1.5 * 2
    assert torch.equal(moved(ws, planted(vector), 0, 1.5), expected)
    expected[:, [0, 3]] = ws[:, [0, 3]]
    assert torch.equal(moved(ws, planted(vector, (1, 2)), 0, 1.5), expected)
    assert torch.equal(moved(ws, planted(vector), 0, 1.5, (1, 2)), expected)


def test_spreads_are_those_of_w() -> None:
    found = closed_form(SPACE, "pca", Samples(200, batch_size=7), count=6)
    w = SPACE.sampled(torch.arange(200), seed=0).double().numpy()
    np.testing.assert_allclose(found.spreads, (w @ found.vectors.double().numpy().T).std(0), atol=1e-5)
    assert found.names == tuple(f"pca-{number}" for number in range(6))
    # The space has few dimensions: all of its variance.
    assert float(found.values.sum()) == pytest.approx(1)


def test_styles_are_mixed_layer_by_layer() -> None:
    sources = Sources(SPACE, 5, batch_size=3)
    ws = torch.cat(sources.batches())
    table = mixed(sources, (1, 2)).view(3, 4, 1, 16, 16)
    assert torch.equal(table[0, 0], torch.ones(1, 16, 16))
    assert torch.equal(table[0, 1:], SPACE.images(ws[2:]))
    torch.testing.assert_close(table[1:, 0], SPACE.images(ws[:2]))
    of_both = ws[1].clone()
    of_both[1:3] = ws[3, 1:3]
    torch.testing.assert_close(table[2, 2], SPACE.images(of_both[None])[0])


def test_a_path_passes_all_pictures_and_closes() -> None:
    sources = Sources(SPACE, 3)
    frames = path(sources, 4)
    assert frames.shape == (12, 1, 16, 16)
    ws = torch.cat(sources.batches())
    torch.testing.assert_close(frames[::4], SPACE.images(ws))
    torch.testing.assert_close(frames[10], SPACE.images((ws[2:] + ws[:1]) / 2)[0])


class Plain(ToySpace):
    """Pictures of one grey, which depends on ``normal`` alone; w has 12 dimensions and is N(0, I)."""

    w_dim = 12
    normal = torch.nn.functional.normalize(formula(12, phase=1.0), dim=0)

    def sampled(self, index: Tensor, *, seed: int, labels: Tensor | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + int(index[0]))
        return torch.randn(len(index), 12, generator=generator)

    def images(self, ws: Tensor, noise: Tensor | None = None) -> Tensor:
        return torch.tanh(ws.mean(1) @ self.normal)[:, None, None, None].expand(-1, 1, 4, 4)


def test_a_planted_direction_is_found_through_pictures() -> None:
    space = Plain()
    found = scored(space, {"brightness": brightness}, Samples(2000))
    assert float(torch.cosine_similarity(found.vectors[0], space.normal, dim=0)) > 0.99
    assert float(found.spreads[0]) == pytest.approx(1, abs=0.05)
    assert float(found.values[0]) > 0.95
    assert (found.names, found.method) == (("brightness",), "svm")
    # Two scorers that want the same leave nothing of each other.
    with pytest.raises(ValueError, match="nothing is left"):
        scored(space, {"a": brightness, "b": brightness}, Samples(200), apart=True)
    away = scored(space, {"brightness": brightness}, Samples(500), others=[torch.eye(12)[:1]])
    assert float(away.vectors[0, 0].abs()) < 1e-6


def test_a_score_rises_along_its_direction_in_a_small_generator() -> None:
    space = tiny().w_space()
    done: list[int] = []
    found = scored(space, {"brightness": brightness}, Samples(1000), progress=done.append)
    assert done[-1] == 1000
    pictures = strip(Sources(space, 16, seed=9), found, 0, (-2, -1, 0, 1, 2))
    scores = torch.stack([brightness(pictures[:, column]) for column in range(5)], 1)
    assert (scores.mean(0).diff() > 0).all()
    # Of nearly all pictures, too.
    assert float((scores[:, 4] > scores[:, 0]).float().mean()) > 0.9


def test_scorers_give_a_number_for_each_picture() -> None:
    with pytest.raises(ValueError, match=r"scorer broken: gave \[64, 1, 4, 4\] for 64 pictures"):
        scored(Plain(), {"broken": lambda images: images}, Samples(100))
    with pytest.raises(ValueError, match="scorer same: scores: the lowest"):
        scored(Plain(), {"same": lambda images: torch.zeros(len(images))}, Samples(100))


def test_a_family_without_w_says_so() -> None:
    family = DCGAN(resolution=32, channels=1, generator=GeneratorOptions(width=8))
    assert "w_space" not in family.abilities()
    assert "w_space" in tiny().abilities()
    with pytest.raises(CannotDo, match="a DCGAN has no latent space W, which a StyleGAN has"):
        family.w_space()
