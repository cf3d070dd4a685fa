"""W&B as a guest: training goes on without it."""

from __future__ import annotations

import contextlib
import http.server
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from launch.runs.folder import RunFolder
from launch.runs.weights_and_biases import ANSWER, finish_wandb, wandb_logger, wandb_mode, wandb_processes
from tests.launch.offline import wandb_runs
from tests.waiting import wait_until

#: W&B's own.
pytestmark = pytest.mark.process


@pytest.mark.slow
def test_a_dead_wandb_ends_nothing_and_has_lost_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunFolder(tmp_path / "run")
    logger = wandb_logger(run, "gesso", "offline", {})
    assert logger is not None
    before = wandb_processes()
    for value in range(5):
        logger.log_metrics({"loss": value})
    wait_until(lambda: [rows for _, rows in wandb_runs(tmp_path)] == [5], "W&B's writing", seconds=60)
    # As SLURM does with every process of a job.
    for process in before | wandb_processes():
        os.kill(process, signal.SIGTERM)
    wait_until(lambda: not wandb_processes(), "the end of W&B's processes")
    for value in range(5):
        logger.log_metrics({"loss": value})
        time.sleep(0.1)
    finish_wandb(failed=False)
    assert capsys.readouterr().err.count("W&B no longer answers") == 2
    assert wandb_runs(tmp_path) == [(logger.facts["wandb_id"], 5)]


def identity_of(run: RunFolder) -> str:
    """The id of the W&B run that a training in this folder would have; noted in run.json, as at its beginning."""
    logger = wandb_logger(run, "gesso", "offline", {})
    assert logger is not None
    run.update(**logger.facts)
    return logger.facts["wandb_id"]


def test_a_copied_run_has_a_wandb_run_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, copy, moved = (RunFolder(tmp_path / name) for name in ("run", "copy", "moved"))
    run.path.mkdir()
    first = identity_of(run)
    shutil.copytree(run.path, copy.path)
    second = identity_of(copy)
    assert second != first
    assert capsys.readouterr().err == f"{copy.path} is a copy of {run.path}: its numbers go into a W&B run of its own\n"
    # Both go on with their own, also through a link and after a move, and so does a run of before.
    (tmp_path / "link").symlink_to(run.path)
    assert identity_of(RunFolder(tmp_path / "link")) == first
    assert identity_of(copy) == second
    run.path.rename(moved.path)
    assert identity_of(moved) == first
    moved.update(wandb_folder=None)
    assert identity_of(moved) == first
    assert capsys.readouterr().err == ""


# ---- a server, or none ----------------------------------------------------------------------------------------------

KEY = "0123456789" * 4


class Server(http.server.BaseHTTPRequestHandler):
    """W&B's, as far as it is asked who somebody is; ``code`` is its answer to that, and everything else it refuses."""

    code = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code = self.code if self.headers.get("User-Agent") == "gesso" else 404
        self.send_response(code)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def server(code: int) -> Iterator[str]:
    """Context manager: a W&B server on this machine; yields its address."""
    one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Answering", (Server,), {"code": code}))
    threading.Thread(target=one.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{one.server_port}"
    finally:
        one.shutdown()
        one.server_close()


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A home without anything of W&B's, and a W&B that reads its settings anew."""
    wandb.teardown()
    for name in [name for name in os.environ if name.startswith("WANDB_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    yield monkeypatch
    wandb.teardown()
    forget_key()


def forget_key() -> None:
    from wandb.sdk.lib import wbauth

    wbauth.unauthenticate_session(update_settings=True)


def test_without_a_key_runs_are_offline_and_online_says_how_to_get_one(account: pytest.MonkeyPatch) -> None:
    assert wandb_mode("auto") == "offline"
    with pytest.raises(ValueError, match="wandb login.*WANDB_API_KEY.*--run.wandb offline, or disabled"):
        wandb_mode("online")
    account.setenv("WANDB_MODE", "online")
    with pytest.raises(ValueError, match="wandb login"):
        wandb_mode("auto")


@pytest.mark.parametrize(("value", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")])
def test_wandb_mode_is_heeded(value: str, mode: str, account: pytest.MonkeyPatch) -> None:
    account.setenv("WANDB_MODE", value)
    assert wandb_mode("auto") == mode


def test_a_wandb_mode_that_is_none_is_named(account: pytest.MonkeyPatch) -> None:
    account.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ValueError, match="WANDB_MODE is 'ofline': write online, offline or disabled"):
        wandb_mode("auto")
    account.delenv("WANDB_MODE")
    account.setenv("WANDB_DISABLED", "true")
    assert wandb_mode("auto") == "disabled"


@pytest.mark.parametrize("key", ["abc", "wrong" * 8])
def test_a_wrong_key_is_one_line_before_anything_is_written(
    key: str, account: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    account.setenv("WANDB_API_KEY", key)
    with server(401) as address:
        account.setenv("WANDB_BASE_URL", address)
        with pytest.raises(ValueError, match="W&B.*WANDB_API_KEY.*--run.wandb offline, or disabled"):
            wandb_logger(RunFolder(tmp_path / "run"), "gesso", "auto", {})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("code", [200, 502])
def test_online_takes_a_server_that_answers(
    code: int, account: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account.setenv("WANDB_API_KEY", KEY)
    with server(code) as address:
        account.setenv("WANDB_BASE_URL", address)
        assert wandb_mode("auto") == ("online" if code == 200 else "offline")
    said = capsys.readouterr().err
    assert (address in said and "HTTP 502" in said and "wandb sync" in said) if code == 502 else not said


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_without_a_network_a_key_means_offline_soon(
    mode: Any, account: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account.setenv("WANDB_API_KEY", KEY)
    account.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    began = time.monotonic()
    assert wandb_mode(mode) == "offline"
    assert time.monotonic() - began < ANSWER + 20  # W&B alone tries for minutes
    assert "not to be reached at http://127.0.0.1:9" in capsys.readouterr().err


@pytest.mark.slow
def test_a_server_that_refuses_the_run_ends_nothing(
    account: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    account.setenv("WANDB_API_KEY", KEY)
    run = RunFolder(tmp_path / "run")
    with server(200) as address:
        account.setenv("WANDB_BASE_URL", address)
        logger = wandb_logger(run, "gesso", "auto", {})
        assert logger is not None
        assert logger.facts["wandb_mode"] == "online"
        logger.log_metrics({"loss": 1.0})
        assert "this run is logged offline" in capsys.readouterr().err
    assert logger.facts["wandb_mode"] == "offline"
    finish_wandb(failed=False)
    # The attempt online has left a file of its own, without a row; W&B's own process writes after `finish` returns.
    wait_until(lambda: sum(rows for _, rows in wandb_runs(tmp_path)) == 1, "W&B's writing", seconds=60)


def test_what_never_begins_ends_nothing(
    account: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(**options: Any) -> None:
        raise OSError("No space left on device")

    account.setattr(wandb, "init", broken)
    logger = wandb_logger(RunFolder(tmp_path / "run"), "gesso", "offline", {})
    assert logger is not None
    logger.log_hyperparams({"width": 8})
    for value in range(3):
        logger.log_metrics({"loss": value})
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_an_end_that_takes_for_ever_is_cut_short(
    account: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account.setattr(wandb, "run", object())
    account.setattr(wandb, "finish", lambda **_: time.sleep(3))
    finish_wandb(failed=False, seconds=0.05)
    assert "wandb sync" in capsys.readouterr().err
