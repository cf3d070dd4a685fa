"""Writes a run as a folder for others, and sends it to a hub."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from gesso.common.extras import needing
from gesso.common.files import sha256, write_whole
from launch.checkpoints.export import export
from launch.inference.loading import load_family
from launch.publishing.card import NOT_STATED, card
from launch.publishing.licences import style_facts
from launch.report.pieces import mapping
from launch.report.record import read_record
from launch.runs.folder import open_run
from lightning_modules.core.family import ImageFamily
from lightning_modules.core.options import constructor_options

#: What the folder holds.
WEIGHTS, CARD, PICTURE = "model.safetensors", "README.md", "samples.png"
#: What decodes the pictures of a model of latents.
AUTOENCODER = "autoencoder.safetensors"


def write_folder(
    run: str | os.PathLike[str],
    out: Path,
    *,
    average: bool = True,
    licence: str = NOT_STATED,
) -> Path:
    """Writes weights, their config, a model card and the newest preview of a run.

    Args:
        run: the run's folder.
        out: a new folder, or an empty one; a model of latents has its autoencoder there as well.
        average: the averaged weights, where there are any.
        licence: of the weights, an SPDX identifier.

    Returns:
        ``out``.

    Raises:
        FileNotFoundError, ValueError: no such run, it has no checkpoint, or ``out`` holds something; one line.
    """
    folder = open_run(run)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out}: holds something already; name a new folder")
    module, origin = load_family(folder.path, average=average)
    # A run is evaluated, and its previews are made, with its averaged weights.
    measured = origin["average"] or average or not load_family(folder.path)[1]["average"]
    record = read_record(folder.path)
    kind = "averaged" if origin["average"] else "raw"
    out.mkdir(parents=True, exist_ok=True)
    write_weights(module, out, average=origin["average"], licence=licence)
    previews = record.pictures.get("samples") if measured else None
    if previews:
        shutil.copyfile(previews[-1][1], out / PICTURE)
    text = card(
        record,
        weights=kind,
        checksum=sha256(out / WEIGHTS),
        licence=licence,
        styles=_styles(module),
        picture=PICTURE if previews else None,
        autoencoder=AUTOENCODER if module.received_autoencoder() is not None else None,
        measured=measured,
    )
    write_whole(out / CARD, text)
    return out


def write_weights(module: ImageFamily, out: Path, *, average: bool, licence: str = NOT_STATED) -> None:
    """Writes a family into a folder, and the autoencoder of a family of latents; neither names a place elsewhere.

    Args:
        module: the family, with its autoencoder.
        out: the folder.
        average: whether its weights are averaged.
        licence: of the weights, an SPDX identifier.
    """
    facts = {"family": type(module).__name__, "images_seen": module.images_seen, "licence": licence}
    origin = {**facts, "weights": "average" if average else "raw"}
    export(module, out / WEIGHTS, origin=origin, options=portable_options(module))
    autoencoder = module.received_autoencoder()
    if autoencoder is not None:
        decoder = {"family": type(autoencoder).__name__, "images_seen": autoencoder.images_seen}
        export(autoencoder, out / AUTOENCODER, origin=decoder, options=portable_options(autoencoder))


def portable_options(module: ImageFamily) -> dict[str, object]:
    """A family's options without any place of this machine.

    The autoencoder of latents is the file beside the model; runs that training began with are left out, of pictures
    that it was given the names stay.
    """
    options = constructor_options(module.hparams)
    if module.received_autoencoder() is not None:
        options["latents"] = {**mapping(options["latents"]), "autoencoder": AUTOENCODER}
    options |= dict.fromkeys(module.runs())
    return options | {name: [Path(file).name for file in files] for name, files in module.pictures().items()}


def _styles(module: ImageFamily) -> list[dict[str, str]]:
    """The style pictures that a family was trained with, as far as their files are still there."""
    files = [Path(name) for names in module.pictures().values() for name in names]
    return style_facts([file for file in files if file.is_file()]) or []


def upload(folder: Path, name: str, *, private: bool = False) -> str:
    """Sends a folder to Hugging Face as the model ``name`` (OWNER/NAME); the token is the hub's own (HF_TOKEN).

    Returns:
        The model's address.

    Raises:
        ModuleNotFoundError: there is no huggingface_hub.
        ValueError: the hub refuses; one line.
    """
    with needing("hub"):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError
    hub = HfApi()
    try:
        address = hub.create_repo(name, private=private, exist_ok=True)
        hub.upload_folder(repo_id=name, folder_path=folder)
    except HfHubHTTPError as error:
        raise ValueError(f"hf:{name}: {error}") from error
    return str(address)
