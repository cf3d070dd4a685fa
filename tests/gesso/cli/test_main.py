"""The command line answers at once, and every packaged recipe is a training that could start."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from safetensors import SafetensorError

from gesso.cli.main import explain, main, parser
from launch.training.parser_errors import parser_error
from launch.training.recipes import recipes, resolve_recipe
from launch.training.training import Training
from lightning_modules.core.options import plain


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["shards", "build", "--help"], ["recipes"]])
def test_an_answer_needs_no_torch(argv: list[str]) -> None:
    script = (
        "import sys\nfrom gesso.cli.main import main\n"
        f"try:\n    main({argv!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'lightning', 'numpy', 'PIL', 'cv2', 'wandb'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_verb_has_a_line_of_help() -> None:
    text = parser().format_help()
    verbs = "fit validate test plan generate stylize evaluate checkpoint shards fetch recipes report slurm"
    for verb in verbs.split():
        assert re.search(rf"^    {verb}\s+\S", text, re.MULTILINE), verb


@pytest.mark.slow
def named(built: Any, value: object) -> object:
    """Of what was built, the options that a recipe names, at any depth."""
    return {key: named(built[key], item) for key, item in value.items()} if isinstance(value, dict) else built


@pytest.mark.parametrize("name", sorted(recipes()))
def test_a_recipe_builds(name: str, tmp_path: Path) -> None:
    cli: Any = Training(name, {"trainer.accelerator": "cpu"}, folder=tmp_path / "run").build()
    assert not (tmp_path / "run").exists()
    written = yaml.safe_load(resolve_recipe(name).read_text())
    assert type(cli.model).__name__ == written["model"]["class_path"]
    for option, value in written["model"]["init_args"].items():
        assert named(plain(cli.model.hparams[option]), value) == value
    assert cli.datamodule.global_batch_size == written["data"]["init_args"]["global_batch_size"]
    monitor = written["checkpoints"]["monitor"]
    assert monitor is None or monitor in written["evaluation"]["metrics"] or monitor.startswith("val/")


def test_a_recipe_says_how_to_get_its_data() -> None:
    for name, what in recipes().items():
        assert len(what) > 20
        second = resolve_recipe(name).read_text().splitlines()[1]
        assert second.startswith("# First: gesso shards build ")
        path = yaml.safe_load(resolve_recipe(name).read_text())["data"]["init_args"]["path"]
        assert f" {path}" in second


def test_faults_of_ours_are_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(ValueError("two\n lines")) == "two lines"
    assert "unexpected KeyError" in explain(KeyError("x"))
    for theirs in (MisconfigurationException("no GPU"), SafetensorError("no header"), MemoryError("no room")):
        assert "report it" not in explain(theirs)
        assert str(theirs) in explain(theirs)
    assert main(["--debug", "recipes", "nothing-like-it"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert errors.strip().splitlines()[-1].startswith("gesso: nothing-like-it: neither a file nor a packaged recipe")


def test_a_parsers_account_is_cut_to_what_is_wrong() -> None:
    account = (
        'Parser key "model":\n  Does not validate against any of the Union subtypes\n  Errors:\n'
        "    - Problem with given class_path 'lightning_modules.gan.dcgan.DCGAN':\n"
        "        Option 'betaa' is not accepted\n"
        "    - Expected a <class 'NoneType'>\n  Given value: NestedArg(key='betaa', val='1')"
    )
    assert parser_error(account).startswith("model: DCGAN has no option betaa; `gesso fit --model.help DCGAN`")
    assert parser_error("unrecognized\narguments: --x") == "unrecognized arguments: --x"


def test_the_help_of_fit_names_what_belongs_to_no_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    listed = capsys.readouterr().out
    assert "--resume PATH " in listed
    assert "--checkpoint PATH " in listed
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--config", "mnist-vae", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert {"resume", "checkpoint"}.isdisjoint(printed)
