"""What all diffusion models share: samples, guidance, conditions, edits and previews."""

from __future__ import annotations

import pytest
import torch

from lightning_modules.core.abilities import CannotDo
from lightning_modules.diffusion.ddpm import DDPM
from lightning_modules.diffusion.edm import EDM
from lightning_modules.diffusion.flow import Flow
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.kinds.denoising import DenoisingFamily
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from lightning_modules.networks.denoisers import DenoiserOptions, build_denoiser
from lightning_modules.samplers.sampling import SamplingOptions
from lightning_modules.samplers.table import SAMPLERS
from tests.lightning_modules.diffusion.families import TINY, tiny

KINDS = [EDM, Flow, DDPM]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_depends_on_seed_and_number_alone(kind: type[DenoisingFamily]) -> None:
    module = tiny(kind, num_classes=3)
    module.sample_with({"sampler": "ddpm", "steps": 4})
    whole = module.generate(torch.arange(6), seed=5)
    assert (whole.shape, whole.dtype) == ((6, 1, 16, 16), torch.float32)
    assert whole.abs().max() <= 1
    parts = torch.cat([module.generate(torch.tensor([number]), seed=5) for number in (4, 2)])
    torch.testing.assert_close(parts, whole[[4, 2]], atol=2e-4, rtol=0)
    assert not torch.allclose(module.generate(torch.arange(6), seed=6), whole, atol=1e-2)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_makes_images_of_every_kind(name: str) -> None:
    for kind in KINDS:
        module = tiny(kind)
        module.sample_with({"sampler": name, "steps": 3})
        images = module.generate(torch.arange(2), seed=0)
        assert 0 < images.std() < 2
        assert module.sampled() == {"sampler": name, "steps": 3, "evaluations": module.sampled()["evaluations"]}


def test_guidance_one_is_the_conditional_model_bit_for_bit_and_more_is_not() -> None:
    module, index = tiny(EDM, num_classes=3), torch.arange(4)
    labels = torch.tensor([0, 1, 2, 1])
    plain = module.generate(index, seed=0, labels=labels)
    calls = 0

    def counting(*_: object) -> None:
        nonlocal calls
        calls += 1

    module.network.register_forward_hook(counting)
    undo = module.sample_with({"guidance": 1.0})
    assert torch.equal(module.generate(index, seed=0, labels=labels), plain)
    assert (calls, undo) == (35, {"guidance": 1.0})
    calls = 0
    undo = module.sample_with({"guidance": 2.0, "steps": 3})
    assert not torch.equal(module.generate(index, seed=0, labels=labels), plain)
    assert calls == 2 * 5
    assert module.sampled() == {"sampler": "heun", "steps": 3, "evaluations": 5, "guidance": 2.0}
    # Guided above sigma 1 alone: the first level is 80, the second one 2.5, the third 0.002.
    calls = 0
    module.sample_with({"guidance_from": 1.0})
    module.generate(index, seed=0, labels=labels)
    assert calls == 5 + 3
    module.sample_with({**undo, "guidance_from": 0.0})
    assert torch.equal(module.generate(index, seed=0, labels=labels), plain)


def test_changes_that_do_nothing_are_refused() -> None:
    module = tiny(Flow, num_classes=3)
    with pytest.raises(ValueError, match="an interval of guidance does nothing without guidance"):
        module.sample_with({"guidance_from": 1.0})
    with pytest.raises(ValueError, match="a Flow takes a sampler, steps and guidance, no truncation"):
        module.sample_with({"truncation_psi": 0.5})
    assert module.sample_with({"guidance": 2.0, "guidance_from": 1.0}) == {"guidance": 1.0, "guidance_from": 0.0}


def test_classes_make_a_difference_and_cycle() -> None:
    module, index = tiny(Flow, num_classes=3), torch.arange(4)
    first, second = (module.generate(index, seed=0, labels=torch.full((4,), label)) for label in (0, 1))
    assert not torch.allclose(first, second, atol=1e-4)
    cycled = module.generate(index, seed=0)
    torch.testing.assert_close(cycled[[0, 3]], first[[0, 3]], atol=1e-5, rtol=0)
    torch.testing.assert_close(cycled[1], second[1], atol=1e-5, rtol=0)


def test_a_tenth_of_the_labels_is_hidden() -> None:
    module = tiny(EDM, num_classes=3, label_dropout=0.1)
    labels = torch.arange(3).repeat(2000)
    found = module.partly_hidden_labels({"label": labels})
    assert found is not None
    hidden = found == 3
    assert hidden.float().mean().item() == pytest.approx(0.1, abs=0.015)
    assert torch.equal(found[~hidden], labels[~hidden])
    assert tiny(EDM).partly_hidden_labels({"label": labels}) is None


