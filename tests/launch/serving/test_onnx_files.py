"""Files of `gesso export` give the pictures of their runs, without their families."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from launch.export.front import ExportOptions, facts
from launch.export.onnx_file import traced, write_onnx
from launch.inference.pictures import as_tensor
from launch.serving.asks import Ask, Generate, Stylize, Translate
from launch.serving.onnx_files import ServedOnnx
from lightning_modules.core.deployment import Layout
from lightning_modules.kinds.random_codes import codes_of_pictures, drawn_codes
from tests.launch.serving.models import picture_bytes, pixels, served, tiny

#: Metadata of every file.
SAID = {"gesso.weights": "average", "gesso.kimg": "12", "gesso.value_range": "-1 1"}


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> ServedOnnx:
    """A tiny DCGAN, exported."""
    out = tmp_path_factory.mktemp("onnx") / "digits.onnx"
    module, layout = tiny("DCGAN"), Layout(dynamic=True)
    deployable = module.deployable("generator", layout)
    run = out.with_name("weights")
    run.write_bytes(b"weights")
    origin = {"images_seen": 12_000, "average": True}
    metadata = facts(module, "generator", deployable, run, origin, ExportOptions(layout=layout))
    write_onnx(traced(deployable, dynamic=True), deployable, out, metadata)
    return ServedOnnx("digits", out)


def written(out: Path, inputs: dict[str, tuple[list[int | str], str]], node: onnx.NodeProto, **said: str) -> Path:
    """A file with the inputs' shapes and descriptions, and one operation, as if exported."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (shape, _) in inputs.items()]
    out_port = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [None] * 4)
    model = helper.make_model(
        helper.make_graph([node], "gesso", ports, [out_port]),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    about = {"gesso.inputs": json.dumps({name: text for name, (_, text) in inputs.items()})}
    helper.set_model_props(model, {**SAID, **about, **{f"gesso.{name}": value for name, value in said.items()}})
    onnx.save(model, out)
    return out


@pytest.fixture(scope="module")
def stylizer(tmp_path_factory: pytest.TempPathFactory) -> ServedOnnx:
    """What gives the picture times the second style's share: [1, 3, H, W] by the last of [1, 1, 1, 2]."""
    free: list[int | str] = [1, 3, "height", "width"]
    about = "shares of a.png, b.png, float32 [1, 2], with a sum of 1"
    node = helper.make_node("Einsum", ["content", "mix"], ["picture"], equation="nchw,ns->nchw")
    file = written(
        tmp_path_factory.mktemp("onnx") / "s.onnx",
        {"content": (free, "a picture"), "mix": ([1, 2], about)},
        node,
        family="FastStyle",
        part="stylizer",
    )
    return ServedOnnx("s", file)


def test_a_sample_is_the_runs_own(generator: ServedOnnx) -> None:
    facts = generator.facts
    assert facts.what == "an exported DCGAN, average weights at 12 kimg"
    assert (facts.verbs, facts.classes) == (("generate",), 3)
    assert generator.batches("generate")
    asks = [Generate(seed, 4, label) for seed, label in ((0, None), (17, 2), (2**31, None))]
    for ours, own in zip(generator.run(asks), served("DCGAN").run(asks), strict=True):
        assert ours.shape == (32, 32, 1)
        assert np.abs(ours.astype(int) - own).max() <= 1


def test_a_picture_is_stylised_with_shares_that_sum_to_one(stylizer: ServedOnnx) -> None:
    assert stylizer.facts.own_styles == ("a.png", "b.png")
    assert not stylizer.facts.alpha
    assert not stylizer.batches("stylize")
    content = pixels(picture_bytes(32, 48))
    (ours,) = stylizer.run([Stylize(content, weights=(3.0, 9.0))])
    assert np.abs(ours.astype(int) - content).max() <= 1
    assert stylizer.run([Stylize(content, size=24)])[0].shape == (16, 24, 3)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (Stylize(np.zeros((4, 4, 3), np.uint8), alpha=0.5), "alpha: s was exported without"),
        (Stylize(np.zeros((4, 4, 3), np.uint8), (np.zeros((4, 4, 3), np.uint8),)), "styles of its own"),
        (Stylize(np.zeros((4, 4, 3), np.uint8), weights=(0.0, 0.0)), "weights 0, 0: each is a number of 0 or more"),
        (Stylize(np.zeros((4, 4, 3), np.uint8), weights=(math.nan, 1.0)), "weights nan, 1: each is a number of 0"),
        (Stylize(np.zeros((4, 4, 3), np.uint8), weights=(-1.0, 2.0)), "weights -1, 2: each is a number of 0 or more"),
        (Generate(), "it can stylize, not generate"),
        (Translate(np.zeros((4, 4, 3), np.uint8)), "it can stylize, not translate"),
    ],
)
def test_what_it_cannot_do_is_one_line(stylizer: ServedOnnx, ask: Ask, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        stylizer.check(ask)


def test_sampling_options_are_of_the_export(generator: ServedOnnx) -> None:
    with pytest.raises(ValueError, match="truncation_psi: digits makes a picture as it was exported"):
        generator.check(Generate(sampling=(("truncation_psi", 0.5),)))
    with pytest.raises(ValueError, match="label is 3; digits has classes 0 to 2"):
        generator.check(Generate(label=3))


def test_files_that_make_no_picture_are_refused(tmp_path: Path) -> None:
    shape: list[int | str] = [1, 1, 16, 16]
    node = helper.make_node("Identity", ["noisy"], ["picture"])
    step = {"noisy": (shape, "x = x0 + sigma e")}
    file = written(tmp_path / "step.onnx", step, node, family="DDPM", part="denoiser", value_range="")
    with pytest.raises(ValueError, match="holds the denoiser of a DDPM, which makes no picture by itself: serve"):
        ServedOnnx("step", file)
    node = helper.make_node("Identity", ["latents"], ["picture"])
    maps = {"latents": (shape, "a map")}
    file = written(tmp_path / "map.onnx", maps, node, family="AutoencoderKL", part="decoder")
    with pytest.raises(ValueError, match="holds the decoder of a AutoencoderKL, which makes no picture by itself"):
        ServedOnnx("map", file)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"broken.onnx: onnxruntime cannot load it"):
        ServedOnnx("broken", broken)
    with pytest.raises(FileNotFoundError, match=r"none.onnx: no such file"):
        ServedOnnx("none", tmp_path / "none.onnx")
    foreign = onnx.load(file)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="not a file that `gesso export --onnx` wrote"):
        ServedOnnx("foreign", tmp_path / "foreign.onnx")


