"""The application behind ``gesso ui``."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from gesso.common.extras import needing
from gesso.common.text import one_line
from launch.report.pieces import Html
from launch.runs.folder import RunFolder
from launch.ui import pages
from launch.ui.comparison import MOST
from launch.ui.door import HEADERS, Door
from launch.ui.runs import Row, checkpoints_of, find_runs, row_of, thumbnail, version_of
from launch.ui.samples import Sampler, Wanted

with needing("serve"):
    from fastapi import Body, FastAPI, HTTPException, Query, Request
    from fastapi.responses import HTMLResponse, JSONResponse, Response

#: Runs ``gesso slurm`` with these words and returns what it said and whether it succeeded.
Act = Callable[[Sequence[str]], tuple[str, bool]]


@dataclass
class Shelf:
    """The runs that are shown.

    Args:
        folders: in and below which they are.
        act: what queues and cancels; None: nothing may be changed.
        sampler: what makes samples.
    """

    folders: Sequence[Path]
    act: Act | None
    sampler: Sampler
    _rows: dict[str, tuple[str, Row]] = field(default_factory=dict)

    def run(self, key: str) -> RunFolder:
        """The run of a key; raises an HTTPException where there is none."""
        runs = find_runs(self.folders)
        if key not in runs:
            raise HTTPException(404, f"{key}: there is no such run")
        return runs[key]

    def listing(self) -> tuple[str, Callable[[], list[Row]]]:
        """A text that changes when anything of the list does, or a minute has passed; and what reads the runs' rows.

        Runs that have not changed are not read again.
        """
        runs = find_runs(self.folders)
        versions = {key: version_of(run) for key, run in runs.items()}

        def rows() -> list[Row]:
            found = {}
            for key, run in runs.items():
                kept = self._rows.get(key)
                found[key] = kept if kept and kept[0] == versions[key] else (versions[key], row_of(key, run))
            self._rows = found
            return [row for _, row in found.values()]

        return f"{hash(tuple(versions.items())):x}-{time.time() // 60:.0f}", rows


def make_app(shelf: Shelf, token: str) -> FastAPI:
    """The application, behind its door."""
    app = FastAPI(title="gesso ui", openapi_url=None)
    app.add_middleware(Door, token=token)
    app.add_exception_handler(HTTPException, _refused)
    _add_pages(app, shelf)
    _add_pictures(app, shelf)
    _add_actions(app, shelf)
    return app


def _add_pages(app: FastAPI, shelf: Shelf) -> None:
    actions = shelf.act is not None

    @app.get("/")
    def index(request: Request, part: str = "") -> Response:
        version, rows = shelf.listing()

        def body() -> Html:
            return pages.index_body(rows(), folders=shelf.folders, actions=actions)

        return _page(request, "runs", body, version, part)

    @app.get("/run")
    def one(request: Request, run: str, part: str = "") -> Response:
        folder = shelf.run(run)

        def body() -> Html:
            return pages.run_body(run, folder, actions=actions)

        return _page(request, run, body, version_of(folder), part)

    @app.get("/compare")
    def compare(request: Request, run: Annotated[list[str] | None, Query()] = None, part: str = "") -> Response:
        keys = list(dict.fromkeys(run or []))
        if not 2 <= len(keys) <= MOST:
            raise HTTPException(422, f"mark 2 to {MOST} runs to compare them")
        folders = [shelf.run(key) for key in keys]

        def body() -> Html:
            return pages.comparison_body(folders)

        return _page(request, "comparison", body, "+".join(map(version_of, folders)), part)


def _add_pictures(app: FastAPI, shelf: Shelf) -> None:
    @app.get("/thumbnail")
    def small(run: str) -> Response:
        data = thumbnail(shelf.run(run))
        if data is None:
            raise HTTPException(404, f"{run}: there are no samples yet")
        return Response(data, media_type="image/png", headers={**HEADERS, "Cache-Control": "no-cache"})

    @app.get("/samples.png")
    def samples(
        run: str, checkpoint: str, num: int = 16, seed: int = 0, label: int | None = None, raw: bool = False
    ) -> Response:
        known = {path.name: path for path in checkpoints_of(shelf.run(run))}
        if checkpoint not in known:
            raise HTTPException(404, f"{checkpoint}: {run} has no such checkpoint (any more)")
        try:
            picture = shelf.sampler.grid(known[checkpoint], Wanted(num, seed, label, average=not raw))
        except (ValueError, OSError) as error:
            raise HTTPException(422, one_line(error)) from error
        return Response(picture, media_type="image/png", headers=HEADERS)


def _add_actions(app: FastAPI, shelf: Shelf) -> None:
    """What changes something. JSON alone is taken: forms of other sites cannot send it."""

    def act(words: Sequence[str]) -> Response:
        if shelf.act is None:
            raise HTTPException(403, "this page only shows: start it with `gesso ui --allow-actions`")
        said, done = shelf.act(words)
        return JSONResponse({"detail": said}, 200 if done else 422, HEADERS)

    @app.post("/resume")
    def resume(run: str, _: Annotated[dict[str, str], Body()]) -> Response:
        return act(["resume", str(shelf.run(run).path)])

    @app.post("/cancel")
    def cancel(run: str, _: Annotated[dict[str, str], Body()]) -> Response:
        return act(["cancel", str(shelf.run(run).path)])

    @app.post("/queue")
    def queue(asked: Annotated[dict[str, str], Body()]) -> Response:
        return act(["submit", *_split(asked.get("words", ""))])


def _page(request: Request, title: str, body: Callable[[], Html], version: str, part: str) -> Response:
    """A page, or what stands in it; 304 where the asker has it already."""
    tag = f'"{version}"'
    headers = {**HEADERS, "ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    try:
        content = body()
    except (ValueError, OSError) as error:
        # A run whose files are damaged, or are being moved at this moment.
        content = pages.message_body(one_line(error))
    return HTMLResponse(content if part == "body" else pages.page(title, content), headers=headers)


def _split(words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError as error:
        raise HTTPException(422, f"{words}: {one_line(error)}") from error


async def _refused(request: Request, error: Exception) -> Response:
    """An error as one line: for scripts as JSON, for people as a page."""
    assert isinstance(error, HTTPException)
    if "text/html" in request.headers.get("accept", ""):
        page = pages.page("gesso", pages.message_body(str(error.detail)))
        return HTMLResponse(page, error.status_code, HEADERS)
    return JSONResponse({"detail": error.detail}, error.status_code, HEADERS)
