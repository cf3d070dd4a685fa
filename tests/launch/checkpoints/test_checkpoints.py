"""A checkpoint folder: what goes in comes out; complete or absent; data only, whoever wrote it."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from gesso.cli.main import main
from gesso.common.files import sha256
from launch.checkpoints import files, layout
from launch.checkpoints.background import BackgroundIO
from launch.inference.loading import load_family
from launch.runs.folder import RunFolder
from tests.launch.identity import assert_identical

TREE: dict[str, Any] = {
    "gesso": {"family": "DCGAN", "images_seen": 200, "learning_rate": 2e-4, "none": None, "names": ["a", "b"]},
    "state_dict": {
        "generator.0.weight": torch.randn(3, 4, 2, 2).to(memory_format=torch.channels_last),
        "generator.0.running": torch.tensor(7),
        "empty": torch.zeros(0, 2),
        "half": torch.randn(5).bfloat16(),
    },
    "averages": {"ema": {"generator.0.weight": torch.randn(3, 4, 2, 2)}},
    "callbacks": {"Clock": {"seconds": 1.5}},
    "optimizer_states": {"generator": {"state": {"0.weight": {"step": torch.tensor(3.0), "exp_avg": torch.randn(3)}}}},
    "Other": {"mask": torch.tensor([True, False]), "values": [torch.arange(3), 4]},
}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    layout.write(tmp_path / "run" / "000000000200", TREE)
    return tmp_path / "run" / "000000000200"


def test_what_goes_in_comes_out(saved: Path) -> None:
    assert_identical(layout.read(saved), TREE)
    names = {
        "state.json",
        "complete.json",
        *(f"{n}.safetensors" for n in ("networks", "averages", "optimizers", "extra")),
    }
    assert {file.name for file in saved.iterdir()} == names
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_writing_again_replaces(saved: Path) -> None:
    layout.write(saved, {"gesso": {"images_seen": 1}})
    assert layout.read(saved) == {"gesso": {"images_seen": 1}}


def test_what_is_no_data_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"callbacks\.Mine\.path is a PosixPath"):
        layout.write(tmp_path / "c", {"callbacks": {"Mine": {"path": Path("x")}}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["state.json", "networks.safetensors", "optimizers.safetensors"])
def test_damage_is_named(saved: Path, name: str) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-1])
    with pytest.raises(ValueError, match=rf"{name}: {len(content) - 1} bytes instead of {len(content)}"):
        layout.read(saved)
    (saved / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{name}: the SHA-256 differs"):
        layout.read(saved)
    (saved / name).unlink()
    with pytest.raises(ValueError, match=rf"'{name}' is missing"):
        layout.read(saved)


@pytest.mark.parametrize("verb", ["show", "verify", "generate"])
def test_a_damaged_one_names_the_one_before(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path)
    run.config.touch()
    for images in (16, 32, 40, 48):
        layout.write(run.checkpoints / f"{images:012d}", TREE)
    files.link(run.checkpoints / "last", run.checkpoints / "000000000040")
    (run.checkpoints / "000000000040" / "state.json").write_text("")
    command = ["generate"] if verb == "generate" else ["checkpoint", verb]
    assert main([*command, str(tmp_path)]) == 2
    assert re.search(
        r"state\.json: 0 bytes .* damaged; the checkpoint before is there: name \S*/000000000032, or delete "
        r"000000000040 to go on from that one$",
        capsys.readouterr().err.strip(),
    )


def test_the_only_one_has_none_before(saved: Path) -> None:
    with pytest.raises(ValueError, match="^it is damaged$"), files.older_one_named(saved):
        raise ValueError("it is damaged")


def test_an_incomplete_folder_is_no_checkpoint(saved: Path) -> None:
    (saved / "complete.json").unlink()
    with pytest.raises(ValueError, match="not a complete checkpoint"):
        layout.read(saved)


def test_a_link_that_dangles_falls_back_on_the_newest_complete_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.last_checkpoint is None
    for images in (100, 200, 300):
        layout.write(run.checkpoints / f"{images:012d}", {"gesso": {"images_seen": images}})
    files.link(run.checkpoints / "last", run.checkpoints / "000000000100")
    assert layout.read(run.last_checkpoint)["gesso"]["images_seen"] == 100  # type: ignore[arg-type]
    (run.checkpoints / "000000000300" / "complete.json").unlink()
    shutil.rmtree(run.checkpoints / "000000000100")
    assert run.last_checkpoint == run.checkpoints / "000000000200"


def test_killed_between_two_renames_the_new_one_is_found(saved: Path) -> None:
    saved.rename(files.partial_folder(saved))
    incomplete = saved.with_name("000000000300.partial")
    incomplete.mkdir()
    files.recover(saved.parent)
    assert_identical(layout.read(saved), TREE)
    assert not incomplete.with_suffix("").exists()


def test_killed_while_the_marker_is_written_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    write_text = Path.write_text

    def half(self: Path, text: str) -> int:
        if "complete" not in self.name:
            return write_text(self, text)
        write_text(self, text[: len(text) // 2])
        # A killed process cleans nothing up.
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
        raise Killed

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(Killed):
        layout.write(tmp_path / "000000000200", TREE)
    files.recover(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000000000200.partial"]
    assert not files.is_complete(tmp_path / "000000000200.partial")


def test_training_may_change_its_tensors_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    write = layout.write

    def slow(path: Path, tree: Any) -> None:
        assert go_on.wait(30)
        write(path, tree)

    monkeypatch.setattr(layout, "write", slow)
    io = BackgroundIO()
    weight = torch.ones(4)
    io.save_checkpoint({"state_dict": {"weight": weight}}, tmp_path / "c")
    weight.zero_()
    assert not (tmp_path / "c").exists()
    go_on.set()
    io.wait()
    assert torch.equal(layout.read(tmp_path / "c")["state_dict"]["weight"], torch.ones(4))
    io.teardown()


ENDING = """
import sys, threading
from pathlib import Path
from launch.checkpoints.background import BackgroundIO

