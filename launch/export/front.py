"""A run's networks as files for elsewhere, each let through only when it agrees with the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from datamodules.assets.fetching import fetch
from datamodules.shards import ShardData
from gesso.common.files import writing_whole
from gesso.common.text import binary_size
from launch.checkpoints.files import run_and_sum
from launch.evaluation.driver import prepare, score, stream_of
from launch.evaluation.sources import data_of
from launch.export.gate import Figures, Runner, check, check_fid, compare
from launch.export.onnx_file import OnnxRunner, traced, write_onnx
from launch.export.quantization import Int8, quantize
from launch.export.samples import Samples
from launch.export.torch_file import TorchRunner, write_pt2
from launch.inference.loading import load_family
from lightning_modules.core.deployment import Deployable, Layout
from lightning_modules.core.family import ImageFamily
from lightning_modules.metrics.evaluator import EvaluationOptions, GenerationEvaluator, Pictures
from lightning_modules.metrics.similarity import SourceSimilarity
from lightning_modules.metrics.specs import ExtractorName
from lightning_modules.networks.lpips import LPIPS

#: The endings of the files, by kind.
SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2"}
#: The largest LPIPS of INT8 from its run, unless one is given.
LPIPS_OF_INT8 = 0.08


@dataclass(frozen=True)
class ExportOptions:
    """How a run is exported.

    Args:
        part: of the family, such as ``decoder``; None: the main one.
        layout: sizes of the inputs.
        average: the averaged weights, as ``generate`` takes them; False: the raw ones.
        check: number of samples that are compared with the run's.
        seed: of what is drawn for them.
        tolerance: largest difference from the run.
        max_lpips: largest LPIPS from the run; None: it is not measured, but of INT8 (``LPIPS_OF_INT8``).
        int8: see ``quantization.Int8``; None: float32.
        calibration: number of samples by which INT8 finds ranges; others than those that are compared.
        max_fid_change: largest difference of the FID of generated samples from the run's; None: it is not measured.
        fid_samples, extractor: of that FID.
        data, second: shard sets of the pictures to compare on, instead of the run's own.
        licence: of the weights, for the file's metadata.
    """

    part: str | None = None
    layout: Layout = field(default_factory=Layout)
    average: bool = True
    check: int = 8
    seed: int = 0
    tolerance: float = 1e-4
    max_lpips: float | None = None
    int8: Int8 | None = None
    calibration: int = 16
    max_fid_change: float | None = None
    fid_samples: int = 2048
    extractor: ExtractorName = "inception-tf"
    data: str | None = None
    second: str | None = None
    licence: str = "not stated"

    def __post_init__(self) -> None:
        if self.check < 1:
            raise ValueError(f"--check {self.check}: 1 sample or more is compared with the run's")
        if self.calibration < 1:
            raise ValueError(f"--calibrate {self.calibration}: 1 sample or more says what ranges maps have")


@dataclass(frozen=True)
class Exported:
    """A file that was written, what it holds, and how far it is from its run."""

    file: Path
    what: str
    figures: Figures

    def __str__(self) -> str:
        size = binary_size(self.file.stat().st_size)
        return f"{self.file}: {self.what}; {size}\n  as the run: {self.figures}"


class Exporter:
    """A run, ready to be written in one or several formats.

    Args:
        source: run, checkpoint or exported file.
        options: see ``ExportOptions``.
        notice: is told in one line what a user should know.

    Raises:
        ValueError, FileNotFoundError: there is no such run, or its family exports no such part; one line.
    """

    def __init__(self, source: str, options: ExportOptions, notice: Callable[[str], None] = lambda line: None) -> None:
        self.options = options
        self.module, self.origin = load_family(source, average=options.average)
        self.part = self.module.known_part(options.part)
        self.checkpoint = Path(self.origin["path"])
        self.lay_out(options.layout)
        self.data = self._held_out(notice)

    def lay_out(self, layout: Layout) -> None:
        """Takes other sizes; raises a ValueError where the part is not to be had in them."""
        self.options = replace(self.options, layout=layout)
        self.deployable = self.module.deployable(self.part, layout)
        self.metadata = facts(self.module, self.part, self.deployable, self.checkpoint, self.origin, self.options)
        self._program: torch.export.ExportedProgram | None = None

    @property
    def samples(self) -> Samples:
        """Inputs to compare on."""
        return Samples(self.deployable, self.data, dynamic=self.options.layout.dynamic)

    @property
    def program(self) -> torch.export.ExportedProgram:
        """The traced network, traced once."""
        if self._program is None:
            self._program = traced(self.deployable, dynamic=self.options.layout.dynamic)
        return self._program

    def onnx(self, out: Path) -> Exported:
        """Writes an ONNX file.

        Raises:
            ValueError: it cannot be written so, or is not the run; one line. There is then no new file.
        """
        _check_suffix(out, "onnx")
        options = self.options
        if options.int8 and not self.deployable.is_picture:
            raise ValueError(f"--int8 is for networks that make pictures, which LPIPS compares: no {self.part}")
        with writing_whole(out) as partial:
            write_onnx(self.program, self.deployable, partial, self.metadata)
            figures = self.gate(OnnxRunner(partial, self.deployable.output), out)
            if options.int8:
                # Of pictures and latents that are not compared afterwards.
                calibration = self.samples(options.calibration, seed=options.seed, first=options.check)
                try:
                    quantize(partial, partial, options.int8, calibration)
                except ValueError as error:
                    raise ValueError(f"{out}: not written, {error}") from error
                figures = self.gate(OnnxRunner(partial, self.deployable.output), out, int8=True)
        return Exported(out, self.described() + (f", INT8 for {options.int8}" if options.int8 else ""), figures)

    def pt2(self, out: Path) -> Exported:
        """Writes a file of torch's own; raises like ``onnx``."""
        _check_suffix(out, "pt2")
        with writing_whole(out) as partial:
            write_pt2(self.program, partial, self.metadata)
            figures = self.gate(TorchRunner(partial, self.deployable), out)
        return Exported(out, self.described(), figures)

    def gate(self, runner: Runner, out: Path, *, int8: bool = False) -> Figures:
        """Compares a written file with the run; raises a ValueError that names ``out`` where it is too far."""
        options = self.options
        tolerance = None if int8 else options.tolerance
        # The float32 form of an INT8 export is compared number by number alone.
        measured = int8 or not options.int8
        max_lpips = options.max_lpips if measured else None
        max_lpips = LPIPS_OF_INT8 if int8 and max_lpips is None else max_lpips
        try:
            inputs = self.samples(options.check, seed=options.seed)
            figures = compare(self.deployable, runner, inputs, self.similarity(lpips=max_lpips is not None))
            check(figures, tolerance=tolerance, max_lpips=max_lpips)
            if measured and options.max_fid_change is not None:
                figures = replace(figures, fid=self.fid(runner))
                check_fid(figures, options.max_fid_change)
        except ValueError as error:
            raise ValueError(f"{out}: not written, {error}") from error
        return figures

    def similarity(self, *, lpips: bool) -> SourceSimilarity | None:
        """What measures how alike pictures are; None: the network makes none."""
        if not self.deployable.is_picture:
            return None
        if not lpips:
            return SourceSimilarity(None, ("psnr",))
        return SourceSimilarity(LPIPS(fetch("vgg16_lpips")), ("psnr", "lpips"))

    def fid(self, runner: Runner) -> tuple[str, float, float]:
        """FID by its full name: of the run's samples, and of the file's at the same seeds.

        Raises:
            ValueError: the network makes no samples, or the run's data is not there.
        """
        if "latents" not in self.deployable.inputs or "generate" not in self.module.abilities():
            raise ValueError("--max-fid-change: FID is of generated samples, which this network makes none of")
        options = self.options
        asked = EvaluationOptions(("fid",), options.extractor, options.fid_samples, 32, options.seed)
        data = data_of(self.checkpoint, self.module, {"path": options.data})

        def made(index: Tensor, batch: object) -> Tensor:
            return torch.cat([self._sample(runner, one) for one in index])

        values = []
        for make in (lambda index, batch: self.module.generate(index, seed=options.seed), made):
            evaluator = GenerationEvaluator(make, asked, self.module.described())
            prepare(evaluator, data, self.module.device, option="--max-fid-change")
            values.append(score(evaluator, data, self.module.device))
        ((name, ours),) = values[0].items()
        return name, ours, values[1][name]

    def _sample(self, runner: Runner, number: Tensor) -> Tensor:
        return runner(self.deployable.draw(number[None], self.options.seed, {}))

    def described(self) -> str:
        """What the file holds, in words."""
        kind = "averaged" if self.origin["average"] else "raw"
        weights = f"{kind} weights at {self.origin['images_seen'] / 1000:.1f} kimg"
        inputs = ", ".join(self.deployable.inputs)
        return f"{type(self.module).__name__}'s {self.part}, {weights}; {inputs} -> {self.deployable.output}"

    def _held_out(self, notice: Callable[[str], None]) -> ShardData | None:
        """The data module whose held-out pictures the network takes; None: it takes none, or they are not there."""
        options = self.options
        keys = {port.pictures for port in self.deployable.inputs.values()} - {""}
        if not keys:
            return None
        try:
            data = data_of(self.checkpoint, self.module, {"path": options.data, "second": options.second})
            for key in keys:
                stream = stream_of(data, Pictures(key))
                if not stream.manifest.split(stream.held_out_split).samples:
                    raise ValueError(f"{stream.path}: holds no held-out pictures")
        except (ValueError, FileNotFoundError) as error:
            if options.data or options.second:
                raise
            notice(f"compared on made-up pictures ({error})")
            return None
        return data


