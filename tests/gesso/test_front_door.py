"""The front door: nothing heavy behind it until it is used, and the same numbers as the rooms that it leads to."""

from __future__ import annotations

import inspect
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gesso
from datamodules.shards import ShardData
from launch.inference.model import Model
from launch.inference.pictures import as_picture
from lightning_modules.autoencoder.vae import VAE
from lightning_modules.gan.dcgan import DCGAN

#: What takes a tenth of a second or more.
HEAVY = "{'torch', 'lightning', 'numpy', 'PIL', 'cv2', 'wandb', 'yaml', 'jsonargparse', 'ray', 'rich'}"


@pytest.mark.parametrize(
    "script",
    [
        "import gesso",
        "import runpy\nsys.argv = ['gesso', '--help']\n"
        "try:\n    runpy.run_module('gesso', run_name='__main__')\nexcept SystemExit as end:\n    assert not end.code",
    ],
)
def test_the_door_is_light(script: str) -> None:
    script = f"import sys\n{script}\nheavy = {HEAVY} & sys.modules.keys()\nassert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_function_is_documented_and_typed() -> None:
    for name in gesso.__all__:
        function = getattr(gesso, name)
        assert "Example:" in (function.__doc__ or ""), name
        assert "return" in function.__annotations__
        assert inspect.signature(function).parameters.keys() <= function.__annotations__.keys()


def test_a_stream_is_what_training_reads(shards: Path) -> None:
    stream = gesso.stream(shards, batch_size=32, seed=3, workers=0)
    data = ShardData(str(shards), 32, seed=3, workers=0)
    for ours, theirs in zip(islice(stream, 3), data.train_dataloader(), strict=False):
        theirs = data.on_after_batch_transfer(theirs, 0)
        assert torch.equal(ours["image"], theirs["image"])
        assert (ours["image"].dtype, ours["position"]) == (torch.float32, theirs["position"])
    assert stream.state_dict() == {"position": 96}
    # Two ranks go on together from where one was.
    rows = next(iter(stream))["index"]
    for rank in (0, 1):
        part = gesso.stream(shards, batch_size=32, seed=3, workers=0, rank=rank, world_size=2)
        part.load_state_dict({"position": 96})
        assert torch.equal(next(iter(part))["index"], rows[rank::2])
    held_out = list(gesso.stream(shards, batch_size=32, split="test", workers=0))
    assert sum(len(batch["image"]) for batch in held_out) == data.manifest.split("test").samples


def test_a_streams_arguments_are_named(shards: Path) -> None:
    for name, value in {
        "flip": "no",
        "size": 16.5,
        "rank": 1,
        "world_size": 0,
        "workers": -1,
        "batch_size": 2.5,
    }.items():
        with pytest.raises(ValueError, match=f"{name} is {value!r}; it must be"):
            gesso.stream(shards, **{"batch_size": 8, name: value})  # type: ignore[arg-type]
    numbers: dict[str, Any] = {
        "batch_size": np.int64(8),
        "size": np.int32(16),
        "seed": np.int64(0),
        "flip": np.bool_(0),
    }
    assert next(iter(gesso.stream(shards, workers=0, **numbers)))["image"].shape == (8, 1, 16, 16)


def test_pictures_of_every_kind(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    expected = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1
    for picture in (
        tmp_path / "p.png",
        Image.fromarray(pixels),
        torch.from_numpy(pixels).permute(2, 0, 1),
        expected[0],
    ):
        torch.testing.assert_close(as_picture(picture), expected)
    with pytest.raises(ValueError, match="C 1 or 3"):
        as_picture(torch.zeros(2, 4, 4))
    assert gesso.grid(torch.zeros(4, 3, 8, 8)).size[0] > 100


def test_a_models_answers() -> None:
    small: dict[str, Any] = {"resolution": 32, "channels": 1, "latent_dim": 8}
    model = Model(DCGAN(**small, num_classes=10).eval(), path="x", images_seen=0, average=False)
    made = model.generate(5, seed=1, labels=3, batch_size=2)
    index = torch.arange(5)
    with torch.no_grad():
        whole: Any = model.module.generate(index, seed=1, labels=torch.full((5,), 3))  # type: ignore[operator]
    torch.testing.assert_close(made, whole, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="labels 3 to 10: the model has 10 classes"):
        model.generate(2, labels=[3, 10])
    with pytest.raises(ValueError, match="give one class, or 2 of them"):
        model.generate(2, labels=[1, 2, 3])
    with pytest.raises(ValueError, match="VAE puts no picture into another's style"):
        Model(VAE(**small), path="x", images_seen=0, average=False).stylize(torch.zeros(3, 8, 8), torch.zeros(3, 8, 8))


def test_images_of_any_kind_are_measured_alike(shards: Path) -> None:
    split = gesso.stream(shards, batch_size=40, split="test", workers=0)
    options: dict[str, Any] = {"metrics": ["fid"], "extractor": "mobilenet_v2", "device": "cpu"}
    ours = gesso.evaluate([batch["image"] for batch in split], shards, **options)
    assert ours.keys() == {"fid/mobilenet_v2"}
    assert gesso.evaluate(shards, **options)["fid/mobilenet_v2"] == pytest.approx(ours["fid/mobilenet_v2"], rel=1e-3)
    with pytest.raises(ValueError, match="give it as reference"):
        gesso.evaluate([torch.zeros(4, 1, 32, 32)], **options)


def test_a_recipe_does_not_lie_over_a_resumed_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="recipe and resume: a run goes on with its own config"):
        gesso.train("mnist-dcgan", resume=tmp_path)
    with pytest.raises(ValueError, match="callbacks are a list of Lightning callbacks, not 1"):
        gesso.train("mnist-dcgan", callbacks=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"1 among the callbacks is none: it must be a lightning\.Callback"):
        gesso.train("mnist-dcgan", callbacks=[1])  # type: ignore[list-item]


def test_loading_draws_from_nobody_s_generator() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    gesso.load("tests/fixtures/before_the_house/vae", device="cpu")
    assert torch.equal(torch.rand(4), expected)
