"""Families and recipes of other packages: found by their entry points, and imported only when they are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gesso.common.catalogues import Catalogue

MODULE = """
from tests.tune.planted import Planted
class Stranger(Planted):
    pass
"""


def package(root: Path, name: str, *entries: str, module: str = MODULE) -> Path:
    """A package as pip leaves it in a folder of packages, with entry points."""
    (root / name / "configs").mkdir(parents=True)
    (root / name / "__init__.py").touch()
    (root / name / "families.py").write_text(module)
    (root / name / "configs" / f"{name}-recipe.yaml").write_text("# What a stranger trains\nrun: {kimg: 1}\n")
    info = root / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("\n".join(entries))
    return root


def run(site: Path, script: str) -> str:
    """What a script prints, with the packages of ``site`` installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.process
def test_a_name_of_ours_needs_no_other_module() -> None:
    printed = run(
        Path("/nowhere"),
        "import sys\nfrom lightning_modules.catalogue import family\n"
        "assert 'torch' not in sys.modules\n"
        "print(family('VAE').__name__, 'lightning_modules.gan.dcgan' in sys.modules)",
    )
    assert printed == "VAE False"


@pytest.mark.process
def test_families_and_recipes_of_other_packages(tmp_path: Path) -> None:
    site = package(
        tmp_path,
        "stranger",
        "[gesso.families]",
        "Stranger = stranger.families:Stranger",
        "Other = stranger.missing:Other",
        "Misnamed = stranger.families:Stranger",
        "[gesso.recipes]",
        "stranger = stranger",
    )
    printed = run(
        site,
        "import sys\nfrom lightning_modules.catalogue import FAMILIES, family\n"
        "from launch.training.recipes import recipes, resolve_recipe\n"
        "print(FAMILIES.names()[len(FAMILIES.own):], recipes()['stranger-recipe'])\n"
        "assert resolve_recipe('stranger-recipe').is_file()\n"
        "assert 'stranger' not in sys.modules\n"
        "print(family('Stranger').__module__, FAMILIES.path('Stranger'))\n"
        # Where a run folder says that it was, before its package was put in another order.
        "print(FAMILIES.path('stranger.gans.older.Stranger'), FAMILIES.path('elsewhere.Stranger'))\n"
        "for name in ('Other', 'Misnamed', 'Strangr'):\n"
        "    try:\n        family(name)\n"
        "    except (ValueError, ImportError) as error:\n        print(error)",
    ).splitlines()
    assert printed[0] == "['Misnamed', 'Other', 'Stranger'] What a stranger trains"
    assert printed[1] == "stranger.families stranger.families.Stranger"
    assert printed[2] == "stranger.families.Stranger elsewhere.Stranger"
    assert printed[3].startswith("family Other of the package stranger cannot be imported: No module named")
    assert "must name a class that is called Misnamed, too" in printed[4]
    assert "did you mean Stranger?" in printed[5]


@pytest.mark.process
def test_two_packages_with_one_name_are_one_line(tmp_path: Path) -> None:
    site = package(tmp_path, "first", "[gesso.families]", "DCGAN = first.families:DCGAN")
    for name in ("second", "third"):
        package(site, name, "[gesso.recipes]", f"{name} = {name}")
        (site / name / "configs" / "same.yaml").write_text("# The same\nrun: {}\n")
    printed = run(
        site,
        "from lightning_modules.catalogue import family\nfrom launch.training.recipes import resolve_recipe\n"
        "assert family('VAE')\n"
        "for ask in (lambda: family('DCGAN'), lambda: resolve_recipe('same')):\n"
        "    try:\n        ask()\n    except ValueError as error:\n        print(error)",
    ).splitlines()
    assert printed == [
        "family DCGAN: offered by gesso (lightning_modules.gan.dcgan:DCGAN) and first (first.families:DCGAN); "
        "rename or uninstall one of them",
        "packaged recipe same: the packages second and third have one each; give the file's path",
    ]


def test_paths_of_ours_lead_to_where_classes_are_now() -> None:
    catalogue = Catalogue("family", "gesso.nothing", {"VAE": "lightning_modules.autoencoder.vae"})
    now = "lightning_modules.autoencoder.vae.VAE"
    # Where run folders of earlier versions say that it is.
    assert catalogue.path("lightning_modules.vae.VAE") == now
    assert catalogue.path("VAE") == now
    assert catalogue.path("my.module.VAE") == "my.module.VAE"
    with pytest.raises(ValueError, match=r"no family 'GAN'; there are VAE; .*gesso.nothing.*GAN = .PACKAGE.MODULE:GAN"):
        catalogue.find("GAN")