def test_what_is_known_comes_back_bit_for_bit_and_the_rest_is_filled_in() -> None:
    module = tiny(EDM)
    module.sample_with({"steps": 4})
    pictures = torch.rand(2, 1, 16, 16) * 2 - 1
    known = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    known[..., :8] = True
    for resamples in (1, 3):
        filled = module.edit(pictures, torch.arange(2), seed=0, known=known, resamples=resamples)
        assert torch.equal(filled[..., :8], pictures[..., :8])
        assert not torch.allclose(filled[..., 8:], pictures[..., 8:], atol=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_leaves_more_of_the_picture_the_weaker_it_is(kind: type[DenoisingFamily]) -> None:
    module = tiny(kind)
    pictures = torch.rand(1, 1, 16, 16) * 2 - 1
    away = [
        (module.edit(pictures, torch.arange(1), seed=0, strength=strength) - pictures).abs().mean().item()
        for strength in (0.0, 0.1, 0.9)
    ]
    assert away[0] < 1e-6 < away[1] < away[2]


def test_previews_are_samples_and_their_way_out_of_the_noise() -> None:
    module = tiny(EDM, num_classes=4)
    previews = module.previews({}, seed=0)
    assert (previews["samples"].images.shape, previews["samples"].columns) == ((24, 1, 16, 16), 4)
    strip = previews["denoising"]
    assert (strip.images.shape, strip.columns) == ((48, 1, 16, 16), 8)
    # The last column is the sample itself.
    torch.testing.assert_close(strip.images[7::8], module.generate(torch.arange(6), seed=0), atol=1e-5, rtol=0)
    path = module.interpolate(pairs=2, steps=5, seed=0)
    assert (path.images.shape, path.columns) == ((10, 1, 16, 16), 5)


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(ValueError, match="guidance is 2; it must be 1, since the model has no classes"):
        tiny(EDM).sample_with({"guidance": 2.0})
    with pytest.raises(ValueError, match="trained with label_dropout 0: it knows no unconditional images"):
        tiny(EDM, num_classes=2, label_dropout=0.0, sampling=SamplingOptions(guidance=2.0))
    with pytest.raises(ValueError, match="sampler is 'hein'; it must be one of euler, "):
        tiny(EDM).sample_with({"sampler": "hein"})
    with pytest.raises(ValueError, match="sampler is flow-map, which an EDM does not have; choose one of euler, "):
        tiny(EDM).sample_with({"sampler": "flow-map"})
    with pytest.raises(ValueError, match="steps is 0; it must be 1 or more"):
        tiny(EDM).sample_with({"steps": 0})
    with pytest.raises(ValueError, match="option of sampling is 'stepps'; it must be one of sampler, steps"):
        tiny(EDM).sample_with({"stepps": 3})
    with pytest.raises(ValueError, match="guidance_from is 3.0; it must be less than guidance_to"):
        tiny(EDM).sample_with({"guidance_from": 3.0, "guidance_to": 2.0})
    with pytest.raises(ValueError, match="steps is 1001; the model has 1000 steps, and no more"):
        tiny(DDPM).sample_with({"steps": 1001})
    gan = DCGAN(resolution=32, generator=GeneratorOptions(8), discriminator=DiscriminatorOptions(8))
    with pytest.raises(CannotDo, match="a DCGAN makes a picture in one pass: it takes no sampler, steps, guidance or"):
        gan.sample_with({"steps": 3})
    with pytest.raises(CannotDo, match="a DCGAN edits no pictures"):
        gan.edit(torch.zeros(1, 3, 32, 32), torch.arange(1), seed=0)
    with pytest.raises(ValueError, match=r"network\.depth: the architecture ddpmpp has no such option; it has "):
        build_denoiser(DenoiserOptions(depth=3), resolution=16, in_channels=1, out_channels=1)
    options = DenoiserOptions("dit", depth=1, width=24, heads=2)
    with pytest.raises(ValueError, match="the architecture dit is not told of augmentations"):
        build_denoiser(options, resolution=16, in_channels=1, out_channels=1, augment_dim=9)


def test_recipes_and_checkpoints_give_lists_for_tuples() -> None:
    options = {
        "resolution": 16,
        "channels": 1,
        "network": {"width": 8, "multipliers": [1, 2], "blocks": 1, "attention_resolutions": []},
    }
    module = EDM.from_options({**options, "sampling": {"sampler": "euler", "steps": 3}})
    assert module.sampled()["evaluations"] == 3
    assert module.network.state_dict().keys() == tiny(EDM).network.state_dict().keys()
    assert TINY.multipliers == (1, 2)
