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
from launch.report.record import read_record
from launch.runs.folder import open_run
from lightning_modules.core.family import ImageFamily

#: What the folder holds.
WEIGHTS, CARD, PICTURE = "model.safetensors", "README.md", "samples.png"


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
        out: a new folder, or an empty one.
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
    record = read_record(folder.path)
    kind = "averaged" if origin["average"] else "raw"
    out.mkdir(parents=True, exist_ok=True)
    facts = {"family": type(module).__name__, "images_seen": origin["images_seen"], "weights": kind}
    export(module, out / WEIGHTS, origin={**facts, "licence": licence})
    previews = record.pictures.get("samples")
    if previews:
        shutil.copyfile(previews[-1][1], out / PICTURE)
    text = card(
        record,
        weights=kind,
        checksum=sha256(out / WEIGHTS),
        licence=licence,
        styles=_styles(module),
        picture=PICTURE if previews else None,
    )
    write_whole(out / CARD, text)
    return out


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
