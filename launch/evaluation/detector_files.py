"""A detector's folder: its weights, its report and a sheet of the hardest cases. And its use on other pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from datamodules.streaming.transforms import DRAWS, Augment
from gesso.common.files import write_whole, writing_whole
from gesso.common.text import one_line
from launch.checkpoints.tensors import save_tensors
from launch.evaluation.detection import COLUMNS, MADE, Detection
from launch.inference.pictures import decode_file, image_grid, save_picture
from lightning_modules.networks.classifier import Classifier, ClassifierOptions, probabilities

#: The metadata's key for what a file holds, and its value.
KIND, DETECTOR = "gesso", "detector of samples"
WEIGHTS, REPORT, SHEET = "detector.safetensors", "report.json", "hardest.png"


def check_folder(folder: Path) -> Path:
    """Checks, before any work, that a detector can be written there; gives ``folder`` back.

    Raises:
        ValueError: a file is there, or a folder with other things than an earlier detector.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / WEIGHTS).is_file()):
        raise ValueError(f"{folder}: is there already, and holds no detector: name another folder with --out")
    return folder


def save_detection(found: Detection, about: Mapping[str, object], folder: Path) -> None:
    """Writes a detector's folder.

    Args:
        found: the detector and what it can do.
        about: where its samples came from, for the report.
        folder: see ``check_folder``; made where it is missing.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"network": asdict(found.network.options), "size": found.sheet.shape[-1], **about}
    tensors = {name: tensor.cpu().contiguous() for name, tensor in found.network.state_dict().items()}
    with writing_whole(folder / WEIGHTS) as partial:
        save_tensors(tensors, partial, metadata={KIND: DETECTOR, "about": json.dumps(facts)})
    write_whole(folder / REPORT, json.dumps({**found.result(), **about}, indent=2) + "\n")
    save_picture(image_grid(found.sheet, COLUMNS), folder / SHEET)


class Detector:
    """A detector that ``save_detection`` wrote.

    Args:
        folder: where it is.
        device: of the network.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file holds something else, or is damaged.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        file = folder / WEIGHTS
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no detector here; `gesso detector RUN` trains one")
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
                if metadata.get(KIND) != DETECTOR:
                    raise ValueError("no detector")
                about = json.loads(metadata["about"])
                options = ClassifierOptions(**about["network"])
                self.size = int(about["size"])
                sizes = (options.channels in (1, 3), 0 < options.width <= 1024, 0 < options.levels <= 16)
                if not all(sizes) or not 0 < self.size <= 16_384:
                    raise ValueError("sizes")
                self.network = Classifier(options)
                self.network.load_state_dict({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"{file}: not a detector, or damaged ({one_line(error)}): train it again") from error
        self.network.eval().to(device)

    def read(self, file: Path) -> Tensor:
        """A picture as the data's become: the largest centred square, at the size of the samples: uint8 [1, C, H, W].

        Raises:
            FileNotFoundError, ValueError: it is no picture.
        """
        out = np.empty((self.size, self.size, self.network.options.channels), np.uint8)
        decode_file(file, lambda data: Augment(self.size).render(data, out, [0.5] * DRAWS))
        return torch.from_numpy(out).permute(2, 0, 1)[None]

    def made(self, images: Tensor) -> Tensor:
        """The probability that each picture, uint8 [N, C, H, W], was made by the run: float32 [N]."""
        return probabilities(self.network, images)[:, MADE]
