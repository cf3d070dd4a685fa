"""Learned style losses in AdaIN's training, judged by networks that it was not trained with.

    python -m tests.benchmarks.style_losses --work FOLDER [--seeds 0] [--steps 40] [--batch 4]

AdaIN goes on from the published decoder for so many steps, at 64 px and with bf16-mixed precision: with its own losses
alone, and with each of the learned ones added. Photographs are crops of scikit-image's and scikit-learn's, paintings of
140 out of 174. Two style encoders are trained before, of 105 of these 140 each (70 are in both) and from different
seeds: one is trained with, the other judges. So do VGG19's statistics (which the decoder is trained with, too),
MobileNetV2's features, and AlexNet's LPIPS and SSIM to the photograph: all on two other photographs in the
styles of the other 34 paintings. Differences to the training without learned losses are of the same pictures, with
intervals by bootstrap over the paintings.

Figures of quality, not of time. FOLDER keeps encoders and decoders, so that the work can be done in parts; what is done
is not done again. Prints a table, keeps it in ``tests/benchmarks/results/style_losses.json``, and with ``--sheet FILE``
makes a sheet of what the decoders draw.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torchvision.utils import make_grid, save_image

from datamodules.assets.fetching import fetch
from gesso.common.pixels import to_uint8
from lightning_modules.core.optimization import OptimizerOptions
from lightning_modules.kinds.stylizer import Style
from lightning_modules.losses.contrastive import two_way_nce
from lightning_modules.losses.style_learned import style_distance
from lightning_modules.metrics.features import FeatureExtractor, build_extractor
from lightning_modules.metrics.retrieval import retrieval
from lightning_modules.metrics.similarity import structural_similarity
from lightning_modules.networks.lpips import LPIPS
from lightning_modules.networks.patch_discriminator import PatchDiscriminatorOptions
from lightning_modules.networks.style_head import STATISTICS, style_statistics
from lightning_modules.pictures.crops import quarters, random_squares
from lightning_modules.style.adain import AdaIN
from lightning_modules.style.style_encoder import StyleEncoder
from tests.benchmarks.style_experts import HELD_OUT_PAINTINGS, PAINTINGS, contents, crops
from tests.pictures import paintings
from tests.trainers import bare_trainer

RESULTS = Path(__file__).parent / "results" / "style_losses.json"
SIDE = 64
#: Crops of each painting that the encoders learn from, and their steps of so many paintings.
CROPS, ENCODER_STEPS, ENCODER_BATCH = 8, 600, 32
#: Paintings that each encoder learns from.
SHARES = {"trained with": slice(0, 105), "judge": slice(35, 140)}
#: Chosen before anything was trained: at these weights the gradient of the first two, by the decoded pictures, has
#: a third of the length of that of AdaIN's own losses; the third's begins with a sixth, and grows as it is learnt.
#: None: the published decoder, which is not trained.
CONTESTANTS: dict[str, dict[str, Any] | None] = {
    "the published decoder": None,
    "AdaIN's own losses": {},
    "+ style distance": {"style_distance_weight": 5.0},
    "+ classifier": {"style_classifier_weight": 15.0},
    "+ adversarial": {"style_adversarial_weight": 10.0},
}
#: What is measured of each picture, and which way is better.
JUDGES = {
    "vgg_statistics": -1,
    "trained_with": -1,
    "judge": -1,
    "judge_finds": 1,
    "mobilenet": -1,
    "mobilenet_finds": 1,
    "lpips": -1,
    "ssim": 1,
}


def encoders(style: Tensor, folder: Path) -> dict[str, StyleEncoder]:
    """Both style encoders, trained if they are not in the folder yet."""
    found, statistics = {}, None
    for seed, (name, share) in enumerate(SHARES.items()):
        torch.manual_seed(seed)
        encoder = found[name] = StyleEncoder(resolution=2 * SIDE, crop_size=SIDE)
        encoder.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
        file = folder / f"encoder-{seed}.pt"
        if file.exists():
            encoder.head.load_state_dict(torch.load(file))
        else:
            statistics = crop_statistics(encoder, style) if statistics is None else statistics
            train_head(encoder, statistics[share], seed)
            torch.save(encoder.head.state_dict(), file)
        encoder.requires_grad_(False).eval()
    return found


@torch.no_grad()
def crop_statistics(encoder: StyleEncoder, style: Tensor) -> Tensor:
    """Statistics of random crops of each painting, [paintings, CROPS, STATISTICS]."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(CROPS):
        noise = torch.rand(len(style), 4, generator=generator)
        cut = random_squares(style, noise, size=SIDE, scales=encoder.scales)
        rows.append(torch.cat([style_statistics(encoder.encoder, part) for part in cut.split(16)]))
    return torch.stack(rows, 1)


