"""Grids and PNG files: geometry and pixel values, counted by hand or read back by other libraries."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.utils import make_grid

from launch.inference.pictures import WRITTEN, as_picture, check_free, image_grid, save_picture, upscale


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_equals_torchvisions(channels: int) -> None:
    images = torch.rand(7, channels, 5, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grid = image_grid(images, 3, padding=2, min_width=0)
    reference = make_grid(((images + 1) / 2), nrow=3, padding=2, pad_value=1.0).mul(255).round().byte()
    assert grid.shape == (3 * 5 + 4 * 2, 3 * 9 + 4 * 2, channels)
    # torchvision repeats grey over three channels.
    assert np.array_equal(np.broadcast_to(grid, (*grid.shape[:2], 3)), reference.permute(1, 2, 0).numpy())


def test_tiny_images_are_enlarged_pixel_by_pixel() -> None:
    image = torch.tensor([[0, 50], [100, 200]], dtype=torch.uint8)[None, None]
    grid = image_grid(image, min_width=8, padding=1)
    expected = np.full((8, 8), 255)
    expected[1:7, 1:7] = np.kron([[0, 50], [100, 200]], np.ones((3, 3)))
    assert np.array_equal(grid[:, :, 0], expected)


@pytest.mark.parametrize(("side", "columns"), [(28, 10), (32, 8), (64, 4), (256, 8)])
def test_grid_is_legible_by_default_and_never_shrinks(side: int, columns: int) -> None:
    grid = image_grid(torch.zeros(columns, 1, side, side), columns)
    assert grid.shape[1] >= max(600, columns * side)
    assert grid.shape[1] < max(600, columns * side) + columns * side + 50, "no larger than it needs to be"


@pytest.mark.parametrize(("count", "columns", "shape"), [(16, None, (4, 4)), (10, None, (3, 4)), (3, 8, (1, 3))])
def test_columns(count: int, columns: int | None, shape: tuple[int, int]) -> None:
    grid = image_grid(torch.zeros(count, 3, 4, 4), columns, padding=0, min_width=0)
    assert grid.shape == (4 * shape[0], 4 * shape[1], 3)
    assert (grid == 128).sum() == count * 4 * 4 * 3, "what no image covers is the ground"


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 2, 4, 4), (3, 4, 4)])
def test_grid_refuses_what_is_no_batch_of_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a grid needs images"):
        image_grid(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (6, 4, 3)])
def test_png_holds_the_same_pixels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    file = save_picture(image, tmp_path / "new" / "folder" / "picture.png")
    assert [path.name for path in file.parent.iterdir()] == ["picture.png"]
    read = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert read is not None
    assert np.array_equal(read[:, :, ::-1] if shape[-1] == 3 else read, image.squeeze())


def test_a_failed_write_keeps_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_picture(np.zeros((2, 2), np.uint8), tmp_path / "picture.png")
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match=r"picture\.png: cannot be written \(No space left on device\)"):
        save_picture(np.ones((2, 2), np.uint8), file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_upscale() -> None:
    image = np.arange(2 * 3 * 2, dtype=np.uint8).reshape(1, 2, 3, 2)
    for channel in range(2):
        by_hand = np.kron(image[0, :, :, channel], np.ones((2, 2)))
        assert np.array_equal(upscale(image, 2)[0, :, :, channel], by_hand)
    assert upscale(image, 1) is image


@pytest.mark.parametrize("ending", sorted(WRITTEN.keys() - {".bmp"}))
def test_an_earlier_result_may_be_replaced_and_nothing_else(ending: str, tmp_path: Path) -> None:
    pixels = np.full((8, 9, 3), 200, np.uint8)
    ours, theirs = tmp_path / f"ours{ending}", tmp_path / f"theirs{ending}"
    check_free(ours)
    save_picture(pixels, ours)
    assert check_free(ours) == ours
    Image.fromarray(pixels).save(theirs)
    with pytest.raises(ValueError, match="is there already, and gesso has not made it: give another name, or remove"):
        check_free(theirs)
    with Image.open(ours) as image:
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - 200).max() < 5


def test_what_else_stands_at_a_results_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; name a file"):
        check_free(tmp_path)
    with pytest.raises(ValueError, match="is there already"):
        check_free(Path("/dev/null"))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match="is there already"):
        check_free(tmp_path / "text.png")
    (tmp_path / "empty").touch()  # as mktemp makes one
    check_free(tmp_path / "empty")


def _odd_files(folder: Path) -> list[Path]:
    """A picture that lies on its side, of 16 bits, and with transparent parts in both ways."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    sideways = Image.Exif()
    sideways[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(folder / "sideways.png", exif=sideways)
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 200).save(folder / "deep.png")
    Image.fromarray(pixels).save(folder / "alpha.png")
    palette = Image.fromarray(pixels[..., :3]).quantize(8)
    palette.save(folder / "palette.png", transparency=0)
    return sorted(folder.glob("*.png"))


def test_a_pil_image_is_what_its_file_is(tmp_path: Path) -> None:
    files = _odd_files(tmp_path)
    assert len(files) == 4
    for file in files:
        with Image.open(file) as image:
            for channels in (1, 3):
                assert torch.equal(as_picture(image, channels=channels), as_picture(file, channels=channels)), file
    assert as_picture(tmp_path / "sideways.png").shape == (1, 3, 7, 5)


def test_what_is_no_picture_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a picture is a file, a PIL image or a tensor, not a ndarray"):
        as_picture(np.zeros((4, 4, 3), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a PIL image of mode F cannot be used"):
        as_picture(Image.new("F", (4, 4)))
    for broken in (torch.zeros(3, 0, 0), torch.full((3, 4, 4), float("nan")), torch.ones(3, 4, 4).long()):
        with pytest.raises(ValueError, match=r"no pixels|NaN|images of int64"):
            as_picture(broken)
    assert as_picture(torch.zeros(1, 4, 4)).shape == (1, 3, 4, 4), "grey, as a grey file"
    assert as_picture(torch.zeros(1, 4, 4), channels=1).shape == (1, 1, 4, 4)


def test_a_grid_is_made_of_a_tensor() -> None:
    with pytest.raises(ValueError, match="a grid needs a tensor of images, not a ndarray"):
        image_grid(np.zeros((2, 3, 4, 4), np.uint8))  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [0, -1, 2.5])
def test_a_grid_has_columns(columns: int) -> None:
    with pytest.raises(ValueError, match="columns is .*; it must be a whole number 1 or more"):
        image_grid(torch.zeros(2, 3, 4, 4), columns)
