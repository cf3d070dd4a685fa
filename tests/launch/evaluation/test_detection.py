"""Planted samples: what carries a generator's mark is found, and what is drawn from the data itself is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from datamodules.shards import ShardData
from gesso.cli.main import main
from launch.checkpoints.export import export
from launch.evaluation.detection import COLUMNS, Detection, DetectorOptions, Make, detection, maker
from launch.evaluation.detector_files import REPORT, SHEET, WEIGHTS, Detector, check_folder, save_detection
from lightning_modules.networks.classifier import probabilities
from tests.launch.export.families import tiny

OPTIONS = DetectorOptions(training=400, test=100, kimg=4, attacks=False, width=8)


@pytest.fixture
def data(shards: Path) -> ShardData:
    return ShardData(str(shards), 8, workers=0)


def pictures(data: ShardData, split: str) -> Tensor:
    return torch.cat(list(data.reference_batches(split, rank=0, world_size=1, batch_size=100, limit=None)))


def planted(data: ShardData, mark: Tensor | None = None) -> Make:
    """Real pictures of the training split with a mark added; of 400 real ones, the detector sees the others."""
    pool = pictures(data, "train")[1::2].float()

    def make(first: int, labels: Tensor, seed: int) -> Tensor:
        chosen = (torch.arange(first, first + len(labels)) + 17 * seed) % len(pool)
        images = pool[chosen] + (0 if mark is None else mark)
        return images.clamp(0, 255).to(torch.uint8)

    return make


def board(height: float = 12.0) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    return height * ((rows + columns) % 2)


@pytest.mark.slow
@pytest.mark.parametrize("npr", [False, True])
def test_a_checkerboard_is_found_and_other_pictures_are_not(data: ShardData, npr: bool) -> None:
    options = DetectorOptions(**{**vars(OPTIONS), "npr": npr})
    unseen = {"real": planted(data), "board": planted(data, board())}
    found = detection(planted(data, board()), data, options, unseen=unseen)
    assert found.accuracy["clean"].share > 0.97
    assert found.accuracy["seed 1"].share > 0.97
    assert found.accuracy["board"].share > 0.97
    # A generator without the mark is not found.
    assert found.accuracy["real"].made_found < 0.05
    assert found.accuracy["real"].real_kept == found.accuracy["clean"].real_kept
    # Blur takes the mark away, and a detector that has not been trained for it is lost.
    assert found.accuracy["blur-1.0"].share < 0.75
    assert found.sheet.shape == (2 * COLUMNS, 1, 32, 32)
    assert (found.training, found.test) == (400, 63)


@pytest.mark.slow
def test_brighter_samples_are_found_in_pixels_and_not_in_their_relations(data: ShardData) -> None:
    make = planted(data, torch.full((32, 32), 20.0))
    found, blind = (
        detection(make, data, DetectorOptions(**{**vars(OPTIONS), "npr": npr})).accuracy["clean"]
        for npr in (False, True)
    )
    assert found.share > 0.97
    assert blind.share < found.share


@pytest.mark.slow
def test_pictures_of_the_data_itself_are_not_told_from_it(data: ShardData) -> None:
    clean = detection(planted(data), data, OPTIONS).accuracy["clean"]
    assert clean.low < 0.5 < clean.high


@pytest.mark.slow
def test_trained_for_blur_it_stands_blur(data: ShardData) -> None:
    """A mark of low frequency, which blur leaves: told from a training with the attacks and one without."""
    mark = 40 * (torch.arange(32)[:, None] % 8 < 4).float().expand(32, 32)
    hardened = detection(planted(data, mark), data, DetectorOptions(**{**vars(OPTIONS), "attacks": True}))
    for name in ("clean", "jpeg-75", "blur-1.0", "resize-0.5"):
        assert hardened.accuracy[name].share > 0.9, name


@pytest.mark.slow
def test_a_seed_gives_the_same_detector(data: ShardData) -> None:
    options = DetectorOptions(training=100, test=50, kimg=0.5, width=8)
    first, again = (detection(planted(data, board()), data, options) for _ in range(2))
    assert first.result() == again.result()
    weights = [found.network.state_dict() for found in (first, again)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    other = detection(planted(data, board()), data, DetectorOptions(training=100, test=50, kimg=0.5, seed=1, width=8))
    assert not torch.equal(other.network.head.weight, first.network.head.weight)


def test_mirrored_training_shows_mirrored_pictures(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, mirroring = (ShardData(str(shards), 8, workers=0, flip=flip) for flip in (False, True))
    seen: list[Tensor] = []

    def fitted(options: object, images: Tensor, *others: object, **more: object) -> None:
        seen.append(images)
        raise KeyboardInterrupt

    monkeypatch.setattr("launch.evaluation.detection.fit_classifier", fitted)
    for data in (plain, mirroring):
        with pytest.raises(KeyboardInterrupt):
            detection(planted(plain), data, OPTIONS)
    assert torch.equal(seen[1][:400:2], seen[0][:400:2])
    assert torch.equal(seen[1][1:400:2], seen[0][1:400:2].flip(3))


def test_samples_have_the_classes_of_real_pictures() -> None:
    module = tiny("DCGAN", channels=1).eval()
    labels = torch.tensor([2, 0, 1, 1, 2])
    made = maker(module)(3, labels, 5)
    wanted = module.generate(torch.arange(3, 8), seed=5, labels=labels)
    assert torch.equal(made, (wanted.detach().add(1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    # Without labels, those of the family.
    assert maker(module)(0, torch.tensor([-1, 2]), 5).shape == (2, 1, 32, 32)


def test_a_detectors_folder_is_read_again(tmp_path: Path, data: ShardData) -> None:
    found = detection(planted(data, board()), data, DetectorOptions(training=100, test=50, kimg=0.2, width=8))
    save_detection(found, {"run": "mine"}, check_folder(tmp_path / "detector"))
    assert check_folder(tmp_path / "detector") == tmp_path / "detector"
    detector = Detector(tmp_path / "detector")
    images = pictures(data, "test")[:9]
    assert torch.equal(detector.made(images), probabilities(found.network, images)[:, 1])
    # A file is read as the data is.
    Image.fromarray(images[0, 0].numpy()).save(tmp_path / "one.png")
    assert torch.equal(detector.read(tmp_path / "one.png"), images[:1])
    Image.fromarray(np.zeros((50, 80, 3), np.uint8)).save(tmp_path / "other.png")
    assert detector.read(tmp_path / "other.png").shape == (1, 1, 32, 32)
    report = json.loads((tmp_path / "detector" / REPORT).read_text())
    assert report["run"] == "mine"
    assert report["accuracy"]["clean"] == found.result()["accuracy"]["clean"]
    assert Image.open(tmp_path / "detector" / SHEET).width >= 600


def test_damaged_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no detector here"):
        Detector(tmp_path)
    export(tiny("DCGAN", channels=1), tmp_path / WEIGHTS, origin={"images_seen": 0, "weights": "raw"})
    with pytest.raises(ValueError, match="not a detector, or damaged"):
        Detector(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a detector, or damaged"):
        Detector(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(ValueError, match="holds no detector"):
        check_folder(tmp_path / "other")


def failed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["detector", *argv]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_mistakes_are_told_in_a_line(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "gan.safetensors"
    export(tiny("DCGAN", channels=1), run, origin={"images_seen": 0, "weights": "raw"})
    assert "--num must be 50 or more" in failed([str(run), "--num", "5"], capsys)
    assert "--test must be 50 or more" in failed([str(run), "--test", "5"], capsys)
    assert "--kimg must be" in failed([str(run), "--kimg", "nan"], capsys)
    assert "no detector here" in failed([str(run), "--apply", str(tmp_path)], capsys)
    assert "--unseen" in failed([str(run), "--apply", str(tmp_path), "--unseen", "x"], capsys)
    small = tmp_path / "small.safetensors"
    export(tiny("R3GAN", channels=1), small, origin={"images_seen": 0, "weights": "raw"})
    said = failed([str(run), "--data", str(shards), "--num", "50", "--test", "50", "--unseen", str(small)], capsys)
    assert f"--unseen {small}: makes pictures of 16 x 16 pixels" in said
    style = tmp_path / "style.safetensors"
    export(tiny("FastStyle"), style, origin={"images_seen": 0, "weights": "raw"})
    assert "FastStyle" in failed([str(style), "--data", str(shards)], capsys)


@pytest.mark.slow
def test_the_command_trains_and_applies(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "gan.safetensors"
    export(tiny("DCGAN", channels=1), run, origin={"images_seen": 0, "weights": "raw"})
    argv = ["--data", str(shards), "--num", "100", "--test", "50", "--kimg", "3", "--width", "8", "--unseen", str(run)]
    assert main(["detector", str(run), *argv]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)["accuracy"]
    assert list(found) == ["clean", "jpeg-75", "blur-1.0", "resize-0.5", "seed 1", str(run)]
    # An untrained generator is no riddle.
    assert found["clean"]["share"] == 1
    assert "clean: 100.0% right" in said.err
    made = tmp_path / "made"
    assert main(["generate", str(run), "--num", "3", "--folder", str(made)]) == 0
    (made / "broken.png").write_bytes(b"no picture")
    capsys.readouterr()
    assert main(["detector", str(run), "--apply", str(made)]) == 1
    said = capsys.readouterr()
    lines = [line for line in said.out.splitlines() if not line.startswith("gesso")]
    assert [line.split()[0] for line in lines] == ["made"] * 3
    assert "broken.png" in said.err


def test_a_result_is_plain(data: ShardData) -> None:
    found = detection(planted(data, board()), data, DetectorOptions(training=50, test=50, kimg=0.1, width=8))
    assert isinstance(found, Detection)
    assert json.loads(json.dumps(found.result()))["options"]["kimg"] == 0.1