def train_head(encoder: StyleEncoder, statistics: Tensor, seed: int) -> None:
    """The recipe's loss and optimizer, on crops that were made once."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(encoder.head.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, ENCODER_STEPS)
    for _ in range(ENCODER_STEPS):
        numbers = torch.randperm(len(statistics), generator=generator)[:ENCODER_BATCH]
        views = torch.rand(len(numbers), CROPS, generator=generator).topk(2).indices
        keep = (torch.rand(2, len(numbers), STATISTICS, generator=generator) >= encoder.dropout).float()
        pair = [encoder.head(statistics[numbers, views[:, n]], keep[n] / (1 - encoder.dropout)) for n in range(2)]
        loss = two_way_nce(pair[0], pair[1], temperature=encoder.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def scores(encoder: StyleEncoder, held_out: Tensor) -> dict[str, float]:
    """How an encoder finds held-out paintings again by their quarters, beside raw statistics."""
    parts = quarters(held_out).flatten(0, 1)
    statistics = style_statistics(encoder.encoder, parts)
    codes = {"codes": encoder.head(statistics), "raw": F.normalize(statistics, dim=1)}
    return {name: retrieval(rows.unflatten(0, (-1, 4)))[0] for name, rows in codes.items()}


class Pairs:
    """Batches of random crops of photographs and paintings."""

    def __init__(self, content: Tensor, style: Tensor, steps: int, batch: int, seed: int) -> None:
        self.content, self.style, self.steps, self.batch, self.seed = content, style, steps, batch, seed

    def __iter__(self) -> Iterator[dict[str, Any]]:
        generator = torch.Generator().manual_seed(self.seed)
        for step in range(self.steps):
            images, styles = (
                crops(each, torch.randint(len(each), (self.batch,), generator=generator), SIDE, generator)
                for each in (self.content, self.style)
            )
            yield {"image": images, "style": styles, "position": (step + 1) * self.batch}


def made(losses: dict[str, Any], encoder: StyleEncoder, seed: int) -> AdaIN:
    """AdaIN with the published decoder."""
    torch.manual_seed(seed)
    module = AdaIN(
        resolution=SIDE,
        style_encoder="the one trained with",
        optimizer=OptimizerOptions(lr=1e-5),
        style_discriminator=PatchDiscriminatorOptions(32, 2, "none", spectral_norm=True),
        style_discriminator_optimizer=OptimizerOptions(lr=4e-4, beta1=0.0),
        **losses,
    )
    module.decoder.load_published(fetch("adain_decoder", progress=False))
    module.take_weights("vgg19_normalized", fetch("vgg19_normalized", progress=False))
    for option in module.runs():
        module.take_run(option, encoder)
    return module


class Judges:
    """What is measured of stylised pictures.

    Args:
        found: both style encoders.
        style: the held-out paintings.
    """

    def __init__(self, found: dict[str, StyleEncoder], style: Tensor) -> None:
        self.encoders, self.style = found, style
        self.lpips = LPIPS(fetch("alexnet_lpips", progress=False), "alexnet")
        self.mobilenet: FeatureExtractor = build_extractor("mobilenet_v2", fetch("mobilenet_v2", progress=False))
        self.codes = {name: encoder.codes(style) for name, encoder in found.items()}
        self.features = self._features(style)

    def _features(self, images: Tensor) -> Tensor:
        return F.normalize(self.mobilenet(to_uint8(images)).pool, dim=1)

    @torch.no_grad()
    def __call__(self, module: AdaIN, content: Tensor) -> dict[str, list[list[float]]]:
        """Figures [paintings, photographs] by ``JUDGES``."""
        rows: dict[str, list[list[float]]] = {name: [] for name in JUDGES}
        for number, picture in enumerate(self.style.split(1)):
            results = torch.cat([module.stylize(each, Style([picture])) for each in content.split(1)])
            for name, values in self._of(results, content, number).items():
                rows[name].append([round(float(value), 5) for value in values])
        return rows

    def _of(self, results: Tensor, content: Tensor, number: int) -> dict[str, Tensor]:
        encoder = self.encoders["judge"].encoder
        ours, theirs = (style_statistics(encoder, each) for each in (results, self.style[number][None]))
        likeness = self._features(results) @ self.features.T
        found = {
            "vgg_statistics": (ours - theirs).square().mean(1),
            "mobilenet": 1 - likeness[:, number],
            "mobilenet_finds": (likeness.argmax(1) == number).float(),
            "lpips": self.lpips(results, content),
            "ssim": torch.stack(
                [structural_similarity(*pair) for pair in zip(results[:, None], content[:, None], strict=True)]
            ),
        }
        for name, each in self.encoders.items():
            codes = each.codes(results)
            found[name.replace(" ", "_")] = style_distance(codes, self.codes[name][number][None])
            if name == "judge":
                found["judge_finds"] = ((codes @ self.codes[name].T).argmax(1) == number).float()
        return found


def intervals(rows: dict[str, Any], base: dict[str, Any]) -> dict[str, tuple[float, float, float]]:
    """Mean differences to the training without learned losses, and their 95 % intervals over the paintings."""
    generator, found = np.random.default_rng(0), {}
    for name in JUDGES:
        # [seeds, paintings, photographs] to a figure a painting.
        difference = (np.array(rows[name]) - np.array(base[name])).mean((0, 2))
        drawn = difference[generator.integers(len(difference), size=(2000, len(difference)))].mean(1)
        found[name] = (float(difference.mean()), *map(float, np.percentile(drawn, (2.5, 97.5))))
    return found


def sheet(modules: dict[str, AdaIN], content: Tensor, style: Tensor, file: Path) -> None:
    """Photograph, painting, and what each decoder draws, a row a pair, at 128 px."""
    rows = []
    for photograph, picture in zip(content.split(1), style.split(1), strict=True):
        rows += [photograph, picture, *(module.stylize(photograph, Style([picture])) for module in modules.values())]
    save_image(make_grid((torch.cat(rows) + 1) / 2, nrow=2 + len(modules), pad_value=1.0), file)


def main() -> None:
    """Trains what is missing, measures, prints and saves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    content, style = contents(2 * SIDE), paintings(2 * SIDE, PAINTINGS)
    # Neighbours in the folder are alike: who is held out is drawn.
    style = style[torch.randperm(len(style), generator=torch.Generator().manual_seed(0))]
    held_out = style[-HELD_OUT_PAINTINGS:]
    found = encoders(style[:-HELD_OUT_PAINTINGS], options.work)
    small = [F.interpolate(each, (SIDE, SIDE), mode="area") for each in (content[-4::2], held_out)]
    judges, rows = Judges(found, small[1]), {}
    modules: dict[str, AdaIN] = {}
    for seed in options.seeds:
        for name in options.only or CONTESTANTS:
            file = options.work / f"{list(CONTESTANTS).index(name)}-{seed}.pt"
            module = made(CONTESTANTS[name] or {}, found["trained with"], seed)
            if file.exists():
                state = torch.load(file)
                module.decoder.load_state_dict(state["decoder"])
            else:
                if CONTESTANTS[name] is not None:
                    data = Pairs(content[:-4], style[:-HELD_OUT_PAINTINGS], options.steps, options.batch, seed)
                    bare_trainer(options.work, precision="bf16-mixed").fit(module, data)
                module.requires_grad_(False).eval()
                state = {"decoder": module.decoder.state_dict(), "figures": judges(module, small[0])}
                torch.save(state, file)
            modules.setdefault(name, module.requires_grad_(False).eval())
            rows.setdefault(name, {judge: [] for judge in JUDGES})
            for judge, values in state["figures"].items():
                rows[name][judge].append(values)
            print(seed, name, {judge: round(float(np.mean(v)), 4) for judge, v in state["figures"].items()}, flush=True)
    if options.only:
        return
    report(rows, {name: scores(encoder, held_out) for name, encoder in found.items()}, options)
    if options.sheet:
        sheet(modules, content[-4:], held_out[:4], options.sheet)


def report(rows: dict[str, Any], retrievals: dict[str, Any], options: argparse.Namespace) -> None:
    """Prints the table and saves it."""
    table = Table(title=f"AdaIN after {options.steps} steps of {options.batch} at {SIDE} px")
    for column in ("losses", *JUDGES):
        table.add_column(column)
    base = rows["AdaIN's own losses"]
    results: dict[str, Any] = {}
    for name, figures in rows.items():
        means = {judge: float(np.mean(values)) for judge, values in figures.items()}
        apart = intervals(figures, base)
        by_seed = {judge: [float(np.mean(seed)) for seed in values] for judge, values in figures.items()}
        results[name] = {"means": means, "difference, 95 %": apart, "seeds": by_seed}
        cells = [f"{means[j]:.3f}\n{apart[j][1]:+.3f} {apart[j][2]:+.3f}" for j in JUDGES]
        table.add_row(name, *cells)
    settings = {"steps": options.steps, "batch": options.batch, "seeds": options.seeds, "weights": CONTESTANTS}
    RESULTS.write_text(json.dumps({"options": settings, "retrieval": retrievals, "results": results}, indent=2) + "\n")
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
