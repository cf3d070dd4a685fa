"""Files of directions and latents: what comes back, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from launch.inference.direction_finding import Samples, closed_form
from launch.inference.w_files import (
    check_target,
    load_directions,
    load_latents,
    named_direction,
    parse_layers,
    save_directions,
    save_latents,
)
from tests.w_spaces import tiny

SPACE, OTHER = tiny().w_space(), tiny(seed=1).w_space()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = closed_form(SPACE, "sefa", Samples(50), count=3, layers=(1, 4), origin="here")
    return save_directions(found, tmp_path / "found.safetensors")


def test_directions_come_back_by_name_and_number(file: Path) -> None:
    made = closed_form(SPACE, "sefa", Samples(50), count=3, layers=(1, 4), origin="here")
    found = load_directions(file, SPACE)
    assert torch.equal(found.vectors, made.vectors)
    assert torch.equal(found.spreads, made.spreads)
    assert torch.equal(found.values, made.values)
    assert (found.names, found.layers, found.origin) == (("sefa-0", "sefa-1", "sefa-2"), (1, 4), "here")
    for text, number in (("", 0), (":sefa-2", 2), (":1", 1)):
        assert named_direction(f"{file}{text}", SPACE)[1] == number
    with pytest.raises(
        ValueError, match=r"found.safetensors: no direction 'age' in this file; there are sefa-0, sefa-1"
    ):
        named_direction(f"{file}:age", SPACE)
    # A file of ours may be replaced, another one not.
    check_target(file)


def test_another_generators_files_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="found.safetensors: holds directions in W of another generator \\(here; weights"
    ):
        load_directions(file, OTHER)
    latents = save_latents(torch.zeros(1, 6, 8), SPACE, "here", tmp_path / "w.safetensors")
    assert load_latents(latents, SPACE).shape == (1, 6, 8)
    with pytest.raises(ValueError, match="latents in W of another generator"):
        load_latents(latents, OTHER)
    # The truncation and the weights that make no pictures do not matter.
    family = tiny(truncation_psi=0.5)
    family.discriminator.requires_grad_(False).apply(
        lambda module: [parameter.zero_() for parameter in module.parameters()]  # type: ignore[arg-type, return-value]
    )
    assert load_latents(latents, family.w_space()).shape == (1, 6, 8)


def test_strangers_files_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.safetensors: no such file of directions"):
        load_directions(tmp_path / "none.safetensors", SPACE)
    latents = save_latents(torch.zeros(1, 6, 8), SPACE, "here", tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="w.safetensors: holds no directions in W"):
        load_directions(latents, SPACE)
    broken = tmp_path / "broken.safetensors"
    for content in (b"", b"not a tensor", file.read_bytes()[:-5]):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match="broken.safetensors: holds no directions in W, or is damaged"):
            load_directions(broken, SPACE)
    about = {
        "gesso": "directions in W",
        "names": '["a"]',
        "layers": "all",
        "generator": SPACE.checksum(),
    }
    whole = {"vectors": torch.ones(1, 8), "spreads": torch.ones(1), "values": torch.ones(1)}
    save_file(whole, broken, metadata=about)
    assert load_directions(broken, SPACE).names == ("a",)
    for tensors, changes in (
        ({**whole, "vectors": torch.full((1, 8), torch.nan)}, {}),
        ({**whole, "vectors": torch.ones(1, 9)}, {}),
        ({**whole, "spreads": torch.ones(2)}, {}),
        ({"vectors": torch.ones(1, 8)}, {}),
        (whole, {"names": "{}"}),
        (whole, {"names": "[1]"}),
        (whole, {"names": "["}),
        (whole, {"layers": "4-99"}),
    ):
        save_file(tensors, broken, metadata={**about, **changes})
        with pytest.raises(ValueError, match="broken.safetensors: damaged") as caught:
            load_directions(broken, SPACE)
        assert "\n" not in str(caught.value)
    save_file({"ws": torch.zeros(1, 5, 8)}, broken, metadata={**about, "gesso": "latents in W"})
    with pytest.raises(ValueError, match="no latents of this generator's shape"):
        load_latents(broken, SPACE)


def test_targets_and_layers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="with the ending .safetensors"):
        check_target(tmp_path / "found.pt")
    (tmp_path / "weights.safetensors").write_bytes(b"mine")
    with pytest.raises(ValueError, match="is there already, and gesso has not made it"):
        check_target(tmp_path / "weights.safetensors")
    assert parse_layers("2", SPACE) == (2, 2)
    assert parse_layers("0-5", SPACE) == (0, 5)
    for text in ("6", "3-2", "a", "-1", "0-99999"):
        with pytest.raises(ValueError, match="this generator has 0 to 5"):
            parse_layers(text, SPACE)