def facts(
    module: ImageFamily,
    part: str,
    deployable: Deployable,
    checkpoint: Path,
    origin: Mapping[str, object],
    options: ExportOptions,
) -> dict[str, str]:
    """The metadata of a file: where it comes from, and how it is used."""
    images = origin["images_seen"]
    assert isinstance(images, int)
    run, total = run_and_sum(checkpoint)
    return {
        "gesso.family": type(module).__name__,
        "gesso.part": part,
        "gesso.run": run,
        "gesso.checkpoint_sha256": total,
        "gesso.kimg": f"{images / 1000:g}",
        "gesso.weights": "average" if origin["average"] else "raw",
        "gesso.licence": options.licence,
        "gesso.value_range": "-1 1" if deployable.is_picture else "",
        "gesso.layout": "NCHW, RGB",
        "gesso.inputs": json.dumps({name: port.about for name, port in deployable.inputs.items()}),
        "gesso.output": json.dumps({deployable.output: deployable.about}),
        "gesso.sampling": json.dumps(module.sampled()),
    }


def _check_suffix(out: Path, kind: str) -> None:
    if out.suffix != SUFFIXES[kind]:
        raise ValueError(f"{out}: name the file to write with the ending {SUFFIXES[kind]}")
    if out.is_dir():
        raise ValueError(f"{out}: is a folder")