def train():
    io = BackgroundIO()
    if {early}:
        io.then(lambda: folder.joinpath("early").touch())
    threading.main_thread().join(1)  # by now it waits for this thread, and no pool takes work any more
    io.then(lambda: folder.joinpath("late").touch())
    io.wait()

folder = Path(sys.argv[1])
threading.Thread(target=train).start()
"""


@pytest.mark.parametrize("early", [True, False])
def test_what_is_saved_while_the_process_ends_is_saved(tmp_path: Path, early: bool) -> None:
    command = [sys.executable, "-c", ENDING.format(early=early), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.stderr
    assert {file.name for file in tmp_path.iterdir()} == ({"early", "late"} if early else {"late"})


def test_nothing_is_booked_after_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, tree: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(layout, "write", full)
    io = BackgroundIO()
    booked: list[int] = []
    io.save_checkpoint({}, tmp_path / "c")
    io.then(lambda: booked.append(1))
    io.then(lambda: booked.append(2))
    with pytest.raises(OSError, match=r"could not save .*/c \(No space left on device\); earlier checkpoints"):
        io.wait()
    io.teardown()
    assert booked == []


# ---- files from strangers --------------------------------------------------------------------------------------------


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


def commands(path: Path, out: Path) -> list[list[str]]:
    return [
        ["generate", str(path), "--grid", str(out / "grid.png")],
        ["evaluate", str(path)],
        ["fit", "--config", "mnist-dcgan", "--checkpoint", str(path)],
        ["checkpoint", "show", str(path)],
        ["checkpoint", "verify", str(path)],
        ["checkpoint", "export", str(path), str(out / "exported.safetensors")],
    ]


@pytest.mark.parametrize("disguise", ["file", "member", "tensors", "state"])
def test_no_pickle_of_a_stranger_is_executed(
    disguise: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    owned = tmp_path / "owned"
    pickled = pickle.dumps(Evil(owned))
    pickle.loads(pickled)
    assert owned.exists(), "the trap itself must work"
    owned.unlink()
    target = saved
    if disguise == "file":
        target = tmp_path / "model.ckpt"
        torch.save({"gesso": {"family": "DCGAN"}, "state_dict": Evil(owned)}, target)
    elif disguise == "member":
        (saved / "evil.pkl").write_bytes(pickled)
        vouch(saved, "evil.pkl")
    elif disguise == "tensors":
        torch.save({"weight": Evil(owned)}, saved / "networks.safetensors")
        vouch(saved, "networks.safetensors")
    else:
        (saved / "state.json").write_bytes(pickled)
        vouch(saved, "state.json")
    for command in commands(target, tmp_path):
        assert main(command) == 2, command
        (error,) = capsys.readouterr().err.splitlines()
        assert "checkpoint" in error
        assert str(target) in error or "evil.pkl" in error or "gesso checkpoint" in error
    with pytest.raises(ValueError, match="checkpoint"):
        load_family(target)
    assert not owned.exists()
    assert not (tmp_path / "exported.safetensors").exists()


def test_a_marker_may_not_name_files_elsewhere(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    vouch(saved, "../../secret.json")
    with pytest.raises(ValueError, match=r"'\.\./\.\./secret\.json' is missing or no plain file"):
        layout.read(saved)
    layout.write(saved, TREE)
    (saved / "networks.safetensors").rename(tmp_path / "networks.safetensors")
    (saved / "networks.safetensors").symlink_to(tmp_path / "networks.safetensors")
    with pytest.raises(ValueError, match="no plain file"):
        layout.read(saved)


def vouch(folder: Path, name: str) -> None:
    """Makes the marker vouch for a file as it is now."""
    marker = json.loads((folder / "complete.json").read_text())
    file = folder / name
    marker["files"][name] = {"bytes": file.stat().st_size, "sha256": sha256(file)}
    (folder / "complete.json").write_text(json.dumps(marker))


def copied(folder: Path, name: str, images: int) -> Path:
    """A checkpoint under another name than its own, as a copy without links makes it."""
    layout.write(folder / name, {"gesso": {"images_seen": images}, "state_dict": {"x": torch.ones(2)}})
    return folder / name


def test_of_a_copy_without_links_the_newest_checkpoint_counts(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    last = copied(run.checkpoints, "last", 200)
    assert run.last_checkpoint == last, "there is no other"
    earlier = copied(run.checkpoints, f"{100:012d}", 100)
    assert run.last_checkpoint == last
    same = copied(run.checkpoints, f"{200:012d}", 200)
    assert run.last_checkpoint == same
    newer = copied(run.checkpoints, f"{300:012d}", 300)
    assert run.last_checkpoint == newer
    files.remove(last)
    files.link(last, earlier)
    assert run.last_checkpoint == last, "a link is somebody's word"


@pytest.mark.parametrize("there", ["nothing", "the same", "another", "a damaged one"])
def test_a_copy_in_a_link_s_place_is_not_lost(there: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    last, own = copied(tmp_path, "last", 200), tmp_path / f"{200:012d}"
    content = layout.read(last)["state_dict"]["x"].clone()
    if there != "nothing":
        copied(tmp_path, own.name, 200)
    if there == "another":
        layout.write(own, {"gesso": {"images_seen": 200}, "state_dict": {"x": torch.zeros(2)}})
    if there == "a damaged one":
        (own / "networks.safetensors").write_bytes(b"")
    new = copied(tmp_path, f"{300:012d}", 300)
    files.link(last, new)
    assert last.is_symlink()
    assert last.resolve() == new
    rest = [path for path in tmp_path.iterdir() if path.name not in (last.name, new.name, own.name)]
    kept = own if there in ("nothing", "the same") else rest.pop()
    assert torch.equal(layout.read(kept)["state_dict"]["x"], content)
    assert rest == []
    assert ("a folder where a link belongs" in capsys.readouterr().err) == (there in ("another", "a damaged one"))
