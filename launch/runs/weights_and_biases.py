"""The W&B logger: whatever fails in it ends no training, and the run folder has everything."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import signal
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyExperiment, rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from gesso.common.text import one_line
from launch.runs.folder import RunFolder
from launch.runs.tracking import rank_zero_print

WandbMode = Literal["auto", "online", "offline", "disabled"]
Known = Literal["online", "offline", "disabled"]

#: What WANDB_MODE may say, and what it means here.
MODES: dict[str, Known] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}
#: The field of run.json with the folder that its W&B run is of.
FOLDER = "wandb_folder"
#: Seconds that a server has to answer before training begins; without an answer the run is logged offline.
ANSWER = 5.0
#: Seconds that W&B has to begin a run.
BEGINNING = 30.0
#: Seconds that W&B has, when training is over, to send what it still holds.
ENDING = 60.0

_WITHOUT = "train with --run.wandb offline, or disabled"


class ForgivingWandb(WandbLogger):
    """W&B logger whose failures do not end training: metrics.csv and the pictures are still written."""

    _gone = False

    def __init__(self, *, id: str, known_mode: str, **options: Any) -> None:
        super().__init__(id=id, **options)
        #: Fields for run.json, so that a resumed run finds its W&B run; written when training begins, after W&B has.
        self.facts = {"wandb_id": id, "wandb_mode": known_mode, FOLDER: os.path.abspath(options["save_dir"])}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """W&B's run: begun at first use, offline where that fails online; one that does nothing where both fail."""
        if self._experiment is None and not self._gone:
            self._begin()
        return DummyExperiment() if self._experiment is None else self._experiment

    def _begin(self) -> None:
        settings: Any = self._wandb_init["settings"]
        try:
            self._start()
        except Exception as error:
            if settings.mode == "online":
                rank_zero_print(
                    f"W&B does not begin ({one_line(error)}): this run is logged offline; `wandb sync` sends it later"
                )
                settings.mode = self.facts["wandb_mode"] = "offline"
                with contextlib.suppress(Exception):
                    # Its own process still holds the run's id.
                    sys.modules["wandb"].teardown()
                self._begin()
                return
            self._gone = True
            rank_zero_print(f"W&B does not begin ({one_line(error)}); the run folder keeps everything")

    def _start(self) -> None:
        # Lightning's own property, which calls `wandb.init`.
        _ = super().experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        with self._forgiving():
            super().log_metrics(metrics, step)

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        with self._forgiving():
            super().log_image(key, images, step, **kwargs)

    def log_hyperparams(self, params: Any) -> None:
        with self._forgiving():
            super().log_hyperparams(params)

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._gone:
                rank_zero_print(f"W&B no longer answers ({one_line(error)}); the run folder still keeps everything")
            self._gone = True


def wandb_logger(
    run: RunFolder, project: str, mode: WandbMode, config: Mapping[str, Any], *, group: str | None = None
) -> ForgivingWandb | None:
    """The W&B run of a training: the same one after every resume; offline where there is no key, or no answer.

    A copy of a run's folder gets one of its own, or two trainings would write into one. Where run.json has no id yet,
    one is drawn; the caller writes ``facts`` to run.json before training begins, so that a run killed at any moment
    goes on in W&B where it was.

    Raises:
        ValueError: a key that is none, no key where ``online`` was asked for, or an unknown WANDB_MODE; one line.
    """
    known = wandb_mode(mode)
    if known == "disabled":
        return None
    # W&B's own lines would break the progress bar; what it has to say is in run.json and the report.
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    identity = _own_identity(run) or wandb.sdk.lib.runid.generate_id()
    return ForgivingWandb(
        name=run.path.name,
        project=project,
        id=identity,
        group=group,
        save_dir=str(run.path),
        resume="allow",
        config=dict(config),
        settings=wandb.Settings(
            silent=True,
            mode=known,
            init_timeout=BEGINNING,
            # SLURM's SIGTERM ends W&B's own process as well (wandb issue 9963): what was logged must be on disk then.
            x_transaction_log_flush_interval=1.0,
        ),
        known_mode=known,
    )


def _own_identity(run: RunFolder) -> str | None:
    """The id of a run's W&B run, as run.json has it; None where there is none, or it belongs to another folder."""
    info = run.info()
    known, folder = info.get("wandb_id"), info.get(FOLDER)
    if known is None or folder is None:
        return known
    original = RunFolder(Path(folder))
    try:
        # A run that was moved, or is seen by another path, is none.
        copied = original.info().get("wandb_id") == known and not original.path.samefile(run.path)
    except (OSError, ValueError):
        copied = False
    if copied:
        rank_zero_print(f"{run.path} is a copy of {original.path}: its numbers go into a W&B run of its own")
    return None if copied else known


