"""`gesso export`: a run's network as one file or page for elsewhere, let through only when it agrees with the run."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from gesso.common.arguments import seed
from lightning_modules.metrics.specs import EXTRACTORS


def add_parser(verbs: argparse._SubParsersAction) -> None:
    """Registers the verb."""
    parser = verbs.add_parser(
        "export",
        help="write a run's network as one ONNX file, torch's own, or a page for browsers; it needs nothing of gesso",
        description="Writes one folded network with named inputs, and compares the written file with the run on the "
        "same inputs: what is too far from it leaves no file.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="run, checkpoint or exported file")
    formats = parser.add_argument_group("formats, one or more")
    formats.add_argument("--onnx", type=Path, metavar="OUT.onnx", help="ONNX, opset 20")
    formats.add_argument("--pt2", type=Path, metavar="OUT.pt2", help="torch's own: torch.export.load reads it")
    formats.add_argument(
        "--safetensors", type=Path, metavar="OUT.safetensors", help="the weights and the config, for gesso itself"
    )
    formats.add_argument(
        "--web", type=Path, metavar="FOLDER", help="a page that makes pictures in the browser, for any static server"
    )
    parser.add_argument("--part", metavar="NAME", help="of a family with several, such as a VAE's reconstruction")
    parser.add_argument("--dynamic", action="store_true", help="free numbers and sizes of pictures")
    parser.add_argument("--size", metavar="N or HxW", help="of pictures in pixels (default: as trained)")
    parser.add_argument("--raw", action="store_true", help="the raw weights instead of their moving average")
    parser.add_argument("--licence", default="not stated", metavar="TEXT", help="of the weights, for the metadata")
    parser.add_argument(
        "--int8",
        choices=("speed", "size"),
        help="8 bits in the ONNX file: weights and maps (speed), or weights alone, for a quarter of the size (size)",
    )
    parser.add_argument(
        "--calibrate", type=int, default=16, metavar="N", help="--int8 speed: samples that say what range maps have"
    )
    gate = parser.add_argument_group("the comparison with the run")
    gate.add_argument("--check", type=int, default=8, metavar="N", help="on N samples (default: %(default)s)")
    gate.add_argument("--seed", type=seed, default=0, help="of what is drawn for them")
    gate.add_argument("--tolerance", type=float, default=1e-4, metavar="D", help="largest difference (%(default)s)")
    gate.add_argument("--max-lpips", type=float, metavar="D", help="largest LPIPS from the run (--int8: 0.08)")
    gate.add_argument("--max-fid-change", type=float, metavar="D", help="largest difference of FID from the run's")
    gate.add_argument("--fid-samples", type=int, default=2048, metavar="N", help="of that FID (default: %(default)s)")
    gate.add_argument("--extractor", default="inception-tf", choices=EXTRACTORS, help="of that FID")
    gate.add_argument("--data", metavar="SHARDS", help="shard set of pictures (default: the run's held-out ones)")
    gate.add_argument("--style-data", "--data-b", dest="second_data", metavar="SHARDS", help="the second one")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if not (arguments.onnx or arguments.pt2 or arguments.safetensors or arguments.web):
        raise ValueError("no format: name a file with --onnx, --pt2 or --safetensors, or a folder with --web")
    if arguments.int8 and not (arguments.onnx or arguments.web):
        raise ValueError("--int8 is a form of the ONNX file: name one with --onnx")
    if not (arguments.onnx or arguments.pt2 or arguments.web):
        for option in ("part", "dynamic", "size"):
            if getattr(arguments, option):
                raise ValueError(
                    f"--{option} is of a network that is written: name a file with --onnx or --pt2, or a folder with "
                    "--web; --safetensors has all weights"
                )
    height, width = _size(arguments.size)
    from launch.export.front import Exporter, ExportOptions
    from lightning_modules.core.deployment import Layout

    if arguments.safetensors:
        from gesso.cli import checkpoint

        same = {"path": arguments.run_folder, "out": arguments.safetensors, "raw": arguments.raw}
        same["licence"] = arguments.licence
        checkpoint.export(argparse.Namespace(**same))
        if not (arguments.onnx or arguments.pt2 or arguments.web):
            return 0
    options = ExportOptions(
        part=arguments.part,
        layout=Layout(height, width, dynamic=arguments.dynamic),
        average=not arguments.raw,
        check=arguments.check,
        seed=arguments.seed,
        tolerance=arguments.tolerance,
        max_lpips=arguments.max_lpips,
        int8=arguments.int8,
        calibration=arguments.calibrate,
        max_fid_change=arguments.max_fid_change,
        fid_samples=arguments.fid_samples,
        extractor=arguments.extractor,
        data=arguments.data,
        second=arguments.second_data,
        licence=arguments.licence,
    )

    def notice(line: str) -> None:
        print(f"gesso: {line}", file=sys.stderr)

    if arguments.onnx or arguments.pt2:
        exporter = Exporter(arguments.run_folder, options, notice)
        if arguments.onnx:
            print(exporter.onnx(arguments.onnx))
        if arguments.pt2:
            print(exporter.pt2(arguments.pt2))
    if arguments.web:
        from launch.export.web import served_by, summary, write_web

        print(write_web(arguments.run_folder, arguments.web, options, notice))
        print(summary(arguments.web))
        print(f"serve it: {served_by(arguments.web)}")
    return 0


def _size(text: str | None) -> tuple[int | None, int | None]:
    """``256`` or ``256x384``, height first."""
    if text is None:
        return None, None
    found = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if found is None:
        raise ValueError(f"--size {text}: name one side in pixels, or HxW")
    return int(found[1]), int(found[2] or found[1])
