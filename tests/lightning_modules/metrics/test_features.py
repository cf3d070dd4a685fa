from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.transforms import v2

from datamodules.assets.fetching import fetch
from lightning_modules.metrics.features import build_extractor, exact_float32, resize_clean, resize_tensorflow
from tests.lightning_modules.metrics.metrics_reference import (
    FidelityInception,
    cifar10,
    features_in_batches,
    reference_inception,
)

SIZES = [(32, 32), (28, 40), (299, 299), (512, 384)]


@pytest.mark.parametrize("size", SIZES)
def test_tensorflow_resize_equals_torch_fidelity(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *size)).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(images, size=(299, 299), align_corners=False)
    assert torch.equal(resize_tensorflow(images, 299), expected)


@pytest.mark.parametrize("size", SIZES)
def test_clean_resize_equals_pil(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (1, 3, *size)).float()
    planes = [
        np.asarray(Image.fromarray(plane).resize((299, 299), Image.Resampling.BICUBIC)) for plane in images[0].numpy()
    ]
    difference = resize_clean(images, 299)[0].numpy() - np.stack(planes).clip(0, 255)
    assert np.abs(difference).max() < 1e-4  # of 255


@pytest.mark.network
def test_inception_features_equal_torch_fidelity() -> None:
    weights = fetch("inception", progress=False)
    images = cifar10("test", 8)
    features = build_extractor("inception-tf", weights)(images)
    torch.testing.assert_close(
        features.pool, features_in_batches(reference_inception(weights), images), atol=1e-4, rtol=0
    )
    assert features.logits is None


@pytest.mark.slow
def test_inception_reads_a_state_dict_with_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = FidelityInception(["2048", "logits_unbiased"])
    for name, buffer in reference.named_buffers():
        if name.endswith(("mean", "var")):
            buffer.uniform_(0.2, 1.0)
    torch.save(reference.state_dict(), tmp_path / "inception.pth")
    images = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8)
    extractor = build_extractor("inception-tf", tmp_path / "inception.pth")
    pool, logits = reference(images)
    features = extractor(images)
    assert extractor.num_classes == 1008
    torch.testing.assert_close(features.pool, pool, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features.logits, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.network
def test_mobilenet_equals_torchvision() -> None:
    weights = fetch("mobilenet_v2", progress=False)
    images = cifar10("test", 8)
    reference = torchvision.models.mobilenet_v2()
    reference.load_state_dict(torch.load(weights, weights_only=True))
    prepare = v2.Compose(
        [
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((224, 224), antialias=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    with torch.no_grad():
        inputs = prepare(images)
        logits = reference.eval()(inputs)
        pool = reference.features(inputs).mean((2, 3))
    extractor = build_extractor("mobilenet_v2", weights).train()
    features = extractor(images)
    torch.testing.assert_close(features.pool, pool, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(features.logits, logits, atol=1e-4, rtol=1e-4)

    grey = images[:, :1]
    assert torch.equal(extractor(grey).pool, extractor(grey.expand(-1, 3, -1, -1)).pool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(images).pool, features.pool)
    with pytest.raises(ValueError, match="uint8"):
        extractor(images.float())


def test_exact_float32_restores_the_callers_choice() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with exact_float32():
            assert torch.backends.cuda.matmul.fp32_precision == "ieee"
            assert torch.backends.cudnn.conv.fp32_precision == "ieee"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


class _Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


def test_weights_from_strangers_run_no_code(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    archive = tmp_path / "weights.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x/data.pkl", pickle.dumps(_Attack(target), protocol=2))
        file.writestr("x/constants.pkl", b"")
    with pytest.raises(ValueError, match="gesso fetch inception"):
        build_extractor("inception-tf", archive)
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(_Attack(target), protocol=2))
    with pytest.raises(ValueError, match="gesso fetch inception"):
        build_extractor("inception-clean", tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="gesso fetch mobilenet_v2"):
        build_extractor("mobilenet_v2", tmp_path / "weights.pth")
    assert not target.exists()


@pytest.mark.parametrize("name", ["inception-tf", "mobilenet_v2"])
def test_missing_weights(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        build_extractor(name, tmp_path / "none.pt")


@pytest.mark.network
def test_truncated_weights(tmp_path: Path) -> None:
    (tmp_path / "cut.pt").write_bytes(fetch("inception", progress=False).read_bytes()[:1_000_000])
    with pytest.raises(ValueError, match=r"cut\.pt: not the weights"):
        build_extractor("inception-tf", tmp_path / "cut.pt")


def test_unknown_extractor(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inception-tf, inception-clean, mobilenet_v2"):
        build_extractor("resnet", tmp_path)