def wandb_mode(mode: WandbMode) -> Known:
    """Decides how a run is logged: as it was asked for, by WANDB_MODE if set, else online with a key.

    Online takes a server that answers: compute nodes often reach none, and W&B would try for minutes.

    Raises:
        ValueError: see ``wandb_logger``.
    """
    asked = _asked(mode)
    if asked in ("offline", "disabled"):
        return asked
    others: Any = rank_zero_only
    if others.rank:
        # The first rank alone speaks to W&B.
        return "offline"
    os.environ.setdefault("WANDB_SILENT", "true")
    settings = _settings()
    if settings is None:
        if asked == "online":
            raise ValueError(f"W&B has no key: `wandb login`, or set WANDB_API_KEY, or {_WITHOUT}")
        return "offline"
    trouble = _within(ANSWER, lambda: _trouble(settings.base_url, settings.api_key))
    if trouble:
        rank_zero_print(
            f"W&B is not to be reached at {settings.base_url} ({trouble}): this run is logged offline; "
            "`wandb sync` sends it later"
        )
    return "offline" if trouble else "online"


def _asked(mode: WandbMode) -> Known | Literal["auto"]:
    if mode != "auto":
        return mode
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1"):
        return "disabled"
    chosen = os.environ.get("WANDB_MODE")
    if not chosen:
        return "auto"
    if chosen not in MODES:
        raise ValueError(f"WANDB_MODE is {chosen!r}: write online, offline or disabled")
    return MODES[chosen]


def _settings() -> Any:
    """W&B's settings, with the key that it has found; None: there is none.

    Raises:
        ValueError: what it has found is no key.
    """
    import wandb

    try:
        return wandb.setup().settings if wandb.login(prompt=False, verify=False) else None
    except wandb.errors.AuthenticationError as error:
        raise ValueError(
            f"W&B: {one_line(error)} Correct WANDB_API_KEY or `wandb login` again, or {_WITHOUT}"
        ) from error
    except Exception as error:
        rank_zero_print(f"W&B has trouble of its own ({one_line(error)}): this run is logged offline")
        return None


def _trouble(url: str, key: str | None) -> str:
    """Asks a W&B server whose key this is. Returns why it cannot be asked; "" if it answers.

    Raises:
        ValueError: it answers that it does not know this key.
    """
    question = urllib.request.Request(
        f"{url.rstrip('/')}/graphql",
        data=b'{"query": "query { viewer { id } }"}',
        headers={"Content-Type": "application/json", "User-Agent": "gesso"},
    )
    if key:
        question.add_header("Authorization", f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}")
    try:
        with urllib.request.urlopen(question, timeout=ANSWER) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 401 and key:
            raise ValueError(
                f"W&B at {url} does not know this key: correct WANDB_API_KEY or `wandb login` again, or {_WITHOUT}"
            ) from error
        return f"HTTP {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return one_line(getattr(error, "reason", error))
    return ""


def _within(seconds: float, ask: Callable[[], str]) -> str:
    """Calls ``ask`` and returns its answer, or a text that says it took too long: a DNS lookup may take minutes.

    Args:
        seconds: how long to wait.
        ask: called in a thread of its own; its ValueErrors are raised here.
    """
    found: list[str | ValueError] = []

    def work() -> None:
        try:
            found.append(ask())
        except ValueError as error:
            found.append(error)

    worker = threading.Thread(target=work, daemon=True, name="ask-wandb")
    worker.start()
    worker.join(seconds + 1)
    if not found:
        return f"no answer within {seconds:.0f} s"
    if isinstance(found[0], ValueError):
        raise found[0]
    return found[0]


def finish_wandb(*, failed: bool, seconds: float = ENDING) -> None:
    """Closes this process's W&B run, if there is one; W&B's own process may write for a moment longer.

    Args:
        failed: how training ended.
        seconds: that W&B has to send what it still holds; without a network it would try for days.
    """
    # Not imported here: what never began needs no end, and an import that fails would hide what ended the training.
    wandb: Any = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    trouble: list[Exception] = []

    def finish() -> None:
        try:
            wandb.finish(exit_code=int(failed))
        except Exception as error:
            trouble.append(error)

    worker = threading.Thread(target=finish, daemon=True, name="finish-wandb")
    worker.start()
    worker.join(seconds)
    if worker.is_alive():
        rank_zero_print(f"W&B has not sent everything within {seconds:.0f} s; `wandb sync` sends the rest")
        end_wandb_processes()
        worker.join(seconds)
    elif trouble:
        rank_zero_print(f"W&B no longer answers ({one_line(trouble[0])}); what it has of this run: wandb sync")
    if trouble:
        with contextlib.suppress(Exception):
            # Else it tries once more, and complains at length, when this process ends.
            wandb.teardown()
        # The next training in this process must not go on with this one's.
        wandb.run = None


def end_wandb_processes() -> None:
    """Ends W&B's own processes that this one has started; what they hold is on disk (Linux; elsewhere nothing)."""
    for process in wandb_processes():
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)


def wandb_processes() -> set[int]:
    """Numbers of W&B's own processes that this one has started (Linux)."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            parent = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            if parent == str(os.getpid()) and b"wandb-core" in (folder / "cmdline").read_bytes():
                found.add(int(folder.name))
    return found
