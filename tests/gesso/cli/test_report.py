"""`gesso report` writes the page again, without torch."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from gesso.cli import report as command
from tests.launch.report.finished import finished_run


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished_run(tmp_path / "my run")
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["report", str(run)])
    assert arguments.run(arguments) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").is_file()


@pytest.mark.process
def test_report_needs_no_torch() -> None:
    code = "import sys, launch.report, gesso.cli.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