def test_a_fixed_size_takes_the_middle_of_a_picture(tmp_path: Path) -> None:
    node = helper.make_node("Identity", ["source"], ["picture"])
    source = {"source": ([1, 3, 32, 32], "pictures")}
    translator = ServedOnnx("t", written(tmp_path / "t.onnx", source, node, family="CUT", part="a-to-b"))
    assert translator.facts.directions == ("a-to-b",)
    assert translator.facts.resolution == 32
    whole = pixels(picture_bytes(32, 48))
    (made,) = translator.run([Translate(whole)])
    assert np.abs(made.astype(int) - whole[:, 8:40]).max() <= 1
    with pytest.raises(ValueError, match="direction b-to-a: it translates a-to-b"):
        translator.check(Translate(whole, direction="b-to-a"))
    with pytest.raises(ValueError, match="size: t was exported for pictures of 32 x 32: leave it out"):
        translator.check(Translate(whole, size=64))


def test_a_style_that_nobody_names_is_the_runs_own_choice(tmp_path: Path) -> None:
    # A picture that is its style: [1, 3, 1, 1] of a code of 3.
    node = helper.make_node("Add", ["source", "style_code"], ["picture"])
    ports: dict[str, tuple[list[int | str], str]] = {
        "source": ([1, 3, "height", "width"], "pictures"),
        "style_code": ([1, 3, 1, 1], "styles ~ N(0, I), float32 [N, 3]"),
    }
    translator = ServedOnnx("t", written(tmp_path / "t.onnx", ports, node, family="MUNIT", part="a-to-b"))
    given: list[torch.Tensor] = []

    class Session:
        def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            given.append(torch.from_numpy(feeds["style_code"]))
            return [feeds["source"]]

    translator.session = Session()
    picture = pixels(picture_bytes(24, 32))
    translator.run([Translate(picture)])
    translator.run([Translate(picture, style_seed=5)])
    assert torch.equal(given[0], codes_of_pictures(as_tensor(picture), 3))
    assert torch.equal(given[1], drawn_codes(1, 3, seed=5))


def test_styles_whose_names_have_commas_go_by_numbers(tmp_path: Path) -> None:
    node = helper.make_node("Einsum", ["content", "mix"], ["picture"], equation="nchw,ns->nchw")
    ports: dict[str, tuple[list[int | str], str]] = {
        "content": ([1, 3, "height", "width"], "a picture"),
        "mix": ([1, 2], "shares of Monet, lilies, b, float32 [1, 2], with a sum of 1"),
    }
    model = ServedOnnx("s", written(tmp_path / "s.onnx", ports, node, family="FastStyle", part="stylizer"))
    assert model.facts.own_styles == ("0", "1")
    content = pixels(picture_bytes(8, 8))
    assert np.abs(model.run([Stylize(content)])[0].astype(int) - content).max() <= 1


def test_styles_of_pictures_alone_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["source", "style_code"], ["picture"])
    ports: dict[str, tuple[list[int | str], str]] = {
        "source": ([1, 3, "height", "width"], "pictures"),
        "style_code": ([1, 3, 1, 1], "textures of length 1, float32 [N, 3]"),
    }
    file = written(tmp_path / "t.onnx", ports, node, family="SwappingAutoencoder", part="swap")
    with pytest.raises(ValueError, match="takes styles of pictures, which it cannot encode: serve the run"):
        ServedOnnx("t", file)


@pytest.mark.parametrize("port", ["source", "content"])
def test_a_picture_of_any_size_comes_back_at_its_size(tmp_path: Path, port: str) -> None:
    pool = helper.make_node("MaxPool", [port], ["picture"], kernel_shape=[1, 1])
    about = "a picture, float32 [1, 3, H, W] in [-1, 1]; H and W are multiples of 4"
    ports: dict[str, tuple[list[int | str], str]] = {port: ([1, 3, "height", "width"], about)}
    if port == "content":
        ports["mix"] = ([1, 2], "shares of a.png, b.png, float32 [1, 2], with a sum of 1")
    model = ServedOnnx("m", written(tmp_path / "m.onnx", ports, pool, family="MUNIT", part="a-to-b"))
    seen: list[tuple[int, ...]] = []

    class Session:
        def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.append(feeds[port].shape)
            # As strided convolutions do: what is left over beyond a multiple of 4 is lost.
            height, width = (side // 4 * 4 for side in feeds[port].shape[2:])
            return [feeds[port][:, :, :height, :width]]

    model.session = Session()
    picture = pixels(picture_bytes(30, 41))
    (made,) = model.run([Translate(picture) if port == "source" else Stylize(picture)])
    assert seen == [(1, 3, 32, 44)]
    assert np.abs(made.astype(int) - picture).max() <= 1
