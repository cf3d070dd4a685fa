"""`gesso encode`: latents are the encoder's, in the pictures' order and with their keys; what it refuses."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

import gesso
from datamodules.building.inspection import inspect, verify
from datamodules.building.tars import ShardWriter
from datamodules.manifest import Manifest
from datamodules.shards import ShardData
from gesso.cli.main import main
from launch.checkpoints.export import export
from launch.encoding import EncodingOptions, encode
from lightning_modules.autoencoder.kl import AutoencoderKL
from lightning_modules.gan.dcgan import DCGAN
from lightning_modules.networks.autoencoder_kl import KLAutoencoderOptions
from lightning_modules.networks.dcgan import DiscriminatorOptions, GeneratorOptions
from tests.datamodules.shardset import Sample, in_shards, write_shards
from tests.launch.identity import assert_identical, training_state

SIDE = 16
OPTIONS = EncodingOptions(batch_size=4, workers=0)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def autoencoder(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    small = KLAutoencoderOptions(32, (1, 1), 1)
    module = AutoencoderKL(
        resolution=SIDE, latent_channels=2, perceptual_weight=0.0, adversarial_weight=0.0, autoencoder=small
    )
    # Latents that are far from mean 0 and standard deviation 1.
    module.autoencoder.encoder.to_posterior.bias.data = torch.tensor([3.0, -2.0, -1.0, 1.0])
    return module


def saved(module: Any, file: Path) -> Path:
    export(module, file, origin={"images_seen": 1000, "average": True})
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoding")


@pytest.fixture(scope="module")
def pictures(folder: Path) -> Manifest:
    """9 and 3 pictures with labels and captions."""
    draws = np.random.default_rng(0).integers(0, 256, (12, SIDE, SIDE, 3), np.uint8)
    samples = [Sample(png(image), number % 3, f"number {number}") for number, image in enumerate(draws)]
    return write_shards(folder / "pictures", train=in_shards(samples[:9], 5, 4), val=[samples[9:]])


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    return saved(autoencoder(), folder / "autoencoder.safetensors")


@pytest.fixture(scope="module")
def latents(folder: Path, pictures: Manifest, run: Path) -> Manifest:
    return encode(pictures.root, run, folder / "latents", replace(OPTIONS, flips=True), progress=False)


def batches(manifest: Manifest, split: str = "train", **options: Any) -> dict[str, Any]:
    data = ShardData(str(manifest.root), 4, workers=0, **options)
    (batch,) = data.split_batches(split, rank=0, world_size=1, batch_size=100, limit=None)
    return batch


def posterior(images: Tensor) -> Tensor:
    with torch.no_grad():
        mean, log_variance = autoencoder().encode(images)
    return torch.cat([mean, (log_variance / 2).exp()], 1)


def keys(manifest: Manifest, number: int) -> list[str]:
    with tarfile.open(manifest.resolve(manifest.split("train").shards[number].url)) as tar:
        return list(dict.fromkeys(name.partition(".")[0] for name in tar.getnames()))


def test_it_is_the_same_set_of_latents(pictures: Manifest, latents: Manifest) -> None:
    assert Manifest.load(latents.root) == latents
    assert json.loads((latents.root / "manifest.json").read_text())["kind"] == "latent"
    assert latents.latents is not None
    assert latents.latents.encoder == autoencoder().encoder_checksum()
    assert (latents.channels, latents.size, latents.segments) == (2, (8, 8), pictures.segments)
    assert (latents.classes, latents.captions, latents.name) == (pictures.classes, True, pictures.name)
    for split in ("train", "val"):
        assert np.array_equal(latents.index(split)["label"], pictures.index(split)["label"])
        sizes = [[shard.samples for shard in manifest.split(split).shards] for manifest in (latents, pictures)]
        assert sizes[0] == sizes[1]
        assert batches(latents, split)["caption"] == batches(pictures, split)["caption"]
    for number in range(2):
        ours, theirs = (keys(manifest, number) for manifest in (latents, pictures))
        assert ours == theirs
    assert not [path.name for path in latents.root.iterdir() if path.name.startswith(".")]


def test_samples_are_the_posteriors_of_pictures_and_mirrored_pictures(pictures: Manifest, latents: Manifest) -> None:
    images = batches(pictures)["image"].float() / 127.5 - 1
    expected = torch.stack([posterior(images), posterior(images.flip(3))], 1)
    found: list[np.ndarray] = []
    for shard in latents.split("train").shards:
        with tarfile.open(latents.resolve(shard.url)) as tar:
            members = [tar.extractfile(member) for member in tar if member.name.endswith(".npy")]
            found += [np.load(io.BytesIO(member.read())) for member in members if member is not None]
    assert found[0].dtype == np.float16
    torch.testing.assert_close(torch.from_numpy(np.stack(found)).float(), expected, atol=2e-3, rtol=2e-3)


def test_batches_have_mean_0_and_standard_deviation_1(pictures: Manifest, latents: Manifest) -> None:
    assert latents.latents is not None
    raw = posterior(batches(pictures)["image"].float() / 127.5 - 1)
    shift, scale = (torch.tensor(values)[:, None, None] for values in (latents.latents.mean, latents.latents.std))
    mean, std = batches(latents)["image"].chunk(2, 1)
    torch.testing.assert_close(mean * scale + shift, raw[:, :2], atol=3e-3, rtol=3e-3)
    torch.testing.assert_close(std * scale, raw[:, 2:], atol=3e-3, rtol=3e-3)
    # Over pictures and mirrored pictures.
    both = [batches(latents)["image"], mirrored(latents)]
    means, stds = torch.cat(both).double().chunk(2, 1)
    torch.testing.assert_close(means.mean((0, 2, 3)), torch.zeros(2).double(), atol=1e-5, rtol=0)
    squares = (means.square() + stds.square()).mean((0, 2, 3))
    torch.testing.assert_close(squares, torch.ones(2).double(), atol=1e-4, rtol=0)


def mirrored(latents: Manifest) -> Tensor:
    data = ShardData(str(latents.root), 3, workers=0, flip=True, window=8)
    plain = batches(latents)["image"]
    found: dict[int, Tensor] = {}
    for _, batch in zip(range(60), data.train_dataloader(), strict=False):
        images = data.to_floats(batch["image"])
        pairs = zip(batch["index"].tolist(), images, strict=True)
        found |= {index: image for index, image in pairs if not torch.equal(image, plain[index])}
    assert len(found) == len(plain)
    return torch.stack([found[index] for index in range(len(plain))])


def test_training_batches_come_in_the_pictures_order(pictures: Manifest, latents: Manifest) -> None:
    def order(manifest: Manifest, start: int) -> list[int]:
        data = ShardData(str(manifest.root), 4, workers=0, seed=3)
        data.consumed(start)
        loader = iter(data.train_dataloader())
        return [index for _ in range(6) for index in next(loader)["index"].tolist()]

    assert order(latents, 0) == order(pictures, 0)
    # And go on from any place.
    assert order(latents, 12)[:12] == order(latents, 0)[12:]


def test_an_interrupted_encoding_ends_with_the_same_bytes(
    pictures: Manifest, run: Path, latents: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def finish(writer: ShardWriter) -> Any:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(writer.path.name)
        return original(writer)

    original = ShardWriter.finish
    monkeypatch.setattr(ShardWriter, "finish", finish)
    out = tmp_path / "latents"
    with pytest.raises(KeyboardInterrupt):
        encode(pictures.root, run, out, replace(OPTIONS, flips=True), progress=False)
    assert not (out / "manifest.json").exists()
    with pytest.raises(ValueError, match="holds an unfinished build of other pictures, of another encoder or with"):
        encode(pictures.root, run, out, OPTIONS, progress=False)
    monkeypatch.setattr(ShardWriter, "finish", lambda writer: (written.append(writer.path.name), original(writer))[1])
    encode(pictures.root, run, out, replace(OPTIONS, flips=True), progress=False)
    assert written == ["train-00000.tar", "train-00001.tar", "val-00000.tar"]
    for file in latents.root.iterdir():
        assert file.read_bytes() == (out / file.name).read_bytes()


def test_a_broken_picture_is_left_out(pictures: Manifest, run: Path, tmp_path: Path) -> None:
    samples = [Sample(png(np.full((SIDE, SIDE, 3), 20 * number, np.uint8)), 0) for number in range(4)]
    samples[2] = Sample(samples[2].data[:60], 0)
    source = write_shards(tmp_path / "pictures", train=[samples])
    with pytest.warns(RuntimeWarning, match="left out"):
        made = encode(source.root, run, tmp_path / "latents", OPTIONS, progress=False)
    assert made.split("train").samples == 3
    assert not verify(made.root, workers=1, progress=False)


def test_it_can_be_checked_and_looked_at(latents: Manifest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not verify(latents.root, workers=1, progress=False)
    assert inspect(latents.root).sheet is None
    assert main(["shards", "inspect", str(latents.root)]) == 0
    said = capsys.readouterr().out
    assert "latents 8 x 8 x 2, and mirrored, captions" in said
    assert "contact sheet" not in said
    damaged = tmp_path / "damaged"
    shutil.copytree(latents.root, damaged)
    tar = damaged / latents.split("val").shards[0].url
    data = bytearray(tar.read_bytes())
    data[600] ^= 255
    tar.write_bytes(data)
    assert any("sha256" in problem for problem in verify(damaged, workers=1, progress=False))


def test_real_pictures_are_those_that_were_encoded(pictures: Manifest, latents: Manifest, tmp_path: Path) -> None:
    data = ShardData(str(latents.root), 4, workers=0)
    assert (data.pictures.manifest, data.pictures.size, data.pictures.channels) == (pictures, SIDE, 3)
    # What looks for copies of training pictures looks for mirrored ones as well.
    assert [ShardData(data.path, flip=flip).pictures.flip for flip in (False, True)] == [False, True]
    (images,) = data.reference_batches("val", rank=0, world_size=1, batch_size=8, limit=None)
    assert torch.equal(images, batches(pictures, "val")["image"])
    moved = replace(latents, provenance={**latents.provenance, "source": str(tmp_path)}, root=tmp_path / "moved")
    moved.root.mkdir()
    moved.save()
    with pytest.raises(FileNotFoundError, match="encoded of the pictures in .*, which are not there any more"):
        _ = ShardData(str(moved.root)).pictures
    replace(moved, provenance={**latents.provenance, "source_fingerprints": {}}).save()
    with pytest.raises(ValueError, match="were encoded of other pictures than those now in"):
        _ = ShardData(str(moved.root)).pictures


@pytest.mark.network
@pytest.mark.slow
def test_a_set_of_latents_is_scored_by_its_pictures(
    pictures: Manifest, latents: Manifest, capsys: pytest.CaptureFixture[str]
) -> None:
    def scores(source: Path, reference: Path) -> list[float]:
        options = ("--split", "val", "--metrics", "fid", "--extractor", "mobilenet_v2", "--device", "cpu")
        capsys.readouterr()
        assert main(["evaluate", str(source), "--against", str(reference), *options]) == 0
        python = gesso.evaluate(source, reference, metrics="fid", extractor="mobilenet_v2", split="val", device="cpu")
        return [json.loads(capsys.readouterr().out)["fid/mobilenet_v2"], *python.values()]

    plain = scores(pictures.root, pictures.root)
    assert scores(latents.root, pictures.root) == scores(pictures.root, latents.root) == plain
    assert plain[0] == pytest.approx(plain[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "random"}, "can be neither cut nor coloured"),
        ({"color_jitter": 0.1}, "can be neither cut nor coloured"),
        ({"size": 4}, "holds latents, which have one size; leave --data.size out"),
        ({"channels": 3}, "holds latents of 2 channels; leave --data.channels out"),
    ],
)
def test_options_of_pictures_are_refused(latents: Manifest, options: dict[str, Any], message: str) -> None:
    data = ShardData(str(latents.root), 4, workers=0, **options)
    with pytest.raises(ValueError, match=message) as caught:
        _ = data.channels, data.size, data.train_dataloader()
    assert "\n" not in str(caught.value)


def test_the_command(pictures: Manifest, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "latents"
    words = ["encode", str(pictures.root), "--with", str(run), str(out), "--workers", "0", "--device", "cpu"]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["train: latents of 9 pictures in 2 shards", "val: latents of 3 pictures in 1 shards"]
    assert said[2] == f"8 x 8 x 2, encoder {autoencoder().encoder_checksum()[:16]}"
    data = ShardData(str(out), 4, workers=0, flip=True)
    with pytest.raises(ValueError, match="encoded without mirrored ones: set --data.flip false, or encode the"):
        data.train_dataloader()

    def refused(*words: str) -> str:
        assert main(list(words)) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert refused(*words) == f"gesso: {out}: holds a finished shard set; name a new folder"
    other = tmp_path / "other"
    line = refused("encode", str(out), "--with", str(run), str(other), "--device", "cpu")
    assert line == f"gesso: {out}: holds latents already; name the shard set of pictures"
    gan = DCGAN(resolution=32, generator=GeneratorOptions(8), discriminator=DiscriminatorOptions(8))
    file = saved(gan, tmp_path / "gan.safetensors")
    line = refused("encode", str(pictures.root), "--with", str(file), str(other), "--device", "cpu")
    assert line == "gesso: a DCGAN encodes no pictures into latents: it is no autoencoder"
    assert "--batch-size 0: must be 1 or more" in refused(*words[:-4], "--batch-size", "0")
    assert refused(*words[:4], str(run), "--workers", "0") == f"gesso: {run}: is a file; name a folder for the latents"
    assert not other.exists()
    line = refused(*words[:4], str(other), "--size", "15", "--workers", "0", "--device", "cpu")
    assert "images of 15 x 15 pixels cannot be encoded: sides are multiples of 2" in line


@pytest.mark.slow
def test_a_flow_on_latents_resumes_and_decodes(
    folder: Path, latents: Manifest, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    own = {"resolution": 8, "channels": 2, "num_classes": 3, "latents.autoencoder": run.name, "compile": "false"}
    network = {"depth": 1, "width": 16, "heads": 2}
    small = [f"--model.{name}={value}" for name, value in own.items()]
    small += [f"--model.network.{name}={value}" for name, value in network.items()]
    small += ["--model.sampling.steps=2", "--data.global_batch_size=4", "--data.workers=0", "--data.window=8"]
    small += [
        "--data.path=latents",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        "--evaluation.metrics=[]",
    ]
    small += ["--run.wandb=disabled", "--checkpoints.monitor=null", "--checkpoints.every_kimg=0.012"]
    small += ["--evaluation.every_kimg=0.012", "--previews.every_kimg=0.012", "--ema.half_life_kimg=0.01"]

    def fit(root: str, *more: str) -> Path:
        monkeypatch.delenv("GESSO_RUN", raising=False)
        assert main(["fit", *more]) == 0
        return max((folder / root).iterdir(), key=lambda path: path.stat().st_mtime)

    def train(root: str, kimg: float) -> Path:
        return fit(root, "--config=images-latent-flow", *small, f"--run.root={root}", f"--run.kimg={kimg}")

    whole, half = train("whole", 0.024), train("half", 0.012)
    # From another folder.
    monkeypatch.chdir(folder.parent)
    fit(str(folder / "half"), "--resume", str(half), "--run.kimg=0.024")
    assert_identical(training_state(half), training_state(whole))
    assert main(["generate", str(half), "--num", "3", "--folder", str(folder / "made"), "--device", "cpu"]) == 0
    made = [cv2.imread(str(file)) for file in sorted((folder / "made").iterdir())]
    assert [image.shape for image in made] == [(SIDE, SIDE, 3)] * 3
    capsys.readouterr()

    def refused(*words: str) -> str:
        monkeypatch.delenv("GESSO_RUN", raising=False)
        assert main(["fit", "--config=images-latent-flow", *small, *words]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    monkeypatch.chdir(folder)
    other = saved(autoencoder(1), folder / "other.safetensors")
    line = refused(f"--model.latents.autoencoder={other}")
    assert line.startswith(f"gesso: --model.latents.autoencoder {other}: its encoder (")
    assert "is not the one that the latents were encoded with" in line
    line = refused("--model.latents.autoencoder=nowhere")
    assert line.startswith(f"gesso: --model.latents.autoencoder {folder / 'nowhere'}: ")
    assert refused("--data.path=pictures") == (
        "gesso: pictures: holds pictures, and a Flow is trained on latents here: `gesso encode pictures --with RUN "
        "OUT` makes them"
    )
    assert refused("--model.latents.autoencoder=") == (
        "gesso: latents: holds latents, and a Flow is trained on pictures here: set --model.latents.autoencoder to the "
        "run that they were encoded with"
    )
