"""`gesso ui` from its command to its end, in a real browser: the page follows a run, and keeps what was marked."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.launch.report.finished import finished_run
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.process]


def test_a_page_follows_its_runs(browser: Any, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "runs" / "digits")
    finished_run(tmp_path / "runs" / "other")
    log = tmp_path / "log"
    with log.open("w") as out:
        command = [sys.executable, "-m", "gesso", "ui", str(tmp_path / "runs"), "--port", "0"]
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_until(lambda: "token=" in log.read_text(), "the address")
        page = browser.new_page()
        page.set_default_timeout(60_000)
        troubles: list[str] = []
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.goto(log.read_text().split()[1])
        assert "token" not in page.url
        page.check(".runs input[value=digits]")
        log_row(run, "fid/mobilenet_v2", 7.25)
        page.wait_for_selector("text=FID 7.25")
        assert page.is_checked(".runs input[value=digits]")
        assert not page.is_checked(".runs input[value=other]")
        page.check(".runs input[value=other]")
        page.click("text=compare")
        page.wait_for_selector("h1:text('2 runs')")
        page.go_back()
        page.click("a:text('digits')")
        page.fill("form.sample input[name=seed]", "12")
        log_row(run, "fid/mobilenet_v2", 6.5)
        page.wait_for_selector(".tiles strong:text('6.5')")
        assert page.input_value("form.sample input[name=seed]") == "12"
        # No network was ever there: the error is shown where the picture would be.
        page.click("form.sample button")
        page.wait_for_selector("form.sample .error:visible")
        assert [trouble for trouble in troubles if "422" not in trouble] == []
        page.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def log_row(run: Path, name: str, value: float) -> None:
    with (run / "metrics.csv").open("a") as stream:
        stream.write(f"200000,1795244401,{name},{value}\n")
