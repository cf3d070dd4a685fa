"""What MUNIT parts where content and style are known: garments (content) in warm and in cold colours (style).

    gesso shards build tinted-fashion-warm shards/warm --size 32
    gesso shards build tinted-fashion-cold shards/cold --size 32
    gesso fit --config tinted-munit
    python -m tests.benchmarks.tinted RUN shards/warm shards/cold [--pictures 2000] [--sheet FILE]

A held-out warm garment is decoded in the style of a held-out cold one, and compared with the truth: that very garment
in that very colour. Beside it stand a plain copy of the input, the truth in another colour of the palette, and the
truth's garment with the colours' mean. Linear probes (multinomial regression) then read class and colour out of
content (maps pooled to 4 x 4) and style, fitted on half of the held-out pictures and tested on the others; chance is
the share of the commonest. Prints the figures and keeps them in ``tests/benchmarks/results/tinted.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from datamodules.assets.tinted import PALETTES, apart, tinted
from launch.inference.loading import load_family
from lightning_modules.translation.munit import MUNIT

RESULTS = Path(__file__).parent / "results" / "tinted.json"
NAMES = tuple(PALETTES)


def held_out(shards: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first pictures of the validation split, uint8 [N, H, W, 3], and their classes."""
    pictures, labels = [], []
    for shard in sorted(shards.glob("val-*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert stream is not None
                if member.name.endswith(".png"):
                    pictures.append(np.asarray(Image.open(io.BytesIO(stream.read())).convert("RGB")))
                elif member.name.endswith(".cls"):
                    labels.append(int(stream.read()))
    return np.stack(pictures[:count]), np.array(labels[:count])


def as_input(pictures: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Mean over the pictures, in dB."""
    squares = ((pictures.astype(float) - truth) ** 2).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / np.maximum(squares, 1e-2))).mean())


def read_off(codes: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Accuracy of a linear probe on the second half of the pictures."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    half = len(codes) // 2
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
    return float(probe.fit(codes[:half], labels[:half]).score(codes[half:], labels[half:]))


@torch.no_grad()
def codes(module: MUNIT, domain: str, pictures: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contents, pooled, and styles of pictures: [N, D] each."""
    autoencoder = module.autoencoder_a if domain == "a" else module.autoencoder_b
    rows = [autoencoder.encode(part) for part in pictures.split(100)]
    contents = torch.cat([F.adaptive_avg_pool2d(content, 4).flatten(1) for content, _ in rows])
    return contents.double().numpy(), torch.cat([style for _, style in rows]).double().numpy()


@torch.no_grad()
def swapped(module: MUNIT, direction: str, pictures: Tensor, others: Tensor) -> NDArray[np.uint8]:
    """Pictures in the styles of as many others, uint8 [N, H, W, 3]."""
    made = [
        module.translate_in_style(part, direction, module.style_of(style, direction))
        for part, style in zip(pictures.split(100), others.split(100), strict=True)
    ]
    return ((torch.cat(made).clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def main() -> None:
    """Measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("warm", type=Path)
    parser.add_argument("cold", type=Path)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    module, facts = load_family(options.run)
    assert isinstance(module, MUNIT)
    sets = {"a": held_out(options.warm, options.pictures), "b": held_out(options.cold, options.pictures)}
    count = min(len(pictures) for pictures, _ in sets.values())
    found: dict[str, dict[str, float]] = {}
    rows = []
    for source, target in (("a", "b"), ("b", "a")):
        pictures, styles = (sets[domain][0][:count] for domain in (source, target))
        grey, _ = apart(pictures, NAMES["ab".index(source)])
        palette = PALETTES[NAMES["ab".index(target)]]
        _, colors = apart(styles, NAMES["ab".index(target)])
        truth = np.stack([tinted(each, palette[color]) for each, color in zip(grey, colors, strict=True)])
        wrong = np.stack([tinted(each, palette[(color + 1) % 5]) for each, color in zip(grey, colors, strict=True)])
        mean = tuple(int(value) for value in np.mean(palette, 0).round())
        direction = f"{source}-to-{target}"
        made = swapped(module, direction, as_input(pictures), as_input(styles))
        found[direction] = {
            "swapped": psnr(made, truth),
            "copy of the input": psnr(pictures, truth),
            "next colour of the palette": psnr(wrong, truth),
            "mean colour": psnr(np.stack([tinted(each, (mean[0], mean[1], mean[2])) for each in grey]), truth),
        }
        rows += [each[:12] for each in (pictures, styles, made, truth)]
    probes: dict[str, dict[str, float]] = {}
    for domain, (pictures, labels) in sets.items():
        _, colors = apart(pictures, NAMES["ab".index(domain)])
        contents, style = codes(module, domain, as_input(pictures))
        half = len(labels) // 2
        for name, truths in (("class", labels), ("colour", colors)):
            probes[f"{name} of domain {domain}"] = {
                "content": read_off(contents, truths),
                "style": read_off(style, truths),
                "chance": float(np.bincount(truths[half:]).max() / len(truths[half:])),
            }
    figures = {"images_seen": facts["images_seen"], "pictures": count, "psnr": found, "probes": probes}
    print(json.dumps(figures, indent=2))
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    if options.sheet:
        sheet = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
        Image.fromarray(sheet).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST).save(
            options.sheet
        )


if __name__ == "__main__":
    main()
